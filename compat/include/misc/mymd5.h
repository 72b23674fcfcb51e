/* MD5 (RFC 1321). The names keep clear of other libraries'. */
#ifndef MISC_MYMD5_H
#define MISC_MYMD5_H

#include <misc/cdefs.h>
#include <sys/uio.h>

MAVIS_BEGIN_DECLS

/* A computation under way; the caller's memory. Its contents are the library's business. */
typedef struct {
    uint32_t state[4];
    uint32_t count[2];
    unsigned char buffer[64];
} myMD5_CTX;

MAVIS_SIZE(myMD5_CTX, myMD5_CTX, 88);
MAVIS_OFFSET(myMD5_CTX, myMD5_CTX, count, 16);
MAVIS_OFFSET(myMD5_CTX, myMD5_CTX, buffer, 24);

/* Starts a computation. */
void myMD5Init(myMD5_CTX *context);

/* Adds `len` bytes. */
void myMD5Update(myMD5_CTX *context, void *input, size_t len);

/* Ends it; the 16 bytes of the result go to `digest`. */
void myMD5Final(unsigned char digest[16], myMD5_CTX *context);

/* The whole in one call, over `iovcnt` pieces. 0, or -1 if `digest` is NULL or `digest_len` is not
 * 16. */
int md5v(unsigned char *digest, size_t digest_len, const struct iovec *iov, int iovcnt);

MAVIS_END_DECLS

#endif

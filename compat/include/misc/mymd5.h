/* MD5 (RFC 1321). The names avoid clashes with other libraries. */
#ifndef MISC_MYMD5_H
#define MISC_MYMD5_H

#include <misc/cdefs.h>
#include <sys/uio.h>

MAVIS_BEGIN_DECLS

/* A digest in progress, in the caller's memory. Only the library uses its fields. */
typedef struct {
    uint32_t state[4];
    uint32_t count[2];
    unsigned char buffer[64];
} myMD5_CTX;

MAVIS_SIZE(myMD5_CTX, myMD5_CTX, 88);
MAVIS_OFFSET(myMD5_CTX, myMD5_CTX, count, 16);
MAVIS_OFFSET(myMD5_CTX, myMD5_CTX, buffer, 24);

/* Starts a digest. */
void myMD5Init(myMD5_CTX *context);

/* Adds `len` bytes. */
void myMD5Update(myMD5_CTX *context, void *input, size_t len);

/* Writes the digest, and clears the context. */
void myMD5Final(unsigned char digest[16], myMD5_CTX *context);

/* The digest of `iovcnt` pieces in one call. Returns 0, or -1 if `digest` is NULL or `digest_len`
 * is not 16. */
int md5v(unsigned char *digest, size_t digest_len, const struct iovec *iov, int iovcnt);

MAVIS_END_DECLS

#endif

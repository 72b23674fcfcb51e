/* MD4 (RFC 1320), for the hashes of MS-CHAP. */
#ifndef MISC_MYMD4_H
#define MISC_MYMD4_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* A digest in progress, in the caller's memory. */
typedef struct {
    uint32_t state[4];
    uint32_t count[2];
    unsigned char buffer[64];
} myMD4_CTX;

MAVIS_SIZE(myMD4_CTX, myMD4_CTX, 88);
MAVIS_OFFSET(myMD4_CTX, myMD4_CTX, count, 16);
MAVIS_OFFSET(myMD4_CTX, myMD4_CTX, buffer, 24);

/* Starts a digest. */
void MD4Init(myMD4_CTX *context);

/* Adds `inputLen` bytes. */
void MD4Update(myMD4_CTX *context, unsigned char *input, unsigned int inputLen);

/* Writes the digest, and clears the context. */
void MD4Final(unsigned char digest[16], myMD4_CTX *context);

MAVIS_END_DECLS

#endif

/* The cipher of MAVIS datagrams. It is Blowfish with shortened tables: not secure, and not what other
 * programs call Blowfish. It is for talking to those who have it. */
#ifndef MAVIS_BLOWFISH_H
#define MAVIS_BLOWFISH_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

typedef union {
    char c[1];
    unsigned int u[1];
} a_char;

MAVIS_SIZE(a_char, a_char, 4);

struct blowfish_ctx;

/* A context, to be freed with free(3). */
struct blowfish_ctx *blowfish_init(char *key, size_t keylen);

/* Encrypts `dlen` bytes in place, where the buffer has room for 12 more, and gives the new length: the same if
 * it is a multiple of 8, else it is the next multiple of 4 above dlen + 4. */
size_t blowfish_enc(struct blowfish_ctx *ctx, a_char *data, size_t dlen);

/* Decrypts in place, and gives the number of 32-bit words. */
size_t blowfish_dec(struct blowfish_ctx *ctx, a_char *data, size_t dlen);

MAVIS_END_DECLS

#endif

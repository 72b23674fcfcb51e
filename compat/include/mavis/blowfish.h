/* The cipher of MAVIS datagrams. It is Blowfish with shortened tables: not secure, and not
 * compatible with standard Blowfish. It is here for talking to programs that use it. */
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

/* Encrypts `dlen` bytes in place and returns the new length: `dlen` if that is a multiple of 8,
 * otherwise the next multiple of 4 above `dlen` + 4. The buffer must have room for 12 more
 * bytes. */
size_t blowfish_enc(struct blowfish_ctx *ctx, a_char *data, size_t dlen);

/* Decrypts in place, up to the next multiple of 8, and returns the length in 32-bit words. */
size_t blowfish_dec(struct blowfish_ctx *ctx, a_char *data, size_t dlen);

MAVIS_END_DECLS

#endif

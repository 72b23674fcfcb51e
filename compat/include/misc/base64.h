/* Base64 with the standard alphabet. The padding is the reverse of the standard's: one byte left
 * over gives two characters and `=`, two bytes left over give three characters and `==`. Serial
 * numbers of queries are made with it, so it stays that way. */
#ifndef MISC_BASE64_H
#define MISC_BASE64_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Encodes. `*outbuf_len` is the size of `outbuf` on entry, which must be at least (8 n + 5) / 6 +
 * 1, and two more for padding to be safe; on return it is the number of characters, which a NUL
 * follows. Returns 0, or -1 if there is too little room. */
int base64enc(char *inbuf, size_t inbuf_len, char *outbuf, size_t *outbuf_len);

/* Decodes up to the end or the first `=`. `*outbuf_len` is the size of `outbuf` on entry, at least
 * 3 * (n / 4) + 1, and the number of bytes on return; a NUL follows them. Returns 0, or -1 if there
 * is too little room or a character is not in the alphabet. */
int base64dec(char *inbuf, size_t inbuf_len, char *outbuf, size_t *outbuf_len);

MAVIS_END_DECLS

#endif

/* Base64 with the standard alphabet. The padding is not the standard one: one byte left over gives
 * two characters and `=`, two bytes left over give three characters and `==`. Serial numbers of
 * queries are made with it, so it stays as it is. */
#ifndef MISC_BASE64_H
#define MISC_BASE64_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Encodes. `*outlen` is the room of `outbuf` on entry, which must be (8 n + 5) / 6 + 1 at least, and
 * two more for padding to be safe; on return it is the number of characters, a NUL follows them.
 * 0, or -1 for lack of room. */
int base64enc(char *inbuf, size_t inbuf_len, char *outbuf, size_t *outbuf_len);

/* Decodes up to the end or the first `=`. `*outlen` is the room on entry, 3 * (n / 4) + 1 at least,
 * and the number of bytes on return; a NUL follows them. 0, or -1 for lack of room or a character
 * that is not of the alphabet. */
int base64dec(char *inbuf, size_t inbuf_len, char *outbuf, size_t *outbuf_len);

MAVIS_END_DECLS

#endif

/* Conversion of text encodings. */
#ifndef MISC_UTF_H
#define MISC_UTF_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Converts UTF-8, up to the first NUL, to little-endian UTF-16. `*out` is malloc'ed for the caller
 * to free, `*outlen` its length in bytes. Returns 0, or -1 if the input is not UTF-8. */
int utf8_to_utf16le(char *in, size_t inlen, char **out, size_t *outlen);

MAVIS_END_DECLS

#endif

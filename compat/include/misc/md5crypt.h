/* Passwords hashed with the MD5 scheme, `$1$SALT$HASH`. */
#ifndef MISC_MD5CRYPT_H
#define MISC_MD5CRYPT_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Hashes `pw`. `salt` may be a whole hash, of which only the salt is used. The result is in static
 * memory, valid until the next call. */
char *md5crypt(const char *pw, const char *salt);

MAVIS_END_DECLS

#endif

/* The name of the operating system, for paths that depend on it. */
#ifndef MISC_OSTYPE_H
#define MISC_OSTYPE_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* `SYSTEM-RELEASE-MACHINE` in lower case, in static memory. */
char *ostype(void);

/* Copies `format` to `s`, which has room for `len` bytes, with `%o` replaced by ostype(), `%O` by
 * the system that this library was built for, and `%%` by a percent sign; other pairs vanish.
 * Returns `s`. */
char *ostypef(char *format, char *s, size_t len);

MAVIS_END_DECLS

#endif

/* A string with its length. */
#ifndef MISC_STR_H
#define MISC_STR_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

typedef struct {
    char *txt;  /* ends with NUL */
    size_t len; /* bytes before the NUL */
} str_t;

MAVIS_SIZE(str_t, str_t, 16);
MAVIS_OFFSET(str_t, str_t, len, 8);

MAVIS_END_DECLS

#endif

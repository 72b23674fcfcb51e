/* What ps(1) shows. */
#ifndef MISC_SETPROCTITLE_H
#define MISC_SETPROCTITLE_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* To be called first in main(): notes where the arguments and the environment lie, and moves the
 * environment away to make room. */
void setproctitle_init(char **argv, char **envv);

/* Shows `PROGRAM: TEXT`, cut to the room there is. */
void setproctitle(const char *format, ...) MAVIS_PRINTF(1, 2);

MAVIS_END_DECLS

#endif

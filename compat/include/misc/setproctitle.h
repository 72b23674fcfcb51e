/* The process title that ps(1) shows. */
#ifndef MISC_SETPROCTITLE_H
#define MISC_SETPROCTITLE_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Call this at the start of main(): it allows titles, which may overwrite the arguments. Both
 * parameters are ignored: the system knows where a title goes. */
void setproctitle_init(char **argv, char **envv);

/* Shows `PROGRAM: TEXT`, cut to the available room. */
void setproctitle(const char *format, ...) MAVIS_PRINTF(1, 2);

MAVIS_END_DECLS

#endif

/* A file with the process id, locked while the process runs. */
#ifndef MISC_PID_WRITE_H
#define MISC_PID_WRITE_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

struct pidfile;

/* Writes the process id to `path` (created with mode 0644, never through a symbolic link) and locks
 * the file. NULL on failure. */
struct pidfile *pid_write(char *path);

/* Removes the file, if the path still names it and this process wrote it; then frees the handle and
 * sets it to NULL. */
void pid_unlink(struct pidfile **p);

MAVIS_END_DECLS

#endif

/* Child processes, each with a function to call when it ends. */
#ifndef MISC_IO_CHILD_H
#define MISC_IO_CHILD_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* fork(2). In the parent, io_child_reap() will call `fun(pid, ctx, status)` when the child has
 * ended, with the status of waitpid(2). `fun` may be NULL. */
pid_t io_child_fork(void (*fun)(pid_t, void *, int), void *ctx);

/* Reaps all children that have ended and calls their functions. Does not wait. */
void io_child_reap(void);

/* Replaces the function and context of a child of io_child_fork(). */
void io_child_set(pid_t pid, void (*fun)(pid_t, void *, int), void *ctx);

/* Forgets the function of a child. */
void io_child_ign(pid_t pid);

MAVIS_END_DECLS

#endif

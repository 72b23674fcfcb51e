/* Child processes with a function to call at their end. */
#ifndef MISC_IO_CHILD_H
#define MISC_IO_CHILD_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* fork(2). The parent notes that `fun(pid, ctx, status)` is to be called when the child has ended,
 * where `status` is that of waitpid(2). `fun` may be NULL. */
pid_t io_child_fork(void (*fun)(pid_t, void *, int), void *ctx);

/* Collects all children that have ended and calls their functions. Does not wait. */
void io_child_reap(void);

/* Gives a noted child another function and context. */
void io_child_set(pid_t pid, void (*fun)(pid_t, void *, int), void *ctx);

/* Forgets the function of a child. */
void io_child_ign(pid_t pid);

MAVIS_END_DECLS

#endif

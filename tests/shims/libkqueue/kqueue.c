/*
 * kqueue(2) by libkqueue instead of kqueue.c:
 * TCPRELAY_EVENT_SHIMS=libkqueue.
 *
 * Its struct kevent and constants are those of ../shims.h, which are
 * FreeBSD's. It lacks splices, so there is no SO_SPLICE. It reports the end
 * of children only, so a worker learns of its broker's end from the
 * channel.
 */
#include "../shims.h"

int kqueue(void);
int kevent(int kq, const struct shim_kevent *changes, int nchanges,
    struct shim_kevent *events, int nevents, const struct timespec *timeout);

bool
shim_kqueue_recheck(int fd)
{
	(void)fd;
	return false;
}

int
shim_kqueue(void)
{
	return kqueue();
}

int
shim_kevent(int kq, const struct shim_kevent *changes, int nchanges,
    struct shim_kevent *events, int nevents, const struct timespec *timeout)
{
	return kevent(kq, changes, nchanges, events, nevents, timeout);
}

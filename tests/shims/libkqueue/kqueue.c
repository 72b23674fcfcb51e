/*
 * kqueue(2) by libkqueue, in the place of kqueue.c: TCPRELAY_EVENT_SHIMS=libkqueue.
 *
 * Its struct kevent and its numbers are those of ../shims.h, FreeBSD's.
 * It knows no splices, so SO_SPLICE is not there; nor does it tell of the end of
 * a process that is not a child, so a worker learns of that from its channel.
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

/*
 * The /dev/poll driver on Linux, for tests only.
 *
 * Follows the Solaris/illumos manual page poll(7D) (poll(4D) in newer
 * editions): DESCRIPTION (write(2) of an array of pollfd, POLLREMOVE, DP_POLL),
 * ERRORS and NOTES (descriptors closed while in the set, children of fork).
 *
 * How it works: the set is an array of pollfd in user space, handed to poll(2)
 * at every DP_POLL; that is why work per call is in proportion to the set.
 *
 * What a caller has to know, here as on the real systems:
 *  - Writing events for a descriptor that is in the set adds them to the ones
 *    it has.  To ask for less, write POLLREMOVE first; both may be in one
 *    write, in that order.
 *  - A descriptor that is closed without POLLREMOVE stays in the set.  It shows
 *    up as POLLNVAL, and when its number is reused, the new file is polled for
 *    the old events.
 *  - dp_nfds has to be less than OPEN_MAX and a write has to be of no more
 *    than OPEN_MAX elements, or else there is EINVAL.  OPEN_MAX is the
 *    process's limit of open files.
 *  - dp_fds is written only if the call returns more than 0.
 *  - In the child of a fork(2) everything fails with EACCES.
 *
 * Where the page is silent: numbers that no descriptor can have are skipped,
 * removing what is not in the set is no error, dp_nfds 0 just waits, and if
 * there are more ready descriptors than dp_nfds, the next call begins with
 * those that were left out.
 *
 * Narrower than the real thing:
 *  - Descriptors are opened, written and asked by these functions only; there
 *    is no DP_ISPOLLED, and poll(2) of the descriptor itself means nothing.
 *  - A write is applied whole or, short of memory, up to where that showed.
 *  - The descriptor is close-on-exec and cannot be duplicated or passed on.
 */
#include "shims.h"

struct devpoll {
	struct shim_queue base;
	struct pollfd *set; /* without gaps, in no particular order */
	int capacity, size;
	int *position;      /* by descriptor number: 1 + index in set, or 0 */
	int positions;
	int first;          /* where the next look at the set begins */
};

static void
clear(struct shim_queue *base)
{
	struct devpoll *d = (struct devpoll *)base;

	free(d->set);
	free(d->position);
	d->set = NULL;
	d->position = NULL;
	d->capacity = d->size = d->positions = d->first = 0;
}

static struct shim_class devpolls = {
	.size = sizeof(struct devpoll), .mark = SHIM_MARK_DEVPOLL,
	.not_ours = EBADF, .not_owner = EACCES, .clear = clear,
};

static bool
insert(struct devpoll *d, int fd, short events)
{
	if (!shim_grow((void **)&d->position, &d->positions, sizeof(int), fd) ||
	    !shim_grow((void **)&d->set, &d->capacity, sizeof(*d->set), d->size))
		return false;
	if (d->position[fd] == 0) {
		d->set[d->size++] = (struct pollfd){ .fd = fd };
		d->position[fd] = d->size;
	}
	d->set[d->position[fd] - 1].events |= events;
	return true;
}

static void
drop(struct devpoll *d, int fd)
{
	int at;

	if (fd >= d->positions || d->position[fd] == 0)
		return;
	/* The last element fills the gap. */
	at = d->position[fd];
	d->set[at - 1] = d->set[--d->size];
	d->position[d->set[at - 1].fd] = at;
	d->position[fd] = 0;
}

static unsigned long
open_max(void)
{
	long limit = sysconf(_SC_OPEN_MAX);

	return limit == -1 ? INT_MAX : (unsigned long)limit;
}

int
shim_devpoll_open(void)
{
	return shim_queue_new(&devpolls);
}

ssize_t
shim_devpoll_write(int dp, const struct pollfd *set, size_t bytes)
{
	struct devpoll *d = shim_queue_get(&devpolls, dp);
	size_t i, n = bytes / sizeof(*set);
	unsigned long limit = open_max();

	if (d == NULL)
		return -1;
	if (bytes % sizeof(*set) != 0 || n > limit) {
		errno = EINVAL;
		return -1;
	}
	for (i = 0; i < n; i++) {
		if (set[i].fd < 0 || (unsigned long)set[i].fd >= limit)
			continue;
		if (set[i].events & POLLREMOVE) {
			drop(d, set[i].fd);
		} else if (!insert(d, set[i].fd, set[i].events)) {
			errno = ENOMEM;
			return -1;
		}
	}
	return (ssize_t)bytes;
}

int
shim_devpoll_ioctl(int dp, struct shim_dvpoll *req)
{
	struct devpoll *d = shim_queue_get(&devpolls, dp);
	unsigned long filled = 0;
	int i, ready;

	if (d == NULL)
		return -1;
	if (req->dp_nfds >= open_max()) {
		errno = EINVAL;
		return -1;
	}
	if (req->dp_nfds == 0)
		return poll(NULL, 0, req->dp_timeout);
	if (req->dp_fds == NULL) {
		errno = EFAULT;
		return -1;
	}
	ready = poll(d->set, (nfds_t)d->size, req->dp_timeout);
	if (ready <= 0)
		return ready;
	if (d->first >= d->size) /* the set has shrunk */
		d->first = 0;
	for (i = d->first; ready > 0 && filled < req->dp_nfds; ready--) {
		while (d->set[i].revents == 0)
			i = (i + 1) % d->size;
		req->dp_fds[filled++] = d->set[i];
		i = (i + 1) % d->size;
	}
	d->first = i;
	return (int)filled;
}

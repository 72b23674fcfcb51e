/*
 * The /dev/poll driver on Linux, for tests only.
 *
 * Follows poll(4D) of illumos, poll(7D) of Solaris.  The parts that matter
 * here:
 *  - DESCRIPTION: for entries of the same descriptor the events are "OR'ed", in
 *    one write or in several.  To ask for less, write POLLREMOVE first; both may
 *    be in one write, in that order.
 *  - DESCRIPTION, DP_POLL: like poll(2) it is level-triggered; dp_fds "is not
 *    modified" if the call fails or returns 0; "The events field is the user
 *    specified poll events", that is, of all entries.
 *  - ERRORS: EINVAL if a write has more than OPEN_MAX elements, or dp_nfds "is
 *    greater than or equal to" that.  OPEN_MAX is the process's limit of open
 *    files.
 *  - NOTES: a descriptor that is closed but not removed may show up as POLLNVAL,
 *    and when its number is reused "you will be polling the device associated
 *    with the reused file descriptor", for the old events.
 *  - NOTES: "Any attempt to write or do ioctl by the child process will result in
 *    an EACCES error."
 *
 * Where the page is silent it does what illumos does
 * (uts/common/io/devpoll.c):
 *  - POLLREMOVE must be the only event.  Removing what is not in the set is
 *    no error.
 *  - Numbers that no descriptor can have are skipped.
 *  - A descriptor that is not open when it is written is not polled and
 *    cannot be removed.  Its events are kept, and take effect when the
 *    number is written again while it is open.
 *  - If more descriptors are ready than dp_nfds, the next call begins with
 *    those that were left out.
 *  - dp_nfds 0 just waits.
 *
 * How it works: the set is an array of pollfd in user space, handed to poll(2)
 * at every DP_POLL; that is why work per call is in proportion to the set.
 *
 * Narrower than the real thing:
 *  - Only these functions open, write and query the descriptor; there is no
 *    DP_ISPOLLED, and poll(2) of the descriptor itself means nothing.
 *  - A write is applied as a whole or, if memory runs out, up to that
 *    point.
 *  - The descriptor is close-on-exec and cannot be duplicated or passed on.
 */
#include "shims.h"

struct devpoll {
	struct shim_queue base;
	/*
	 * The set has no gaps and no particular order. A descriptor that was not
	 * open when it was written has the complement of its number, which poll(2)
	 * ignores.
	 */
	struct pollfd *set;
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
	struct pollfd *entry;

	if (!shim_grow((void **)&d->position, &d->positions, sizeof(int), fd) ||
	    !shim_grow((void **)&d->set, &d->capacity, sizeof(*d->set), d->size))
		return false;
	if (d->position[fd] == 0) {
		d->set[d->size++] = (struct pollfd){ .fd = ~fd };
		d->position[fd] = d->size;
	}
	entry = &d->set[d->position[fd] - 1];
	entry->events |= events;
	if (fcntl(fd, F_GETFD) != -1)
		entry->fd = fd;
	return true;
}

static void
drop(struct devpoll *d, int fd)
{
	int at, last;

	if (fd >= d->positions || d->position[fd] == 0)
		return;
	at = d->position[fd];
	if (d->set[at - 1].fd < 0)
		return;
	/* The last element fills the gap. */
	last = d->set[--d->size].fd;
	d->set[at - 1] = d->set[d->size];
	d->position[last < 0 ? ~last : last] = at;
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
		if (set[i].events == POLLREMOVE) {
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

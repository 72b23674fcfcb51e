/*
 * SO_SPLICE on Linux, for tests only.
 *
 * Follows getsockopt(2) of FreeBSD 15; OpenBSD's page and sosplice(9) use
 * the same words except where noted.  The parts that matter here:
 *  - "Data received on s will automatically be transmitted via the socket
 *    specified in sp_fd without any intervention by userspace", beginning with
 *    "the mbufs already in the source receive buffer" (sosplice(9)).
 *  - "Splicing is a one-way operation; a given pair of sockets may be spliced
 *    in one or both directions."  "Currently only connected tcp(4) sockets may
 *    be spliced together."
 *  - "If sp_max is greater than zero, the socket pair will automatically be
 *    unspliced once that number of bytes have been transmitted."
 *  - "If sp_fd is -1, the socket will be unspliced immediately."
 *  - getsockopt() has "the number of bytes transmitted by the most recent
 *    splice", while it goes on and "until the socket is closed or spliced
 *    again".
 *  - sosplice(9): "splicing gets dissolved if the source socket cannot receive
 *    anymore and its receive buffer is empty; or if the drain socket cannot
 *    send anymore; or if the maximum has been reached; or if an error
 *    occurred."  The drain is not shut down by that.
 *  - sosplice(9): while it is active "the wakeup will not be delivered to the
 *    file descriptor.  A read event is signaled to userland after dissolving."
 *  - sosplice(9), ERRORS: EBADF, EBUSY, EINVAL, ENOTCONN, ENOTSOCK,
 *    EPROTONOSUPPORT.
 * Where the pages are silent or differ it does what FreeBSD does: ENOTCONN
 * when unsplicing a socket that is not spliced, and EINVAL for any size but
 * that of the struct.  The exception is a reset of the source, which
 * dissolves the splice at once as on OpenBSD, and leaves what was received
 * to be read.
 *
 * How it works: kqueue.c watches both sockets for this file.  When the
 * source becomes a candidate for reading, or the drain one for writing,
 * bytes of the source are moved, as many as there are and as fit.  They are
 * peeked at, and taken only once they were sent, so none is ever in flight.
 *
 * Narrower than the real thing:
 *  - Bytes move while the process waits in its kqueue, not at other times, and
 *    only if it has one: ENOSYS until the thread has used one.  poll(2),
 *    select(2) and read(2) do not know of splices.
 *  - sp_idle must be zero, as the two systems understand it differently.
 *  - When a drain breaks, the source gets no error, neither EPIPE, as on
 *    OpenBSD, nor another.
 */
#include "shims.h"

#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { NONE = 0 }; /* descriptors are kept as their number + 1 */

struct end { /* one per descriptor number */
	ino_t ino;
	int drain;  /* what this one is spliced to */
	int source; /* what is spliced to this one */
	int64_t moved, max;
};

static _Thread_local struct end *ends;
static _Thread_local int nends;
static _Thread_local pid_t owner;

/* The state of a socket; empty if its number was closed and reused. */
static struct end *
end_of(int fd)
{
	struct stat st;

	if (fd < 0 || fd >= nends || owner != getpid() || fstat(fd, &st) == -1)
		return NULL;
	if (ends[fd].ino != st.st_ino)
		ends[fd] = (struct end){ .ino = st.st_ino };
	return &ends[fd];
}

static struct end *
make_end(int fd)
{
	if (owner != getpid()) { /* after fork(2) the splices are the parent's */
		nends = 0;
		ends = NULL;
		owner = getpid();
	}
	return shim_grow((void **)&ends, &nends, sizeof(struct end), fd) ?
	    end_of(fd) : NULL;
}

/* The source spliced to a drain, or -1. (Below: the drain of a source.) */
int
shim_splice_source(int drain)
{
	struct end *e = end_of(drain), *s = e == NULL ? NULL : end_of(e->source - 1);

	return s != NULL && s->drain == drain + 1 ? e->source - 1 : -1;
}

static int
drain_of(int source)
{
	struct end *e = end_of(source), *d = e == NULL ? NULL : end_of(e->drain - 1);

	return d != NULL && d->source == source + 1 ? e->drain - 1 : -1;
}

uint32_t
shim_splice_events(int fd)
{
	return (drain_of(fd) != -1 ? EPOLLIN | EPOLLRDHUP : 0) |
	    (shim_splice_source(fd) != -1 ? EPOLLOUT : 0);
}

static void
unsplice(int source, int drain)
{
	ends[source].drain = ends[drain].source = NONE;
	shim_kqueue_recheck(source);
	shim_kqueue_recheck(drain);
}

/* One step; false if it cannot go on now. Then `over` tells whether the
 * splice has ended. */
static bool
step(int source, int drain, bool *over)
{
	static _Thread_local char buffer[65536];
	struct end *e = &ends[source];
	struct pollfd p[] = {
		{ .fd = source, .events = POLLRDHUP },
		{ .fd = drain, .events = 0 },
	};
	ssize_t n;
	int held = 0;

	poll(p, 2, 0);
	ioctl(source, FIONREAD, &held);
	*over = (p[1].revents & (POLLERR | POLLHUP)) != 0 ||
	    (p[0].revents & POLLERR) != 0 || (held == 0 && p[0].revents != 0);
	if (*over || held == 0)
		return false;
	if ((size_t)held > sizeof(buffer))
		held = sizeof(buffer);
	if (e->max > 0 && held > e->max - e->moved)
		held = (int)(e->max - e->moved);
	n = recv(source, buffer, (size_t)held, MSG_PEEK | MSG_DONTWAIT);
	if (n > 0)
		n = send(drain, buffer, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n <= 0) {
		*over = errno != EAGAIN;
		return false;
	}
	recv(source, buffer, (size_t)n, MSG_DONTWAIT);
	e->moved += n;
	*over = e->max > 0 && e->moved >= e->max;
	return !*over;
}

bool
shim_splice_move(int source, bool *more)
{
	int drain = drain_of(source);
	bool over;

	*more = false;
	if (drain == -1)
		return false;
	*more = step(source, drain, &over);
	if (over)
		unsplice(source, drain);
	return !over;
}

/* An errno, or 0 for a connected TCP socket. */
static int
unfit(int fd)
{
	struct sockaddr_storage addr;
	socklen_t size = sizeof(addr), length = sizeof(int);
	int protocol;

	if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == -1)
		return errno;
	if (protocol != IPPROTO_TCP)
		return EPROTONOSUPPORT;
	return getpeername(fd, (struct sockaddr *)&addr, &size) == -1 ? errno : 0;
}

static int
splice_to(int source, const struct shim_splice *s)
{
	struct end *from, *to;
	int error;

	if (s->sp_max < 0 || s->sp_idle.tv_sec != 0 || s->sp_idle.tv_usec != 0)
		return EINVAL;
	if ((error = unfit(source)) != 0 || (error = unfit(s->sp_fd)) != 0)
		return error;
	if (make_end(s->sp_fd) == NULL || make_end(source) == NULL)
		return ENOMEM;
	if (drain_of(source) != -1 || shim_splice_source(s->sp_fd) != -1)
		return EBUSY;
	from = &ends[source];
	to = &ends[s->sp_fd];
	from->drain = s->sp_fd + 1;
	from->moved = 0;
	from->max = s->sp_max;
	to->source = source + 1;
	if (shim_kqueue_recheck(source) && shim_kqueue_recheck(s->sp_fd))
		return 0;
	from->drain = to->source = NONE;
	return ENOSYS;
}

int
shim_setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
	const struct shim_splice *s = value;
	int drain, error = 0;

	if (level != SOL_SOCKET || name != SO_SPLICE)
		error = ENOPROTOOPT;
	else if (length != sizeof(*s))
		error = EINVAL;
	else if (s->sp_fd >= 0)
		error = splice_to(fd, s);
	else if ((drain = drain_of(fd)) != -1)
		unsplice(fd, drain);
	else
		error = ENOTCONN;
	errno = error;
	return error == 0 ? 0 : -1;
}

int
shim_getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
	struct end *e = end_of(fd);
	int64_t moved = e == NULL ? 0 : e->moved;

	if (level != SOL_SOCKET || name != SO_SPLICE) {
		errno = ENOPROTOOPT;
		return -1;
	}
	if (*length > sizeof(moved))
		*length = sizeof(moved);
	memcpy(value, &moved, *length);
	return 0;
}

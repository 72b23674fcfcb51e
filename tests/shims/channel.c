/*
 * UNIX-domain datagram sockets and accept(2) as on the BSDs, emulated on
 * Linux, for tests only.
 *
 * The parts that matter here, as seen on NetBSD and on FreeBSD up to 13:
 *  - A socket without room returns ENOBUFS, and is reported writable all
 *    the same, by kevent(2) and poll(2).  There is room for few messages: 8
 *    of them here, whatever their size, as room is kept for each one's
 *    control data.
 *  - More than 2048 bytes are EMSGSIZE, unless SO_SNDBUF was raised; here
 *    always.
 *  - When the other end closes there is no event.  Linux reports none
 *    either.
 *  - accept(2) passes O_NONBLOCK of the listener on, and accept4(2) does so
 *    on some systems; FreeBSD's does not.
 * On OpenBSD, passing descriptors needs a promise, see sandbox.c.
 *
 * Only connected sockets behave like this: nothing uses send(2) or
 * sendmsg(2) with an address on channels.
 * address are not used on channels.
 */
#include "shims.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { MOST_BYTES = 2048, MOST_WAITING = 8 };

/* What Linux counts for a short message; determined once. */
static int
overhead(void)
{
	static _Atomic int known;
	int p[2], bytes = known;

	if (bytes == 0 &&
	    socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, p) == 0) {
		if (send(p[0], "", 1, MSG_DONTWAIT) == 1 &&
		    ioctl(p[0], SIOCOUTQ, &bytes) == 0)
			known = bytes;
		close(p[0]);
		close(p[1]);
	}
	return bytes > 0 ? bytes : 768;
}

/* An errno, or 0 if the message may be sent. */
static int
obstacle(int fd, size_t bytes)
{
	int waiting = 0;

	if (bytes > MOST_BYTES)
		return EMSGSIZE;
	if (ioctl(fd, SIOCOUTQ, &waiting) == 0 &&
	    waiting >= MOST_WAITING * overhead())
		return ENOBUFS;
	return 0;
}

ssize_t
shim_send(int fd, const void *data, size_t bytes, int flags)
{
	int error = obstacle(fd, bytes);

	if (error != 0) {
		errno = error;
		return -1;
	}
	return send(fd, data, bytes, flags);
}

ssize_t
shim_sendmsg(int fd, const struct msghdr *message, int flags)
{
	size_t bytes = 0;
	int error;

	for (size_t i = 0; i < message->msg_iovlen; i++)
		bytes += message->msg_iov[i].iov_len;
	if (message->msg_controllen > 0)
		shim_pledge_rights(true);
	error = obstacle(fd, bytes);
	if (error != 0) {
		errno = error;
		return -1;
	}
	return sendmsg(fd, message, flags);
}

ssize_t
shim_recvmsg(int fd, struct msghdr *message, int flags)
{
	if (message->msg_controllen > 0)
		shim_pledge_rights(false);
	return recvmsg(fd, message, flags);
}

int
shim_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	int mode = fcntl(fd, F_GETFL);

	if (mode != -1 && (mode & O_NONBLOCK))
		flags |= SOCK_NONBLOCK;
	return accept4(fd, address, length, flags);
}

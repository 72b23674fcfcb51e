/*
 * Makes system calls fail as a test demands. Loaded with LD_PRELOAD. The test and all processes of
 * the relay share a page, the file named by TCPRELAY_TEST_FAULTS. It has for each call the errno to
 * fail with (0: none), and how often it has failed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EPOLL_ADD, SPLICE_IN, SPLICE_OUT, SOCKET, BIND, CONNECT, PIPE, CHANNEL, CALLS };

static struct {
	volatile int error, count;
} *faults;

__attribute__((constructor)) static void
begin(void)
{
	const char *path = getenv("TCPRELAY_TEST_FAULTS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *page;

	if (fd == -1)
		return;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (page != MAP_FAILED)
		faults = page;
}

static int
fails(int call)
{
	if (faults == NULL || faults[call].error == 0)
		return 0;
	__atomic_add_fetch(&faults[call].count, 1, __ATOMIC_RELAXED);
	errno = faults[call].error;
	return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int
epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
	if (operation == EPOLL_CTL_ADD && fails(EPOLL_ADD))
		return -1;
	return NEXT(epoll_ctl)(epoll, operation, fd, event);
}

ssize_t
splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t length, unsigned flags)
{
	int type;
	socklen_t size = sizeof(type);
	int from_socket = getsockopt(in, SOL_SOCKET, SO_TYPE, &type, &size) == 0;

	if (fails(from_socket ? SPLICE_IN : SPLICE_OUT))
		return -1;
	return NEXT(splice)(in, in_offset, out, out_offset, length, flags);
}

int
socket(int domain, int type, int protocol)
{
	if (domain != AF_UNIX && fails(SOCKET))
		return -1;
	return NEXT(socket)(domain, type, protocol);
}

int
bind(int fd, const struct sockaddr *address, socklen_t length)
{
	if (fails(BIND))
		return -1;
	return NEXT(bind)(fd, address, length);
}

int
connect(int fd, const struct sockaddr *address, socklen_t length)
{
	if (address->sa_family != AF_UNIX && fails(CONNECT))
		return -1;
	return NEXT(connect)(fd, address, length);
}

int
pipe2(int ends[2], int flags)
{
	if (fails(PIPE))
		return -1;
	return NEXT(pipe2)(ends, flags);
}

/* Channels as on the BSDs: full although reported writable (ENOBUFS), and without room for a
 * datagram of more than 2048 bytes (EMSGSIZE). */
ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
	int domain = 0, type = 0;
	socklen_t size = sizeof(domain);
	size_t length = 0;

	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
	size = sizeof(type);
	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
	for (size_t i = 0; i < message->msg_iovlen; i++)
		length += message->msg_iov[i].iov_len;
	if (domain == AF_UNIX && type == SOCK_DGRAM && faults != NULL &&
	    (faults[CHANNEL].error != EMSGSIZE || length > 2048) && fails(CHANNEL))
		return -1;
	return NEXT(sendmsg)(fd, message, flags);
}

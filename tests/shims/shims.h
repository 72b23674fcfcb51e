/*
 * Declarations of the test-only emulations of kqueue(2), event ports,
 * /dev/poll and SO_SPLICE on Linux, and the small parts they share.
 *
 * Every function returns -1 and sets errno on failure.  One queue must be
 * used by one thread at a time; different queues need no care.
 */
#ifndef SHIMS_H
#define SHIMS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* F_SETSIG, POLLRDHUP, reallocarray; include this first */
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* ---- kqueue.c ---------------------------------------------------------- */

#define EVFILT_READ  (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_PROC  (-5)

#define EV_ADD      0x0001
#define EV_DELETE   0x0002
#define EV_ENABLE   0x0004
#define EV_DISABLE  0x0008
#define EV_ONESHOT  0x0010
#define EV_CLEAR    0x0020
#define EV_RECEIPT  0x0040
#define EV_DISPATCH 0x0080
#define EV_ERROR    0x4000
#define EV_EOF      0x8000

#define NOTE_EXIT 0x80000000

struct shim_kevent {
	uintptr_t ident;
	int16_t filter;
	uint16_t flags;
	uint32_t fflags;
	int64_t data;
	void *udata;
};

int shim_kqueue(void);
int shim_kevent(int kq, const struct shim_kevent *changes, int nchanges,
    struct shim_kevent *events, int nevents, const struct timespec *timeout);

/* For splice.c: checks a descriptor again; false if this thread has no
 * queue. */
bool shim_kqueue_recheck(int fd);

/* ---- splice.c ---------------------------------------------------------- */

#define SO_SPLICE 0x1023

struct shim_splice {
	int sp_fd;
	int64_t sp_max;
	struct timeval sp_idle;
};

int shim_setsockopt(int fd, int level, int name, const void *value,
    socklen_t length);
int shim_getsockopt(int fd, int level, int name, void *value,
    socklen_t *length);

/* For kqueue.c: which events to watch a descriptor for; the source spliced
 * to it, or -1; and moving a source's bytes, which returns false if it is
 * not spliced. */
uint32_t shim_splice_events(int fd);
int shim_splice_source(int drain);
bool shim_splice_move(int source, bool *more);

/* ---- port.c ------------------------------------------------------------ */

#define PORT_SOURCE_FD 4

struct shim_port_event {
	int portev_events;
	unsigned short portev_source;
	unsigned short portev_pad;
	uintptr_t portev_object;
	void *portev_user;
};

int shim_port_create(void);
/* Sets process.max-port-events for the calling thread. */
void shim_port_limit(int most);
int shim_port_associate(int port, int source, uintptr_t object, int events,
    void *user);
int shim_port_dissociate(int port, int source, uintptr_t object);
int shim_port_getn(int port, struct shim_port_event list[], unsigned max,
    unsigned *nget, struct timespec *timeout);

/* ---- devpoll.c --------------------------------------------------------- */

#ifdef POLLREMOVE
#undef POLLREMOVE /* Linux has the name with another, unused value */
#endif
#define POLLREMOVE 0x0800

struct shim_dvpoll {
	struct pollfd *dp_fds;
	unsigned long dp_nfds;
	int dp_timeout;
};

int shim_devpoll_open(void);
ssize_t shim_devpoll_write(int dp, const struct pollfd *set, size_t bytes);
int shim_devpoll_ioctl(int dp, struct shim_dvpoll *req);

/* ---- channels and accept(2) of the BSDs --------------------------------- */

ssize_t shim_send(int fd, const void *data, size_t bytes, int flags);
ssize_t shim_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t shim_recvmsg(int fd, struct msghdr *message, int flags);
int shim_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);

/* ---- giving up rights ---------------------------------------------------- */

struct cap_rights {
	uint64_t element[2];
};

struct cap_rights *shim_cap_rights_init(int version, struct cap_rights *rights,
    ...);
struct cap_rights *shim_cap_rights_set(struct cap_rights *rights, ...);
int shim_cap_rights_limit(int fd, const struct cap_rights *rights);
int shim_procctl(int type, int64_t id, int command, void *data);
int shim_unveil(const char *path, const char *permissions);
int shim_pledge(const char *wanted, const char *of_programs);
void shim_pledge_rights(bool sending);
int shim_priv_set(int operation, const char *set_name, ...);

/* ---- shared by the mechanisms: a queue known by its descriptor -------- */

/*
 * The descriptor of a queue is an epoll descriptor, so close(2) destroys it
 * without the emulation hearing of it.  What the emulation remembers about a
 * queue is therefore kept by descriptor number and believed only when
 *  - the descriptor still bears the mark that its maker put on it.  All epoll
 *    descriptors share one inode, so fstat(2) cannot tell them apart; the mark
 *    is the signal number of F_SETSIG, which stays with the open file and does
 *    nothing as long as nobody asks for O_ASYNC;
 *  - the process is the one that made the queue, because after fork(2) parent
 *    and child would share the epoll set but not what is remembered.
 * Queues are only ever added to the list, and a number that comes round again
 * takes over its old entry, so that neither threads with queues of their own
 * nor the child of a fork needs a lock.
 */
struct shim_queue {
	struct shim_queue *next;
	int fd;
	pid_t pid;
};

struct shim_class {
	_Atomic(struct shim_queue *) list;
	size_t size;                       /* of the struct around shim_queue */
	int mark;                          /* the signal number that marks it */
	int not_ours;                      /* errno for any other descriptor */
	int not_owner;                     /* errno in the child of a fork */
	void (*clear)(struct shim_queue *); /* free what a closed queue held */
};

#define SHIM_MARK_KQUEUE  61
#define SHIM_MARK_PORT    62
#define SHIM_MARK_DEVPOLL 63

static inline struct shim_queue *
shim_queue_by_number(struct shim_class *class, int fd)
{
	struct shim_queue *q = atomic_load(&class->list);

	while (q != NULL && q->fd != fd)
		q = q->next;
	return q;
}

static inline int
shim_queue_new(struct shim_class *class)
{
	struct shim_queue *q;
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd == -1)
		return -1;
	if (fcntl(fd, F_SETSIG, class->mark) == -1)
		goto fail;
	q = shim_queue_by_number(class, fd);
	if (q != NULL) {
		class->clear(q);
	} else {
		q = calloc(1, class->size);
		if (q == NULL)
			goto fail;
		q->fd = fd;
		q->next = atomic_load(&class->list);
		while (!atomic_compare_exchange_weak(&class->list, &q->next, q))
			;
	}
	q->pid = getpid();
	return fd;
fail:
	close(fd);
	errno = ENOMEM;
	return -1;
}

static inline void *
shim_queue_get(struct shim_class *class, int fd)
{
	int mark = fcntl(fd, F_GETSIG);
	struct shim_queue *q = shim_queue_by_number(class, fd);

	if (mark == -1)
		errno = EBADF;
	else if (mark != class->mark || q == NULL)
		errno = class->not_ours;
	else if (q->pid != getpid())
		errno = class->not_owner;
	else
		return q;
	return NULL;
}

/* ---- shared by kqueue.c and port.c ------------------------------------- */

/*
 * Does the number still name the file that was put into the epoll set under
 * it?  EPOLL_CTL_ADD answers this and changes nothing: epoll knows its members
 * by file and number, so it says EEXIST exactly if they still belong together.
 * (EPOLL_CTL_MOD would tell as well, but it also fires ready descriptors.)
 */
static inline bool
shim_still_member(int epfd, int fd)
{
	struct epoll_event none = { .events = EPOLLET };

	if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &none) == -1)
		return errno == EEXIST;
	epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
	return false;
}

/*
 * Make room for element `index` in a table; new elements are all zeroes.
 * Grows by doubling, so that adding n descriptors costs O(n) altogether.
 */
static inline bool
shim_grow(void **table, int *count, size_t size, int index)
{
	int n = *count ? *count : 64;
	char *p;

	if (index < *count)
		return true;
	while (n <= index)
		n = n > INT_MAX / 2 ? INT_MAX : n * 2;
	p = reallocarray(*table, (size_t)n, size);
	if (p == NULL)
		return false;
	memset(p + (size_t)*count * size, 0, (size_t)(n - *count) * size);
	*table = p;
	*count = n;
	return true;
}

#define SHIM_FOREVER INT64_MAX

static inline int64_t
shim_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* When a relative timeout ends, in nanoseconds. */
static inline bool
shim_deadline(const struct timespec *timeout, int64_t *deadline)
{
	*deadline = SHIM_FOREVER;
	if (timeout == NULL)
		return true;
	if (timeout->tv_sec < 0 || timeout->tv_nsec < 0 ||
	    timeout->tv_nsec >= 1000000000)
		return false;
	if (timeout->tv_sec < INT32_MAX) /* what is longer never ends */
		*deadline = shim_now() + timeout->tv_nsec +
		    timeout->tv_sec * INT64_C(1000000000);
	return true;
}

/* The rest of a timeout in milliseconds for epoll_wait(2), rounded up so
 * that it never ends early. */
static inline int
shim_left(int64_t deadline)
{
	int64_t left;

	if (deadline == SHIM_FOREVER)
		return -1;
	left = deadline - shim_now();
	if (left <= 0)
		return 0;
	left = (left + 999999) / 1000000;
	return left > INT_MAX ? INT_MAX : (int)left;
}

#endif

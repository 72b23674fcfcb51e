/*
 * Checks every rule that the emulations beside it claim to
 * follow, with real sockets and pipes.  Build and run:
 *
 *   cc -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O1 -g *.c -o selftest && \
 *       ./selftest
 *
 * Nothing sleeps: whatever takes the kernel a moment (a FIN or RST over the
 * loopback) is waited for with the very call under test.
 */
#include "shims.h"

#include <netinet/in.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

static int passed, failed;

#define CHECK(cond) do { \
	if (cond) { \
		passed++; \
	} else { \
		failed++; \
		printf("%s:%d: %s (errno %d)\n", __func__, __LINE__, #cond, errno); \
	} \
} while (0)

#define MUST(cond) do { \
	if (!(cond)) { \
		printf("%s:%d: set-up failed: %s: %s\n", __func__, __LINE__, \
		    #cond, strerror(errno)); \
		exit(2); \
	} \
} while (0)

/* An expression that fails with this errno. */
#define FAILS(expr, code) (errno = 0, (expr) == -1 && errno == (code))

static struct timespec zero = { 0, 0 };
static struct timespec brief = { 0, 30000000 };
static struct timespec ample = { 10, 0 };

static char marks[8]; /* addresses to use as user data */

/* ---- set-up ------------------------------------------------------------- */

static void
make_pipe(int p[2])
{
	MUST(pipe2(p, O_NONBLOCK | O_CLOEXEC) == 0);
}

static void
make_pair(int p[2]) /* local stream sockets */
{
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p) == 0);
}

static void
close2(int p[2])
{
	close(p[0]);
	close(p[1]);
}

static int
make_listener(struct sockaddr_in *addr)
{
	socklen_t len = sizeof(*addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	memset(addr, 0, sizeof(*addr));
	addr->sin_family = AF_INET;
	addr->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	MUST(fd != -1);
	MUST(bind(fd, (struct sockaddr *)addr, len) == 0);
	MUST(listen(fd, 8) == 0);
	MUST(getsockname(fd, (struct sockaddr *)addr, &len) == 0);
	return fd;
}

static int
begin_connect(const struct sockaddr_in *addr)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	MUST(fd != -1);
	MUST(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 ||
	    errno == EINPROGRESS);
	return fd;
}

static void
make_tcp(int p[2])
{
	struct sockaddr_in addr;
	struct pollfd wait;
	int l = make_listener(&addr);

	p[0] = begin_connect(&addr);
	wait = (struct pollfd){ .fd = l, .events = POLLIN };
	MUST(poll(&wait, 1, 10000) == 1);
	MUST((p[1] = accept4(l, NULL, NULL, SOCK_NONBLOCK)) != -1);
	close(l);
}

static void
reset(int fd) /* close with a RST */
{
	struct linger now = { 1, 0 };

	MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
	close(fd);
}

static void
put(int fd, int n)
{
	MUST(write(fd, "0123456789", (size_t)n) == n);
}

static int
take(int fd) /* read everything; how much was there */
{
	char buf[65536];
	ssize_t n;
	int sum = 0;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		sum += (int)n;
	return sum;
}

static void
stuff(int fd) /* write until there is no room */
{
	static const char buf[4096];

	while (write(fd, buf, sizeof(buf)) > 0)
		;
	while (write(fd, buf, 1) > 0)
		;
}

static void
on_alarm(int sig)
{
	(void)sig;
}

/* Signals keep coming, so that one is sure to hit the call while it waits. */
static void
alarms(int on)
{
	struct itimerval t = { { 0, on * 20000 }, { 0, on * 20000 } };
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };

	MUST(sigaction(SIGALRM, &sa, NULL) == 0);
	MUST(setitimer(ITIMER_REAL, &t, NULL) == 0);
}

static bool
waited(int64_t since, int ms) /* at least so long */
{
	return shim_now() - since >= ms * INT64_C(1000000);
}

/* Runs `test` in a child that has inherited the queue; returns its result. */
static bool
in_child(bool (*test)(int), int queue)
{
	int status;
	pid_t pid = fork();

	MUST(pid != -1);
	if (pid == 0)
		_exit(test(queue) ? 0 : 1);
	MUST(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The highest number that a descriptor can have here. */
static int
highest(void)
{
	struct rlimit r, want = { 70000, 70000 };

	MUST(getrlimit(RLIMIT_NOFILE, &r) == 0);
	if (r.rlim_cur < 70000 && setrlimit(RLIMIT_NOFILE, &want) == -1) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	MUST(getrlimit(RLIMIT_NOFILE, &r) == 0);
	return r.rlim_cur < 70000 ? (int)r.rlim_cur - 1 : 69999;
}

/* ---- the tables --------------------------------------------------------- */

static void
tables(void)
{
	int *t = NULL, n = 0, i, sum = 0;

	/* Higher numbers than most machines' limits allow for real descriptors. */
	for (i = 0; i < 70000; i++) {
		MUST(shim_grow((void **)&t, &n, sizeof(*t), i));
		sum += t[i] == 0;
		t[i] = i;
	}
	CHECK(sum == 70000 && n >= 70000 && t[63] == 63 && t[69999] == 69999);
	MUST(shim_grow((void **)&t, &n, sizeof(*t), 1000000));
	CHECK(t[69999] == 69999 && t[1000000] == 0);
	free(t);
}

/* ---- kqueue ------------------------------------------------------------- */

static struct shim_kevent ev[64];

static int
kchange(int kq, int fd, int filter, int flags, void *udata)
{
	struct shim_kevent c = { .ident = (uintptr_t)fd,
		.filter = (int16_t)filter, .flags = (uint16_t)flags,
		.udata = udata };

	return shim_kevent(kq, &c, 1, NULL, 0, NULL);
}

static int
kget(int kq, int max, struct timespec *timeout)
{
	memset(ev, 0x5a, sizeof(ev));
	return shim_kevent(kq, NULL, 0, ev, max, timeout);
}

/* Requires exactly one event, from this filter. */
static bool
kone(int kq, int fd, int filter, struct timespec *timeout)
{
	return kget(kq, 64, timeout) == 1 && ev[0].ident == (uintptr_t)fd &&
	    ev[0].filter == filter;
}

static bool
kqueue_child(int kq)
{
	int p[2], own;
	bool ok = FAILS(kget(kq, 1, &zero), EBADF);

	close(kq);
	own = shim_kqueue(); /* most likely under the same number */
	make_pipe(p);
	put(p[1], 3);
	ok = ok && own == kq && kget(own, 8, &zero) == 0;
	ok = ok && kchange(own, p[0], EVFILT_READ, EV_ADD, NULL) == 0;
	return ok && kone(own, p[0], EVFILT_READ, &zero) && ev[0].data == 3;
}

static void
kqueue_queue(void)
{
	int kq = shim_kqueue(), other = shim_kqueue(), p[2], fd;

	CHECK(kq >= 0 && other >= 0 && kq != other);
	CHECK(fcntl(kq, F_GETFD) & FD_CLOEXEC);
	make_pipe(p);
	put(p[1], 1);

	/* Queues are independent; closing one destroys it. */
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kget(other, 8, &zero) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero));
	CHECK(in_child(kqueue_child, kq));
	CHECK(kone(kq, p[0], EVFILT_READ, &zero));
	close(kq);
	CHECK(FAILS(kget(kq, 8, &zero), EBADF));
	fd = shim_kqueue();
	CHECK(fd == kq && kget(kq, 8, &zero) == 0);
	close(kq);

	/* The number refers to something else by now. */
	MUST((fd = epoll_create1(EPOLL_CLOEXEC)) == kq);
	CHECK(FAILS(kget(kq, 8, &zero), EBADF));
	close(kq);
	MUST((fd = shim_port_create()) == kq);
	CHECK(FAILS(kget(kq, 8, &zero), EBADF));
	close(kq);
	CHECK(FAILS(kget(p[0], 8, &zero), EBADF));
	CHECK(FAILS(kget(-1, 8, &zero), EBADF));
	close(other);
	close2(p);
}

static void
kqueue_read(void)
{
	int kq = shim_kqueue(), p[2], s[2];

	/* Level-triggered; data is what can be read; one event per filter. */
	make_pipe(p);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, &marks[0]) == 0);
	CHECK(kget(kq, 8, &zero) == 0);
	put(p[1], 4);
	put(p[1], 3);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].data == 7);
	CHECK(ev[0].udata == &marks[0] && ev[0].flags == 0 && ev[0].fflags == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].data == 7);
	CHECK(take(p[0]) == 7);
	CHECK(kget(kq, 8, &zero) == 0);
	put(p[1], 2);
	CHECK(kone(kq, p[0], EVFILT_READ, NULL) && ev[0].data == 2);

	/* If the data was read before the event is retrieved, there is no event. */
	take(p[0]);
	put(p[1], 1);
	take(p[0]);
	CHECK(kget(kq, 8, &zero) == 0);

	/* The last writer is gone: EOF, with data left and without. */
	put(p[1], 5);
	close(p[1]);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].data == 5);
	CHECK(ev[0].flags == EV_EOF);
	take(p[0]);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].data == 0);
	CHECK(ev[0].flags == EV_EOF);
	close(p[0]);
	CHECK(kget(kq, 8, &zero) == 0);

	/* The peer half-closes, local and TCP; it still reads. */
	for (int tcp = 0; tcp < 2; tcp++) {
		if (tcp)
			make_tcp(s);
		else
			make_pair(s);
		CHECK(kchange(kq, s[0], EVFILT_READ, EV_ADD, NULL) == 0);
		put(s[1], 6);
		CHECK(kone(kq, s[0], EVFILT_READ, &ample) && ev[0].data == 6);
		CHECK(!(ev[0].flags & EV_EOF));
		MUST(take(s[0]) == 6);
		shutdown(s[1], SHUT_WR);
		CHECK(kone(kq, s[0], EVFILT_READ, &ample) && ev[0].data == 0);
		CHECK(ev[0].flags & EV_EOF);
		CHECK(kchange(kq, s[0], EVFILT_READ, EV_DELETE, NULL) == 0);
		CHECK(kchange(kq, s[0], EVFILT_WRITE, EV_ADD, NULL) == 0);
		CHECK(kone(kq, s[0], EVFILT_WRITE, &ample));
		CHECK(!(ev[0].flags & EV_EOF) && ev[0].data > 0);
		close2(s);
	}
	close(kq);
}

static void
kqueue_reset(void)
{
	int kq = shim_kqueue(), s[2], error = 0, n;
	socklen_t len = sizeof(error);

	make_tcp(s);
	CHECK(kchange(kq, s[0], EVFILT_READ, EV_ADD, NULL) == 0);
	reset(s[1]);
	CHECK(kone(kq, s[0], EVFILT_READ, &ample));
	CHECK((ev[0].flags & EV_EOF) && ev[0].fflags == 0);
	CHECK(kchange(kq, s[0], EVFILT_WRITE, EV_ADD, NULL) == 0);
	n = kget(kq, 8, &zero);
	CHECK(n == 2 && (ev[0].flags & ev[1].flags & EV_EOF));
	CHECK(ev[0].filter + ev[1].filter == EVFILT_READ + EVFILT_WRITE);
	/* SO_ERROR must be left for the caller. */
	getsockopt(s[0], SOL_SOCKET, SO_ERROR, &error, &len);
	CHECK(error == ECONNRESET);
	close(s[0]);
	close(kq);
}

static void
kqueue_write(void)
{
	int kq = shim_kqueue(), p[2], s[2];

	make_pair(s);
	CHECK(kchange(kq, s[0], EVFILT_WRITE, EV_ADD, &marks[1]) == 0);
	CHECK(kone(kq, s[0], EVFILT_WRITE, NULL) && ev[0].data > 0);
	CHECK(ev[0].udata == &marks[1] && ev[0].flags == 0);
	CHECK(kone(kq, s[0], EVFILT_WRITE, &zero));
	stuff(s[0]);
	CHECK(kget(kq, 8, &zero) == 0);
	take(s[1]);
	CHECK(kone(kq, s[0], EVFILT_WRITE, &zero));

	/* Two filters of one descriptor give two events. */
	CHECK(kchange(kq, s[0], EVFILT_READ, EV_ADD, &marks[2]) == 0);
	CHECK(kone(kq, s[0], EVFILT_WRITE, &zero));
	put(s[1], 1);
	CHECK(kget(kq, 8, &zero) == 2 && ev[0].udata != ev[1].udata);
	CHECK(kget(kq, 1, &zero) == 1 && kget(kq, 8, &zero) == 2);
	CHECK(kchange(kq, s[0], EVFILT_READ, EV_DELETE, NULL) == 0);
	close(s[1]);
	CHECK(kone(kq, s[0], EVFILT_WRITE, &zero) && (ev[0].flags & EV_EOF));
	close(s[0]);

	/* The reader of a pipe goes away. */
	make_pipe(p);
	CHECK(kchange(kq, p[1], EVFILT_WRITE, EV_ADD, NULL) == 0);
	CHECK(kone(kq, p[1], EVFILT_WRITE, &zero) && ev[0].flags == 0);
	stuff(p[1]);
	CHECK(kget(kq, 8, &zero) == 0);
	close(p[0]);
	CHECK(kone(kq, p[1], EVFILT_WRITE, &zero) && (ev[0].flags & EV_EOF));
	close(p[1]);
	close(kq);
}

static void
kqueue_connect(void)
{
	struct sockaddr_in addr;
	int kq = shim_kqueue(), l = make_listener(&addr), c, error = 0;
	socklen_t len = sizeof(error);

	/* A listener is ready when a connection can be accepted. */
	CHECK(kchange(kq, l, EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 0);
	c = begin_connect(&addr);
	CHECK(kone(kq, l, EVFILT_READ, &ample) && ev[0].data > 0);
	CHECK(!(ev[0].flags & EV_EOF));
	CHECK(kchange(kq, c, EVFILT_WRITE, EV_ADD, NULL) == 0);
	CHECK(kchange(kq, l, EVFILT_READ, EV_DELETE, NULL) == 0);
	CHECK(kone(kq, c, EVFILT_WRITE, &ample) && !(ev[0].flags & EV_EOF));
	close(c);
	close(l);

	/* A socket that was never connected is not ready; one that was refused has
	 * EOF. */
	MUST((c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) != -1);
	CHECK(kchange(kq, c, EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kchange(kq, c, EVFILT_WRITE, EV_ADD, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 0);
	MUST(connect(c, (struct sockaddr *)&addr, sizeof(addr)) == -1);
	CHECK(kget(kq, 8, &ample) == 2 && (ev[0].flags & ev[1].flags & EV_EOF));
	getsockopt(c, SOL_SOCKET, SO_ERROR, &error, &len);
	CHECK(error == ECONNREFUSED);
	close(c);
	close(kq);
}

static void
kqueue_clear(void)
{
	int kq = shim_kqueue(), p[2], q[2], other;

	make_pipe(p);
	make_pipe(q);
	put(p[1], 1);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].flags == EV_CLEAR);
	CHECK(kget(kq, 8, &zero) == 0);
	put(p[1], 1);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].data == 2);
	CHECK(kget(kq, 8, &zero) == 0);
	/* Registering again checks again, and does not change the mode. */
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].flags == EV_CLEAR);
	CHECK(kget(kq, 8, &zero) == 0);

	/* Events that find no room in the eventlist are not lost. */
	CHECK(kchange(kq, q[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL) == 0);
	put(p[1], 1);
	put(q[1], 1);
	CHECK(kget(kq, 1, &zero) == 1);
	other = ev[0].ident == (uintptr_t)p[0] ? q[0] : p[0];
	CHECK(kone(kq, other, EVFILT_READ, &zero));
	CHECK(kget(kq, 8, &zero) == 0);

	/* EOF is a transition like any other. */
	close(p[1]);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero));
	CHECK(ev[0].flags == (EV_CLEAR | EV_EOF));
	CHECK(kget(kq, 8, &zero) == 0);
	close(p[0]);
	close2(q);

	/* Checking one filter again does not trigger the other. */
	make_pair(p);
	put(p[1], 1);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL) == 0);
	CHECK(kchange(kq, p[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 2 && kget(kq, 8, &zero) == 0);
	CHECK(kchange(kq, p[0], EVFILT_WRITE, EV_ENABLE, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_WRITE, &zero));
	CHECK(kget(kq, 8, &zero) == 0);
	close2(p);

	/* One filter of a descriptor may be EV_CLEAR and the other not. */
	make_pair(p);
	CHECK(kchange(kq, p[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL) == 0);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_WRITE, &zero));
	put(p[1], 1);
	CHECK(kget(kq, 8, &zero) >= 1);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero));
	CHECK(kone(kq, p[0], EVFILT_READ, &zero));
	take(p[0]);
	CHECK(kget(kq, 8, &zero) == 0);
	stuff(p[0]);
	take(p[1]);
	CHECK(kone(kq, p[0], EVFILT_WRITE, &zero));
	CHECK(kget(kq, 8, &zero) == 0);
	close2(p);
	close(kq);
}

static void
kqueue_modes(void)
{
	int kq = shim_kqueue(), p[2];

	make_pipe(p);
	put(p[1], 1);

	/* EV_ONESHOT: gone after the first event. */
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD | EV_ONESHOT, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].flags == EV_ONESHOT);
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(FAILS(kchange(kq, p[0], EVFILT_READ, EV_DELETE, NULL), ENOENT));

	/* EV_DISPATCH: disabled after every event. */
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD | EV_DISPATCH, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].flags == EV_DISPATCH);
	CHECK(kget(kq, 8, &zero) == 0);
	put(p[1], 1);
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ENABLE, &marks[3]) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].data == 2);
	CHECK(ev[0].udata == &marks[3]);
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_DELETE, NULL) == 0);

	/* EV_DISABLE and EV_ENABLE; EV_ADD enables unless told otherwise. */
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD | EV_DISABLE, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ENABLE, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero));
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_DISABLE, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero));
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD | EV_DISABLE, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 0);

	/* A disabled filter stays silent even at EOF. */
	close(p[1]);
	CHECK(kget(kq, 8, &brief) == 0);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ENABLE, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && (ev[0].flags & EV_EOF));

	/* Adding again replaces udata and adds no second filter. */
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, &marks[4]) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].udata == &marks[4]);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_DELETE, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 0);
	close(p[0]);
	close(kq);
}

static void
kqueue_errors(void)
{
	int kq = shim_kqueue(), p[2], shut[2];
	struct shim_kevent c[4];

	make_pipe(p);
	make_pipe(shut);
	close2(shut);
	put(p[1], 1);

	/* No room for the error, so the call fails. */
	CHECK(FAILS(kchange(kq, p[0], EVFILT_READ, EV_DELETE, NULL), ENOENT));
	CHECK(FAILS(kchange(kq, p[0], EVFILT_READ, EV_ENABLE, NULL), ENOENT));
	CHECK(FAILS(kchange(kq, p[0], EVFILT_READ, EV_DISABLE, NULL), ENOENT));
	CHECK(FAILS(kchange(kq, shut[0], EVFILT_READ, EV_ADD, NULL), EBADF));
	CHECK(FAILS(kchange(kq, shut[0], EVFILT_READ, EV_DELETE, NULL), EBADF));
	CHECK(FAILS(kchange(kq, -1, EVFILT_READ, EV_ADD, NULL), EBADF));
	CHECK(FAILS(kchange(kq, p[0], -7, EV_ADD, NULL), EINVAL));
	CHECK(FAILS(kchange(kq, p[0], EVFILT_READ,
	    EV_ADD | EV_ENABLE | EV_DISABLE, NULL), EINVAL));
	CHECK(FAILS(kchange(kq, kq, EVFILT_READ, EV_ADD, NULL), EINVAL));
	CHECK(kget(kq, 8, &zero) == 0);

	/* Room for the error: only errors are returned, and the valid changes
	 * around them are made. */
	c[0] = (struct shim_kevent){ .ident = (uintptr_t)p[0], .udata = &marks[0],
		.filter = EVFILT_WRITE, .flags = EV_DELETE };
	c[1] = (struct shim_kevent){ .ident = (uintptr_t)p[0],
		.filter = EVFILT_READ, .flags = EV_ADD };
	c[2] = (struct shim_kevent){ .ident = (uintptr_t)shut[0],
		.filter = EVFILT_READ, .flags = EV_ADD };
	CHECK(shim_kevent(kq, c, 3, ev, 8, NULL) == 2);
	CHECK(ev[0].flags == EV_ERROR && ev[0].data == ENOENT);
	CHECK(ev[0].ident == (uintptr_t)p[0] && ev[0].filter == EVFILT_WRITE &&
	    ev[0].udata == &marks[0]);
	CHECK(ev[1].flags == EV_ERROR && ev[1].data == EBADF);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero));
	CHECK(FAILS(shim_kevent(kq, c, 3, ev, 1, NULL), EBADF));

	/* EV_RECEIPT: an EV_ERROR for every change, 0 for success. */
	c[0].filter = EVFILT_READ;
	c[0].flags = EV_DELETE | EV_RECEIPT;
	c[1].flags = EV_ADD | EV_RECEIPT;
	c[2] = c[1];
	c[2].flags = EV_DELETE;
	CHECK(shim_kevent(kq, c, 3, ev, 8, NULL) == 2);
	CHECK(ev[0].flags == EV_ERROR && ev[0].data == 0);
	CHECK(ev[1].flags == EV_ERROR && ev[1].data == 0);
	CHECK(kget(kq, 8, &zero) == 0);
	/* No room for a receipt: the changes after it are not made. */
	c[0] = c[1];
	CHECK(shim_kevent(kq, c, 3, ev, 1, NULL) == 1);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero));

	/* The same array for both lists. */
	c[0].flags = EV_DELETE;
	c[1].flags = EV_DELETE;
	c[2].flags = EV_ADD;
	CHECK(shim_kevent(kq, c, 3, c, 3, NULL) == 1);
	CHECK(c[0].flags == EV_ERROR && c[0].data == ENOENT);
	CHECK(shim_kevent(kq, c + 2, 1, c + 2, 1, NULL) == 1);
	CHECK(c[2].flags == 0 && c[2].data == 1);
	close2(p);
	close(kq);
}

static void
kqueue_time(void)
{
	int kq = shim_kqueue(), p[2];
	struct timespec bad = { 0, 1000000000 }, minus = { -1, 0 };
	struct shim_kevent c;
	int64_t start = shim_now();

	make_pipe(p);
	CHECK(kget(kq, 8, &brief) == 0 && waited(start, 30));
	CHECK(kget(kq, 0, NULL) == 0); /* no room, no wait */
	CHECK(FAILS(kget(kq, 8, &bad), EINVAL));
	CHECK(FAILS(kget(kq, 8, &minus), EINVAL));

	/* Interrupted: the changes were made all the same. */
	c = (struct shim_kevent){ .ident = (uintptr_t)p[0],
		.filter = EVFILT_READ, .flags = EV_ADD };
	alarms(1);
	CHECK(FAILS(shim_kevent(kq, &c, 1, ev, 8, NULL), EINTR));
	put(p[1], 1);
	CHECK(kone(kq, p[0], EVFILT_READ, NULL));
	alarms(0);

	/* An event ends the wait of a call that found nothing ready at first. */
	take(p[0]);
	MUST(fflush(stdout) == 0);
	if (fork() == 0) {
		put(p[1], 1);
		_exit(0);
	}
	CHECK(kone(kq, p[0], EVFILT_READ, &ample));
	MUST(wait(NULL) != -1);
	close2(p);
	close(kq);
}

static void
kqueue_close(void)
{
	int kq = shim_kqueue(), p[2], q[2], s[2], copy, i;

	/* Closed and reused: the new file does not inherit the filters. */
	make_pair(p);
	put(p[1], 1);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kchange(kq, p[0], EVFILT_WRITE, EV_ADD, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 2);
	make_pair(q);
	put(q[1], 1);
	MUST(dup2(q[0], p[0]) == p[0]);
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(FAILS(kchange(kq, p[0], EVFILT_READ, EV_DELETE, NULL), ENOENT));
	CHECK(FAILS(kchange(kq, p[0], EVFILT_WRITE, EV_ENABLE, NULL), ENOENT));
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero)); /* and no EVFILT_WRITE */
	close2(p);
	close2(q);

	/* The same with the old file still open elsewhere. */
	make_pair(p);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, NULL) == 0);
	MUST((copy = dup(p[0])) != -1);
	close(p[0]);
	put(p[1], 1);
	CHECK(kget(kq, 8, &zero) == 0);
	make_pair(q);
	if (q[0] != p[0])
		MUST(dup2(q[0], p[0]) == p[0]);
	put(p[1], 1); /* to the copy */
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL) == 0);
	put(p[1], 1);
	CHECK(kget(kq, 8, &zero) == 0);
	put(q[1], 2);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].data == 2);
	put(p[1], 1);
	CHECK(kget(kq, 8, &zero) == 0);
	/* Back to the first file, which epoll still knows under this number. */
	MUST(dup2(copy, p[0]) == p[0]);
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kone(kq, p[0], EVFILT_READ, &zero) && ev[0].data == 4);
	close(copy);
	close2(p);
	close2(q);

	/* Files that share an inode, closed while disabled and while ready. */
	MUST((i = eventfd(1, 0)) != -1);
	CHECK(kchange(kq, i, EVFILT_READ, EV_ADD | EV_DISABLE, NULL) == 0);
	close(i);
	MUST(eventfd(1, 0) == i);
	CHECK(FAILS(kchange(kq, i, EVFILT_READ, EV_ENABLE, NULL), ENOENT));
	CHECK(kchange(kq, i, EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kone(kq, i, EVFILT_READ, &zero));
	close(i);
	MUST(eventfd(1, 0) == i);
	CHECK(kget(kq, 8, &zero) == 0);
	close(i);

	/* Closed between two events of the same call. */
	make_pair(p);
	make_pair(s);
	put(p[1], 1);
	put(s[1], 1);
	CHECK(kchange(kq, p[0], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kchange(kq, s[0], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kget(kq, 1, &zero) == 1);
	close(ev[0].ident == (uintptr_t)p[0] ? s[0] : p[0]);
	i = (int)ev[0].ident;
	CHECK(kone(kq, i, EVFILT_READ, &zero));
	close(i);
	close(p[1]);
	close(s[1]);
	close(kq);
}

static void
kqueue_files(void)
{
	int kq = shim_kqueue(), fd, p[2];
	char name[] = "/tmp/shim-selftest-XXXXXX";

	MUST((fd = mkstemp(name)) != -1);
	MUST(unlink(name) == 0);
	put(fd, 10);
	lseek(fd, 4, SEEK_SET);
	CHECK(kchange(kq, fd, EVFILT_READ, EV_ADD, &marks[5]) == 0);
	CHECK(kone(kq, fd, EVFILT_READ, NULL) && ev[0].data == 6);
	CHECK(ev[0].udata == &marks[5]);
	CHECK(FAILS(kchange(kq, fd, EVFILT_WRITE, EV_ADD, NULL), EINVAL));
	CHECK(kone(kq, fd, EVFILT_READ, NULL) && ev[0].data == 6);
	lseek(fd, 0, SEEK_END); /* at the end there is nothing to say */
	CHECK(kget(kq, 8, &zero) == 0);
	lseek(fd, 0, SEEK_SET);
	CHECK(kchange(kq, fd, EVFILT_READ, EV_DISABLE, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(kchange(kq, fd, EVFILT_READ, EV_ENABLE, NULL) == 0);
	CHECK(kone(kq, fd, EVFILT_READ, NULL));

	/* The number changes from a file to a pipe and back to another file. */
	make_pipe(p);
	MUST(dup2(p[0], fd) == fd);
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(kchange(kq, fd, EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 0);
	put(p[1], 1);
	CHECK(kone(kq, fd, EVFILT_READ, NULL));
	close(fd);
	MUST(open("/proc/self/exe", O_RDONLY) == fd);
	CHECK(kget(kq, 8, &zero) == 0);
	CHECK(kchange(kq, fd, EVFILT_READ, EV_ADD | EV_ONESHOT, NULL) == 0);
	CHECK(kone(kq, fd, EVFILT_READ, NULL) && ev[0].data > 0);
	CHECK(FAILS(kchange(kq, fd, EVFILT_READ, EV_DELETE, NULL), ENOENT));
	close(fd);
	close2(p);
	close(kq);
}

static void
kqueue_many(void)
{
	enum { MANY = 600 };
	int kq = shim_kqueue(), fds[MANY], p[2], high, i, n, sum = 0;
	static bool seen[70000];

	/* More ready descriptors than room: each gets its turn. */
	for (i = 0; i < MANY; i++) {
		MUST((fds[i] = eventfd(1, EFD_NONBLOCK)) != -1);
		n = kchange(kq, fds[i], EVFILT_READ, EV_ADD, NULL);
		sum += n;
	}
	CHECK(sum == 0);
	for (n = 0; n < MANY; n += 60) {
		MUST(kget(kq, 60, &zero) == 60);
		for (i = 0; i < 60; i++)
			seen[ev[i].ident] = true;
	}
	for (i = 0, n = 0; i < MANY; i++)
		n += seen[fds[i]];
	CHECK(n == MANY);
	for (i = 0; i < MANY; i++)
		close(fds[i]);
	CHECK(kget(kq, 8, &zero) == 0);

	/* The highest possible number. */
	make_pipe(p);
	put(p[1], 1);
	MUST((high = fcntl(p[0], F_DUPFD, highest())) != -1);
	CHECK(kchange(kq, high, EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kone(kq, high, EVFILT_READ, &zero));
	close(high);
	close2(p);
	close(kq);
}

/* ---- SO_SPLICE ---------------------------------------------------------- */

static int
splice_max(int source, int drain, int64_t max)
{
	struct shim_splice s = { .sp_fd = drain, .sp_max = max };

	return shim_setsockopt(source, SOL_SOCKET, SO_SPLICE, &s, sizeof(s));
}

static int64_t
spliced(int source)
{
	int64_t n = -1;
	socklen_t length = sizeof(n);

	CHECK(shim_getsockopt(source, SOL_SOCKET, SO_SPLICE, &n, &length) == 0);
	return length == sizeof(n) ? n : -1;
}

/* Waits in the queue, where no event may come, until this much can be read. */
static bool
arrives(int kq, int fd, int n)
{
	int64_t end = shim_now() + INT64_C(10000000000);
	int sum = 0;

	while (sum < n && shim_now() < end) {
		if (kget(kq, 8, &zero) != 0)
			return false;
		sum += take(fd);
	}
	return sum == n;
}

/* A session: l[1] receives what is sent to l[0], and likewise for r. */
static int
splice_begin(int l[2], int r[2])
{
	int kq = shim_kqueue();

	make_tcp(l);
	make_tcp(r);
	CHECK(kchange(kq, l[1], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kchange(kq, r[0], EVFILT_READ, EV_ADD, NULL) == 0);
	CHECK(kget(kq, 8, &zero) == 0);
	return kq;
}

static void
splice_ways(void)
{
	int l[2], r[2], kq = splice_begin(l, r);

	/* Both directions, beginning with what is buffered; no read events. */
	put(l[0], 3);
	CHECK(kone(kq, l[1], EVFILT_READ, &ample));
	CHECK(splice_max(l[1], r[0], 0) == 0 && splice_max(r[0], l[1], 0) == 0);
	CHECK(arrives(kq, r[1], 3));
	put(r[1], 5);
	CHECK(arrives(kq, l[0], 5));
	put(l[0], 4);
	CHECK(arrives(kq, r[1], 4));
	CHECK(spliced(l[1]) == 7 && spliced(r[0]) == 5);

	/* Unspliced: bytes stay and are reported, and the count is kept. */
	CHECK(splice_max(l[1], -1, 0) == 0);
	CHECK(FAILS(splice_max(l[1], -1, 0), ENOTCONN));
	put(l[0], 2);
	CHECK(kone(kq, l[1], EVFILT_READ, &ample) && ev[0].data == 2);
	CHECK(spliced(l[1]) == 7);

	/* Spliced again, up to a maximum; bytes beyond it are reported. */
	CHECK(splice_max(l[1], r[0], 6) == 0 && spliced(l[1]) == 0);
	put(l[0], 7);
	CHECK(kone(kq, l[1], EVFILT_READ, &ample) && ev[0].data == 3);
	MUST(poll(&(struct pollfd){ .fd = r[1], .events = POLLIN }, 1, 10000) == 1);
	CHECK(spliced(l[1]) == 6 && take(r[1]) == 6 && take(l[1]) == 3);
	CHECK(FAILS(splice_max(l[1], -1, 0), ENOTCONN));
	CHECK(kget(kq, 8, &zero) == 0);
	close2(l);
	close2(r);
	close(kq);
}

static void
splice_ends(void)
{
	int l[2], r[2], kq = splice_begin(l, r), small = 4096, sum = 0;
	struct pollfd p;

	/* The end comes after all data, and is not passed on. */
	MUST(setsockopt(r[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
	CHECK(splice_max(l[1], r[0], 0) == 0);
	stuff(l[0]);
	MUST(shutdown(l[0], SHUT_WR) == 0);
	while (kget(kq, 8, &brief) == 0)
		sum += take(r[1]);
	CHECK(ev[0].ident == (uintptr_t)l[1] && ev[0].filter == EVFILT_READ);
	CHECK((ev[0].flags & EV_EOF) != 0 && ev[0].data == 0);
	p = (struct pollfd){ .fd = r[1], .events = POLLIN };
	while (sum < spliced(l[1]) && poll(&p, 1, 10000) == 1)
		sum += take(r[1]);
	CHECK(sum > small && sum == spliced(l[1]));
	CHECK(FAILS(read(r[1], &small, 1), EAGAIN));
	CHECK(FAILS(splice_max(l[1], -1, 0), ENOTCONN));

	/* A reset of the source is its own error, reported after what it has
	 * received. */
	CHECK(kchange(kq, l[1], EVFILT_READ, EV_DELETE, NULL) == 0);
	CHECK(splice_max(r[0], l[1], 0) == 0);
	put(r[1], 2);
	reset(r[1]);
	p = (struct pollfd){ .fd = r[0], .events = 0 };
	CHECK(poll(&p, 1, 10000) == 1);
	CHECK(kone(kq, r[0], EVFILT_READ, &ample) && ev[0].data == 2);
	CHECK(FAILS(splice_max(r[0], -1, 0), ENOTCONN) && spliced(r[0]) == 0);
	CHECK(take(r[0]) == 2 && errno == ECONNRESET);
	close2(l);
	close(r[0]);
	close(kq);

	/* A broken drain: the source receives for the caller again. */
	kq = splice_begin(l, r);
	CHECK(splice_max(l[1], r[0], 0) == 0);
	reset(r[1]);
	CHECK(kone(kq, r[0], EVFILT_READ, &ample));
	CHECK(kchange(kq, r[0], EVFILT_READ, EV_DELETE, NULL) == 0);
	put(l[0], 2);
	CHECK(kone(kq, l[1], EVFILT_READ, &ample) && ev[0].data == 2);
	CHECK(FAILS(read(r[0], &small, 1), ECONNRESET));
	close2(l);
	close(r[0]);
	close(kq);
}

static void
splice_errors(void)
{
	int l[2], r[2], kq = splice_begin(l, r), u[2], n = 0;
	struct sockaddr_in addr;
	struct shim_splice s = { .sp_fd = r[0], .sp_idle = { 1, 0 } };

	CHECK(FAILS(splice_max(l[1], r[0], -3), EINVAL));
	CHECK(FAILS(shim_setsockopt(l[1], SOL_SOCKET, SO_SPLICE, &n, sizeof(n)),
	    EINVAL));
	CHECK(FAILS(shim_setsockopt(l[1], SOL_SOCKET, SO_SPLICE, &s, sizeof(s)),
	    EINVAL));
	CHECK(FAILS(splice_max(l[1], -1, 0), ENOTCONN));
	make_pair(u);
	CHECK(FAILS(splice_max(l[1], u[0], 0), EPROTONOSUPPORT));
	CHECK(FAILS(splice_max(u[0], l[1], 0), EPROTONOSUPPORT));
	close2(u);
	CHECK(FAILS(splice_max(l[1], u[0], 0), EBADF));
	make_pipe(u);
	CHECK(FAILS(splice_max(l[1], u[0], 0), ENOTSOCK));
	close2(u);
	u[0] = make_listener(&addr);
	CHECK(FAILS(splice_max(l[1], u[0], 0), ENOTCONN));
	close(u[0]);
	CHECK(splice_max(l[1], r[0], 0) == 0);
	CHECK(FAILS(splice_max(l[1], r[1], 0), EBUSY));
	CHECK(FAILS(splice_max(l[0], r[0], 0), EBUSY));

	/* A number that is reused has no splice. */
	make_tcp(u);
	MUST(dup2(u[0], l[1]) == l[1]);
	CHECK(spliced(l[1]) == 0 && FAILS(splice_max(l[1], -1, 0), ENOTCONN));
	CHECK(splice_max(l[0], r[0], 0) == 0);
	close2(l);
	close2(r);
	close2(u);
	close(kq);

	/* Without a queue nothing would move bytes. */
	make_tcp(l);
	make_tcp(r);
	CHECK(FAILS(splice_max(l[1], r[0], 0), ENOSYS));
	close2(l);
	close2(r);
}

/* ---- ports -------------------------------------------------------------- */

static struct shim_port_event pe[64];
static unsigned got;

static int
pget(int port, unsigned want, unsigned max, struct timespec *timeout)
{
	memset(pe, 0x5a, sizeof(pe));
	got = want;
	return shim_port_getn(port, pe, max, &got, timeout);
}

static bool
pone(int port, int fd, int events, struct timespec *timeout)
{
	return pget(port, 1, 64, timeout) == 0 && got == 1 &&
	    pe[0].portev_source == PORT_SOURCE_FD &&
	    pe[0].portev_object == (uintptr_t)fd &&
	    pe[0].portev_events == events;
}

static bool
pnone(int port) /* nothing there */
{
	return FAILS(pget(port, 1, 64, &zero), ETIME) && got == 0;
}

static int
passoc(int port, int fd, int events, void *user)
{
	return shim_port_associate(port, PORT_SOURCE_FD, (uintptr_t)fd, events,
	    user);
}

static int
pdissoc(int port, int fd)
{
	return shim_port_dissociate(port, PORT_SOURCE_FD, (uintptr_t)fd);
}

static bool
port_child(int port)
{
	int p[2], own;
	bool ok = FAILS(pget(port, 1, 1, &zero), EBADF);

	close(port);
	own = shim_port_create();
	make_pipe(p);
	put(p[1], 1);
	return ok && own == port && pnone(own) &&
	    passoc(own, p[0], POLLIN, NULL) == 0 &&
	    pone(own, p[0], POLLIN, &zero);
}

static void
port_association(void)
{
	int port = shim_port_create(), p[2], s[2];

	CHECK(port >= 0 && (fcntl(port, F_GETFD) & FD_CLOEXEC));
	make_pipe(p);
	put(p[1], 1);

	/* Immediate if ready; one event per association. */
	CHECK(passoc(port, p[0], POLLIN, &marks[0]) == 0);
	CHECK(pone(port, p[0], POLLIN, NULL) && pe[0].portev_user == &marks[0]);
	CHECK(pnone(port));
	put(p[1], 1);
	CHECK(pnone(port));
	CHECK(FAILS(pdissoc(port, p[0]), ENOENT));
	CHECK(passoc(port, p[0], POLLIN, &marks[1]) == 0);
	CHECK(pone(port, p[0], POLLIN, NULL) && pe[0].portev_user == &marks[1]);

	/* Later, when it becomes ready. */
	take(p[0]);
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0 && pnone(port));
	put(p[1], 1);
	CHECK(pone(port, p[0], POLLIN, &zero));

	/* Associating again replaces events and user. */
	make_pair(s);
	CHECK(passoc(port, s[0], POLLIN, &marks[2]) == 0 && pnone(port));
	CHECK(passoc(port, s[0], POLLIN | POLLOUT, &marks[3]) == 0);
	CHECK(pone(port, s[0], POLLOUT, &zero) && pe[0].portev_user == &marks[3]);
	put(s[1], 1);
	CHECK(passoc(port, s[0], POLLIN | POLLOUT, NULL) == 0);
	CHECK(passoc(port, s[0], POLLIN, &marks[4]) == 0);
	CHECK(pone(port, s[0], POLLIN, &zero) && pe[0].portev_user == &marks[4]);
	CHECK(passoc(port, s[0], POLLIN | POLLOUT, NULL) == 0);
	CHECK(pone(port, s[0], POLLIN | POLLOUT, &zero));

	/* An event that was sent at once shows the state then, and comes only
	 * once. */
	take(s[0]);
	put(s[1], 1);
	CHECK(passoc(port, s[0], POLLIN, &marks[5]) == 0);
	take(s[0]);
	CHECK(pone(port, s[0], POLLIN, &zero) && pe[0].portev_user == &marks[5]);
	CHECK(pnone(port));
	put(s[1], 1);
	CHECK(pnone(port));
	CHECK(passoc(port, s[0], POLLIN, NULL) == 0);
	take(s[0]); /* but looked at anew when it is associated again */
	CHECK(passoc(port, s[0], POLLIN, NULL) == 0 && pnone(port));
	put(s[1], 1);
	CHECK(pone(port, s[0], POLLIN, &zero) && pnone(port));

	/* Dissociating withdraws an event that was not retrieved. */
	CHECK(passoc(port, s[0], POLLIN, NULL) == 0);
	CHECK(pdissoc(port, s[0]) == 0);
	CHECK(pnone(port));
	CHECK(FAILS(pdissoc(port, s[0]), ENOENT));
	CHECK(FAILS(pdissoc(port, s[1]), ENOENT));
	CHECK(passoc(port, s[0], POLLIN, NULL) == 0);
	CHECK(pone(port, s[0], POLLIN, &zero));

	/* POLLHUP and POLLERR come unasked; POLLRDHUP never comes. */
	take(s[0]);
	CHECK(passoc(port, s[0], POLLRDHUP, NULL) == 0);
	shutdown(s[1], SHUT_WR);
	CHECK(pnone(port));
	close(s[1]);
	CHECK(pone(port, s[0], POLLHUP, &zero));
	close(s[0]);
	CHECK(passoc(port, p[1], 0, NULL) == 0 && pnone(port));
	close(p[0]);
	CHECK(pone(port, p[1], POLLERR, &zero));
	close(p[1]);

	/* At the limit new associations fail, and those that an event used up;
	 * others can be changed. */
	make_pair(s);
	make_pipe(p);
	shim_port_limit(1);
	CHECK(passoc(port, s[0], POLLIN, NULL) == 0);
	CHECK(FAILS(passoc(port, p[0], POLLIN, NULL), EAGAIN));
	CHECK(passoc(port, s[0], POLLOUT, NULL) == 0);
	shim_port_limit(0);
	CHECK(pone(port, s[0], POLLOUT, &zero));
	CHECK(FAILS(passoc(port, s[0], POLLIN, NULL), EAGAIN));
	shim_port_limit(1);
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0);
	CHECK(FAILS(passoc(port, s[0], POLLIN, NULL), EAGAIN));
	CHECK(pdissoc(port, p[0]) == 0);
	CHECK(passoc(port, s[0], POLLIN, NULL) == 0);
	close(s[0]);
	CHECK(FAILS(passoc(port, s[0], POLLIN, NULL), EBADFD));
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0);
	shim_port_limit(INT_MAX);
	close(s[1]);
	close(p[0]);
	close(p[1]);
	close(port);
}

static void
port_getn(void)
{
	int port = shim_port_create(), a[2], b[2], c[2];
	struct timespec bad = { 0, 1000000000 }, minus = { -1, 0 };
	int64_t start;

	make_pipe(a);
	make_pipe(b);
	make_pipe(c);
	put(a[1], 1);
	CHECK(passoc(port, a[0], POLLIN, NULL) == 0);
	CHECK(passoc(port, b[0], POLLIN, NULL) == 0);
	CHECK(passoc(port, c[0], POLLIN, NULL) == 0);

	/* Too few in time: ETIME, but those that came were retrieved. */
	start = shim_now();
	CHECK(FAILS(pget(port, 2, 8, &brief), ETIME) && waited(start, 30));
	CHECK(got == 1 && pe[0].portev_object == (uintptr_t)a[0]);
	CHECK(FAILS(pdissoc(port, a[0]), ENOENT));
	start = shim_now();
	CHECK(FAILS(pget(port, 1, 8, &brief), ETIME) && got == 0);
	CHECK(waited(start, 30));

	/* As many as wanted, and more up to max. */
	CHECK(passoc(port, a[0], POLLIN, NULL) == 0);
	put(b[1], 1);
	put(c[1], 1);
	CHECK(pget(port, 1, 2, NULL) == 0 && got == 2);
	CHECK(pget(port, 1, 2, NULL) == 0 && got == 1);
	CHECK(pnone(port));
	CHECK(passoc(port, a[0], POLLIN, NULL) == 0);
	CHECK(pget(port, 0, 2, NULL) == 0 && got == 0);
	CHECK(pone(port, a[0], POLLIN, NULL));

	/* Waits for the second while the first is ready. */
	CHECK(passoc(port, a[0], POLLIN, NULL) == 0);
	take(b[0]);
	CHECK(passoc(port, b[0], POLLIN, NULL) == 0);
	MUST(fflush(stdout) == 0);
	if (fork() == 0) {
		put(b[1], 1);
		_exit(0);
	}
	CHECK(pget(port, 2, 8, &ample) == 0 && got == 2);
	MUST(wait(NULL) != -1);

	/* Interrupted, with and without some of the events. */
	alarms(1);
	CHECK(FAILS(pget(port, 1, 8, NULL), EINTR) && got == 0);
	CHECK(passoc(port, a[0], POLLIN, NULL) == 0);
	CHECK(FAILS(pget(port, 2, 8, NULL), EINTR) && got == 1);
	alarms(0);

	CHECK(FAILS(pget(port, 3, 2, &zero), EINVAL));
	CHECK(FAILS(pget(port, 0, 0, &zero), EINVAL));
	CHECK(FAILS(pget(port, 1, 1, &bad), EINVAL));
	CHECK(FAILS(pget(port, 1, 1, &minus), EINVAL));
	CHECK(FAILS(shim_port_getn(port, NULL, 1, &got, &zero), EINVAL));
	CHECK(FAILS(shim_port_getn(port, pe, 1, NULL, &zero), EINVAL));
	close2(a);
	close2(b);
	close2(c);
	close(port);
}

static void
port_errors(void)
{
	int port = shim_port_create(), p[2], fd;

	make_pipe(p);
	CHECK(FAILS(shim_port_associate(port, 7, (uintptr_t)p[0], POLLIN, NULL),
	    EINVAL));
	CHECK(FAILS(shim_port_dissociate(port, 7, (uintptr_t)p[0]), EINVAL));
	CHECK(FAILS(passoc(port, -1, POLLIN, NULL), EBADFD));
	CHECK(FAILS(passoc(p[0], p[0], POLLIN, NULL), EBADFD));
	CHECK(FAILS(passoc(-1, p[0], POLLIN, NULL), EBADF));
	CHECK(FAILS(pget(p[0], 1, 1, &zero), EBADFD));
	MUST((fd = open("/proc/self/exe", O_RDONLY)) != -1);
	CHECK(FAILS(passoc(port, fd, POLLIN, NULL), EPERM));
	close(fd);
	CHECK(FAILS(passoc(port, fd, POLLIN, NULL), EBADFD));
	CHECK(FAILS(pdissoc(port, fd), EBADFD));

	put(p[1], 1);
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0);
	CHECK(in_child(port_child, port));
	close(port);
	CHECK(FAILS(pget(port, 1, 1, &zero), EBADF));
	MUST((fd = shim_kqueue()) == port);
	CHECK(FAILS(pget(port, 1, 1, &zero), EBADFD));
	close(fd);
	MUST((fd = shim_port_create()) == port);
	CHECK(pnone(port));
	close(port);
	close2(p);
}

static void
port_close(void)
{
	int port = shim_port_create(), p[2], q[2], r[2], copy, high;

	/* Closing ends the association; the number's next owner has none. */
	make_pair(p);
	put(p[1], 1);
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0);
	make_pair(q);
	put(q[1], 1);
	MUST(dup2(q[0], p[0]) == p[0]);
	CHECK(pnone(port));
	CHECK(FAILS(pdissoc(port, p[0]), ENOENT));
	CHECK(passoc(port, p[0], POLLIN, &marks[6]) == 0);
	CHECK(pone(port, p[0], POLLIN, &zero) && pe[0].portev_user == &marks[6]);
	close2(p);
	close2(q);

	/* The same with the old file still open elsewhere. */
	make_pair(p);
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0);
	MUST((copy = dup(p[0])) != -1);
	close(p[0]);
	put(p[1], 1);
	CHECK(pnone(port));
	make_pair(q);
	if (q[0] != p[0])
		MUST(dup2(q[0], p[0]) == p[0]);
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0);
	put(p[1], 1);
	CHECK(pnone(port));
	put(q[1], 1);
	CHECK(pone(port, p[0], POLLIN, &zero));
	MUST(dup2(copy, p[0]) == p[0]);
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0);
	CHECK(pone(port, p[0], POLLIN, &zero));

	/* The old file becomes ready only after the number has a new owner. */
	take(p[0]);
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0);
	make_pair(r);
	MUST(dup2(r[0], p[0]) == p[0]);
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0);
	put(p[1], 1);
	CHECK(pnone(port));
	put(r[1], 1);
	CHECK(pone(port, p[0], POLLIN, &zero));
	close2(r);

	/* The old file returns to its number, which was seen closed. */
	close(p[0]);
	CHECK(FAILS(passoc(port, p[0], POLLIN, NULL), EBADFD));
	MUST(dup2(copy, p[0]) == p[0]);
	CHECK(FAILS(pdissoc(port, p[0]), ENOENT));
	CHECK(passoc(port, p[0], POLLIN, NULL) == 0);
	CHECK(pone(port, p[0], POLLIN, &zero));
	close(copy);

	MUST((high = fcntl(p[0], F_DUPFD, highest())) != -1);
	CHECK(passoc(port, high, POLLIN, NULL) == 0);
	CHECK(pone(port, high, POLLIN, &zero));
	close(high);
	close2(p);
	close2(q);
	close(port);
}

static void
port_many(void)
{
	enum { MANY = 200 };
	static struct shim_port_event list[MANY + 100];
	int port = shim_port_create(), fds[MANY], i, round;
	unsigned n;

	for (i = 0; i < MANY; i++)
		MUST((fds[i] = eventfd(1, EFD_NONBLOCK)) != -1);
	/* Asked for one, it does not wait, and returns all that are ready. */
	for (round = 100; round <= MANY; round++) {
		for (i = 0; i < round; i++)
			MUST(passoc(port, fds[i], POLLIN, NULL) == 0);
		n = 1;
		MUST(shim_port_getn(port, list, MANY + 100, &n, NULL) == 0);
		MUST(n == (unsigned)round);
	}
	CHECK(pnone(port));
	for (i = 0; i < MANY; i++)
		close(fds[i]);
	close(port);
}

/* ---- /dev/poll ---------------------------------------------------------- */

static struct pollfd pf[64];

static int
dset(int dp, int fd, int events)
{
	struct pollfd p = { .fd = fd, .events = (short)events, .revents = -1 };

	return shim_devpoll_write(dp, &p, sizeof(p)) == sizeof(p) ? 0 : -1;
}

static int
dpoll(int dp, unsigned long n, int timeout)
{
	struct shim_dvpoll req = { pf, n, timeout };

	memset(pf, 0x5a, sizeof(pf));
	return shim_devpoll_ioctl(dp, &req);
}

static bool
done(int dp, int fd, int events, int revents)
{
	return dpoll(dp, 64, 0) == 1 && pf[0].fd == fd &&
	    pf[0].events == events && pf[0].revents == revents;
}

static bool
devpoll_child(int dp)
{
	int p[2], own;
	bool ok = FAILS(dpoll(dp, 1, 0), EACCES) &&
	    FAILS(dset(dp, 0, POLLIN), EACCES);

	close(dp);
	own = shim_devpoll_open();
	make_pipe(p);
	put(p[1], 1);
	return ok && own == dp && dpoll(own, 1, 0) == 0 &&
	    dset(own, p[0], POLLIN) == 0 && done(own, p[0], POLLIN, POLLIN);
}

static void
devpoll_set(void)
{
	int dp = shim_devpoll_open(), s[2], p[2];
	struct pollfd many[3];

	CHECK(dp >= 0 && (fcntl(dp, F_GETFD) & FD_CLOEXEC));
	make_pair(s);
	make_pipe(p);
	CHECK(dpoll(dp, 64, 0) == 0);

	/* Level-triggered; events and revents as the page says. */
	CHECK(dset(dp, s[0], POLLIN) == 0 && dpoll(dp, 64, 0) == 0);
	CHECK(pf[0].fd == 0x5a5a5a5a); /* untouched when it returns 0 */
	put(s[1], 1);
	CHECK(done(dp, s[0], POLLIN, POLLIN) && done(dp, s[0], POLLIN, POLLIN));

	/* Written again: ORed. Only POLLREMOVE takes events away. */
	CHECK(dset(dp, s[0], POLLOUT) == 0);
	CHECK(done(dp, s[0], POLLIN | POLLOUT, POLLIN | POLLOUT));
	CHECK(dset(dp, s[0], POLLIN) == 0);
	CHECK(done(dp, s[0], POLLIN | POLLOUT, POLLIN | POLLOUT));
	many[0] = (struct pollfd){ .fd = s[0], .events = POLLREMOVE };
	many[1] = (struct pollfd){ .fd = s[0], .events = POLLOUT };
	many[2] = (struct pollfd){ .fd = p[0], .events = POLLIN };
	CHECK(shim_devpoll_write(dp, many, sizeof(many)) == sizeof(many));
	CHECK(done(dp, s[0], POLLOUT, POLLOUT));

	/* Several, removed from the middle and from the end. */
	put(p[1], 1);
	CHECK(dpoll(dp, 64, 0) == 2);
	CHECK(dset(dp, s[1], POLLOUT) == 0 && dpoll(dp, 64, 0) == 3);
	CHECK(dset(dp, p[0], POLLREMOVE) == 0 && dpoll(dp, 64, 0) == 2);
	CHECK(pf[0].fd != p[0] && pf[1].fd != p[0]);
	take(s[0]);
	put(s[0], 1);
	CHECK(dset(dp, s[1], POLLIN) == 0 && dpoll(dp, 64, 0) == 2);
	CHECK(pf[0].revents + pf[1].revents == 2 * POLLOUT + POLLIN);
	CHECK(dset(dp, s[1], POLLREMOVE) == 0);
	CHECK(done(dp, s[0], POLLOUT, POLLOUT));
	CHECK(dset(dp, s[0], POLLREMOVE) == 0 && dpoll(dp, 64, 0) == 0);
	CHECK(dset(dp, s[0], POLLREMOVE) == 0); /* not there: no error */
	CHECK(dset(dp, -1, POLLIN) == 0 && dset(dp, INT_MAX, POLLIN) == 0);
	CHECK(dpoll(dp, 64, 0) == 0);

	/* Less room than ready descriptors: each gets its turn. */
	CHECK(dset(dp, s[0], POLLOUT) == 0 && dset(dp, s[1], POLLOUT) == 0);
	CHECK(dpoll(dp, 1, 0) == 1);
	many[0] = pf[0];
	CHECK(dpoll(dp, 1, 0) == 1 && pf[0].fd != many[0].fd);
	CHECK(dpoll(dp, 1, 0) == 1 && pf[0].fd == many[0].fd);
	close2(s);
	close2(p);
	close(dp);
}

static void
devpoll_close(void)
{
	int dp = shim_devpoll_open(), p[2], s[2], high;

	/* Closed without POLLREMOVE: POLLNVAL, until it is removed. */
	make_pipe(p);
	put(p[1], 1);
	CHECK(dset(dp, p[0], POLLIN) == 0 && done(dp, p[0], POLLIN, POLLIN));
	close(p[0]);
	CHECK(done(dp, p[0], POLLIN, POLLNVAL));
	CHECK(done(dp, p[0], POLLIN, POLLNVAL));

	/* Reused: the new file with the old events, to which more are ORed. */
	make_pair(s);
	MUST(s[0] == p[0]);
	CHECK(dpoll(dp, 64, 0) == 0);
	put(s[1], 1);
	CHECK(done(dp, s[0], POLLIN, POLLIN));
	CHECK(dset(dp, s[0], POLLOUT) == 0);
	CHECK(done(dp, s[0], POLLIN | POLLOUT, POLLIN | POLLOUT));
	close(s[0]);
	CHECK(dset(dp, s[0], POLLREMOVE) == 0 && dpoll(dp, 64, 0) == 0);
	CHECK(dset(dp, s[0], POLLOUT) == 0); /* closed before it is added */
	CHECK(dpoll(dp, 64, 0) == 0);
	CHECK(dset(dp, s[0], POLLREMOVE) == 0);
	close(s[1]);
	close(p[1]);
	make_pair(s); /* reused: the events have waited for it */
	CHECK(dpoll(dp, 64, 0) == 0);
	CHECK(dset(dp, s[0], POLLIN) == 0);
	CHECK(done(dp, s[0], POLLIN | POLLOUT, POLLOUT));
	CHECK(dset(dp, s[0], POLLREMOVE | POLLIN) == 0); /* not removed */
	CHECK(dpoll(dp, 64, 0) == 1);
	CHECK(dset(dp, s[0], POLLREMOVE) == 0 && dpoll(dp, 64, 0) == 0);
	close2(s);

	make_pipe(p);
	put(p[1], 1);
	MUST((high = fcntl(p[0], F_DUPFD, highest())) != -1);
	CHECK(dset(dp, high, POLLIN) == 0 && done(dp, high, POLLIN, POLLIN));
	CHECK(dset(dp, high, POLLREMOVE) == 0 && dpoll(dp, 64, 0) == 0);
	close(high);

	/* POLLHUP and POLLERR come unasked. */
	CHECK(dset(dp, p[1], 0) == 0 && dpoll(dp, 64, 0) == 0);
	close(p[0]);
	CHECK(done(dp, p[1], 0, POLLERR));
	close(p[1]);
	close(dp);
}

static void
devpoll_errors(void)
{
	int dp = shim_devpoll_open(), p[2], fd;
	struct shim_dvpoll req = { NULL, 1, 0 };
	int64_t start = shim_now();

	make_pipe(p);
	CHECK(dset(dp, p[0], POLLIN) == 0);
	CHECK(dpoll(dp, 64, 30) == 0 && waited(start, 30));
	start = shim_now();
	CHECK(dpoll(dp, 0, 30) == 0 && waited(start, 30));
	alarms(1);
	CHECK(FAILS(dpoll(dp, 64, -1), EINTR));
	alarms(0);
	CHECK(pf[0].fd == 0x5a5a5a5a);
	MUST(fflush(stdout) == 0);
	if (fork() == 0) {
		put(p[1], 1);
		_exit(0);
	}
	CHECK(dpoll(dp, 64, -1) == 1 && pf[0].revents == POLLIN);
	MUST(wait(NULL) != -1);

	CHECK(FAILS(shim_devpoll_write(dp, pf, sizeof(pf[0]) - 1), EINVAL));
	CHECK(shim_devpoll_write(dp, pf, 0) == 0);
	CHECK(FAILS(dpoll(dp, (unsigned long)sysconf(_SC_OPEN_MAX), 0), EINVAL));
	CHECK(FAILS(shim_devpoll_ioctl(dp, &req), EFAULT));
	CHECK(in_child(devpoll_child, dp));
	CHECK(dpoll(dp, 64, 0) == 1);

	close(dp);
	CHECK(FAILS(dpoll(dp, 64, 0), EBADF));
	CHECK(FAILS(dset(dp, p[0], POLLIN), EBADF));
	MUST((fd = eventfd(0, 0)) == dp);
	CHECK(FAILS(dpoll(dp, 64, 0), EBADF));
	close(fd);
	MUST((fd = shim_devpoll_open()) == dp);
	CHECK(dpoll(dp, 64, 0) == 0);
	close(dp);
	close2(p);
}

static int
count_open(void)
{
	int fd, n = 0;

	for (fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

static void
run(void (*test)(void))
{
	int before = count_open();

	test();
	CHECK(count_open() == before); /* close(2) is all a queue needs */
}

/* ---- channels ----------------------------------------------------------- */

static void
channel(void)
{
	int p[2], l, fd, n = 0;
	char byte, bytes[2049] = "";
	struct msghdr message = { .msg_iov =
		&(struct iovec){ bytes, sizeof(bytes) }, .msg_iovlen = 1 };
	struct pollfd wait;
	struct sockaddr_in addr;

	/* Full after a few messages, and writable all the same. */
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, p) == 0);
	while (n < 100 && shim_send(p[0], "x", 1, MSG_DONTWAIT) == 1)
		n++;
	CHECK(n == 8 && errno == ENOBUFS);
	wait = (struct pollfd){ .fd = p[0], .events = POLLOUT };
	CHECK(poll(&wait, 1, 0) == 1 && (wait.revents & POLLOUT));
	CHECK(recv(p[1], &byte, 1, 0) == 1);
	CHECK(shim_send(p[0], "x", 1, MSG_DONTWAIT) == 1);

	/* Too long, whatever the buffer size. */
	CHECK(FAILS(shim_send(p[0], bytes, 2049, MSG_DONTWAIT), EMSGSIZE));
	CHECK(FAILS(shim_sendmsg(p[0], &message, MSG_DONTWAIT), EMSGSIZE));
	while (recv(p[1], &byte, 1, MSG_DONTWAIT) == 1)
		;
	CHECK(shim_send(p[0], bytes, 2048, MSG_DONTWAIT) == 2048);
	CHECK(shim_recvmsg(p[1], &message, MSG_DONTWAIT) == 2048);

	/* No event when the other end closes. */
	close(p[1]);
	wait.events = POLLIN;
	CHECK(poll(&wait, 1, 0) == 0);
	close(p[0]);

	/* accept(2) passes O_NONBLOCK on. */
	l = make_listener(&addr);
	n = begin_connect(&addr);
	wait = (struct pollfd){ .fd = l, .events = POLLIN };
	MUST(poll(&wait, 1, 10000) == 1);
	CHECK((fd = shim_accept4(l, NULL, NULL, 0)) >= 0);
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
	close(fd);
	close(n);
	close(l);
}

/* ---- giving up rights --------------------------------------------------- */

#define RIGHT(index, bit) (UINT64_C(1) << (57 + (index)) | (bit))
#define CAP_READ RIGHT(0, 0x1)
#define CAP_EVENT RIGHT(1, 0x20)
#define CAP_IOCTL RIGHT(1, 0x80)

static struct cap_rights rights;

static void
two_of_one_index(void)
{
	shim_cap_rights_init(0, &rights, CAP_EVENT | CAP_IOCTL, UINT64_C(0));
}

static void
two_indices_together(void)
{
	shim_cap_rights_init(0, &rights, CAP_READ | CAP_IOCTL, UINT64_C(0));
}

static void
no_index(void)
{
	shim_cap_rights_set(&rights, UINT64_C(0x20), UINT64_C(0));
}

static void
other_version(void)
{
	shim_cap_rights_init(1, &rights, CAP_READ, UINT64_C(0));
}

static void
fork_pledged(void)
{
	shim_pledge("stdio rpath", NULL);
	fork();
}

static void
socket_pledged(void)
{
	shim_pledge("stdio rpath", NULL);
	socket(AF_INET, SOCK_STREAM, 0);
}

static void
descriptor_pledged(void)
{
	char room[64];
	struct msghdr message = { .msg_control = room, .msg_controllen = 64 };

	shim_pledge("stdio", NULL);
	shim_recvmsg(0, &message, MSG_DONTWAIT);
}

static void
relay_pledged(void)
{
	MUST(shim_pledge("stdio rpath inet recvfd error", NULL) == 0);
	MUST(socket(AF_INET, SOCK_STREAM, 0) != -1);
	MUST(open("/dev/null", O_RDONLY) != -1);
}

static void
exec_without_privilege(void)
{
	MUST(shim_priv_set(1, NULL, "proc_exec", NULL) == 0);
	execl("/bin/true", "true", NULL);
}

/* Runs this in a child; returns waitpid's status without the core bit. */
static int
end_of(void (*work)(void))
{
	struct rlimit none = { 0, 0 };
	int status, null = open("/dev/null", O_WRONLY);
	pid_t pid = fork();

	MUST(pid != -1);
	if (pid == 0) {
		dup2(null, 2);
		setrlimit(RLIMIT_CORE, &none);
		work();
		_exit(0);
	}
	close(null);
	MUST(waitpid(pid, &status, 0) == pid);
	return status;
}

static void
rights_given_up(void)
{
	shim_cap_rights_init(0, &rights, CAP_READ, CAP_IOCTL, UINT64_C(0));
	CHECK(rights.element[0] == CAP_READ && rights.element[1] == CAP_IOCTL);
	shim_cap_rights_set(&rights, CAP_EVENT, UINT64_C(0));
	CHECK(rights.element[1] == (CAP_EVENT | CAP_IOCTL));
	CHECK(shim_cap_rights_limit(0, &rights) == 0);
	CHECK(FAILS(shim_cap_rights_limit(-1, &rights), EBADF));
	rights.element[1] |= CAP_READ;
	CHECK(FAILS(shim_cap_rights_limit(0, &rights), EINVAL));
	shim_cap_rights_init(0, &rights, RIGHT(0, 0x2), UINT64_C(0));
	CHECK(FAILS(shim_cap_rights_limit(0, &rights), 93));
	CHECK(end_of(two_of_one_index) == 0);
	CHECK(WTERMSIG(end_of(two_indices_together)) == SIGABRT);
	CHECK(WTERMSIG(end_of(no_index)) == SIGABRT);
	CHECK(WTERMSIG(end_of(other_version)) == SIGABRT);

	CHECK(FAILS(shim_pledge("stdio nonsense", NULL), EINVAL));
	CHECK(FAILS(shim_unveil("/", "rq"), EINVAL));
	CHECK(FAILS(shim_unveil("/no/such/folder", "r"), ENOENT));
	CHECK(shim_unveil("/", "r") == 0);
	CHECK(end_of(relay_pledged) == 0);
	CHECK(WEXITSTATUS(end_of(fork_pledged)) == 134);
	CHECK(WEXITSTATUS(end_of(socket_pledged)) == 134);
	CHECK(WEXITSTATUS(end_of(descriptor_pledged)) == 134);

	CHECK(FAILS(shim_priv_set(1, NULL, "proc_nonsense", NULL), EINVAL));
	CHECK(WEXITSTATUS(end_of(exec_without_privilege)) == 134);
}

static void
kqueue_exit(void)
{
	struct shim_kevent c = { .filter = EVFILT_PROC, .flags = EV_ADD,
		.fflags = NOTE_EXIT };
	struct pollfd wait = { .fd = shim_kqueue(), .events = POLLIN };
	int next = dup(wait.fd); /* the number of what is left open, see kqueue.c */
	pid_t pid = fork();

	MUST(pid != -1);
	close(next);
	if (pid == 0) {
		pause();
		_exit(0);
	}
	c.ident = (uintptr_t)pid;
	CHECK(shim_kevent(wait.fd, &c, 1, NULL, 0, NULL) == 0);
	CHECK(poll(&wait, 1, 0) == 0);
	kill(pid, SIGKILL);
	CHECK(poll(&wait, 1, 10000) == 1);
	MUST(waitpid(pid, NULL, 0) == pid);
	CHECK(FAILS(shim_kevent(wait.fd, &c, 1, NULL, 0, NULL), ESRCH));
	close(next);
	close(wait.fd);
}

int
main(void)
{
	signal(SIGPIPE, SIG_IGN);
	run(tables);
	run(kqueue_queue);
	run(kqueue_read);
	run(kqueue_reset);
	run(kqueue_write);
	run(kqueue_connect);
	run(kqueue_clear);
	run(kqueue_modes);
	run(kqueue_errors);
	run(kqueue_time);
	run(kqueue_close);
	run(kqueue_files);
	run(kqueue_many);
	run(kqueue_exit);
	run(splice_ways);
	run(splice_ends);
	run(splice_errors);
	run(port_association);
	run(port_getn);
	run(port_errors);
	run(port_close);
	run(port_many);
	run(devpoll_set);
	run(devpoll_close);
	run(devpoll_errors);
	run(channel);
	run(rights_given_up);
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}

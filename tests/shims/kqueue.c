/*
 * kqueue(2) and kevent(2) on Linux, for tests only.
 *
 * Follows kqueue(2) of FreeBSD; NetBSD and OpenBSD use the same words
 * except where noted.  The parts that matter here:
 *  - DESCRIPTION: "there may only be one unique kevent per kqueue" for an
 *    (ident, filter) pair; the filter is run at registration, to find "a
 *    preexisting condition", and again when "the user attempts to retrieve the
 *    kevent": what "no longer holds [...] is not returned".  So without EV_CLEAR
 *    an event is level-triggered.
 *  - DESCRIPTION: "Calling close() on a file descriptor will remove any kevents
 *    that reference the descriptor"; EV_DELETE: "on the last close".
 *  - DESCRIPTION: "The queue is not inherited by a child created with fork(2)."
 *  - DESCRIPTION: all changes "are applied before any pending events are read";
 *    "When nevents is zero, kevent() will return immediately".
 *  - EV_ADD: "Re-adding an existing event will modify the parameters of the
 *    original event"; it "automatically enables it, unless overridden by the
 *    EV_DISABLE flag".  EV_ONESHOT: "After the user retrieves the event from
 *    the kqueue, it is deleted."  EV_CLEAR: "Reset the state of the event after
 *    it is retrieved".  EV_DISPATCH: "Disable the event source immediately after
 *    delivery".  EV_RECEIPT: "forces EV_ERROR to always be returned".  Older
 *    NetBSD and OpenBSD have neither of the last two.
 *  - EVFILT_READ, Sockets: a listening one is ready "when there is an incoming
 *    connection pending"; EV_EOF "if the read direction of the socket has
 *    shutdown", and "while there is still data pending" as well.
 *  - EVFILT_READ, Vnodes: ready "when the file pointer is not at the end of
 *    file", and silent there, unlike poll(2).  EVFILT_WRITE "is not supported
 *    for vnodes"; some systems have it all the same.
 *  - EVFILT_WRITE: EV_EOF "when the reader disconnects".
 *  - EVFILT_PROC: NOTE_EXIT, "The process has exited"; ESRCH if there is none.
 *  - RETURN VALUES, ERRORS: an error of a change takes a place in the eventlist,
 *    or is errno if there is none; EBADF, EINVAL, ENOENT.
 * Where the page is silent it does what FreeBSD does: EV_CLEAR, EV_ONESHOT and
 * EV_DISPATCH are those of the first EV_ADD, every later change (EV_ENABLE and
 * EV_DISABLE too) replaces udata, and an event carries the mode flags of its
 * filter.
 *
 * How it works: each descriptor is in the epoll set once, edge-triggered.  An
 * edge makes its filters candidates; a candidate is polled when it is about to
 * be returned, exactly as the page has the filter "run when the user attempts
 * to retrieve the kevent".  A filter that is not EV_CLEAR stays a candidate
 * for as long as it is ready, which makes it level-triggered.  Work per call is
 * in proportion to the changes and the ready descriptors.
 *
 * Narrower than the real thing:
 *  - EVFILT_PROC makes its queue readable, so that a program that watches
 *    the queue notices; the event cannot be retrieved, nor the filter be
 *    deleted.
 *  - Otherwise there are EVFILT_READ and EVFILT_WRITE only; all else is
 *    EINVAL, and so are fflags (NOTE_LOWAT, NOTE_FILE_POLL) in EV_ADD.
 *  - A regular file that has been at its end is silent until its filter is
 *    changed, whether it grows or not.  Other files that epoll refuses are
 *    always ready for both.
 *  - data is 1 for a listening socket and wherever FIONREAD is not
 *    supported, the size of the first datagram for datagram sockets, and
 *    PIPE_BUF for EVFILT_WRITE, not the exact space.
 *  - fflags is always 0 on return: Linux reveals a socket's error only by
 *    clearing it, and it must be left for the caller's SO_ERROR.
 *  - The caller's own shutdown(SHUT_WR) sets EV_EOF on EVFILT_WRITE only
 *    when the other direction has ended too: Linux does not show it before.
 *  - An EV_CLEAR filter may fire again while its condition still holds,
 *    after an edge or a change of the other filter of its descriptor.
 *  - Closing a descriptor and putting the same open file back under its
 *    number, or another one of the same regular file, goes unnoticed.
 *  - The descriptor cannot be watched (except by EVFILT_PROC), duplicated
 *    or passed on.  A child of fork(2) still has it open, which on a real
 *    system it has not, but gets EBADF.
 *  - Timeouts are rounded up to milliseconds.
 */
#include "shims.h"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { READ, WRITE, FILTERS };

struct knote {
	void *udata;
	uint16_t flags; /* the mode flags it was added with */
	bool live;
	bool disabled;
	bool queued;    /* is in the queue of candidates */
	int next;       /* the one behind it there */
};

struct slot { /* one per descriptor number */
	struct knote note[FILTERS];
	dev_t dev;
	ino_t ino;
	bool socket;
	bool regular;
	uint32_t generation; /* tells its epoll events from a predecessor's */
	uint32_t mask;       /* what epoll watches it for */
	bool watched;        /* in the epoll set */
	bool unpollable;     /* epoll will not have it */
};

struct kqueue {
	struct shim_queue base;
	struct slot *slots;
	int nslots;
	int head, tail, queued; /* candidates, as descriptor * FILTERS + filter */
};

static void
clear(struct shim_queue *base)
{
	struct kqueue *q = (struct kqueue *)base;

	free(q->slots);
	q->slots = NULL;
	q->nslots = q->queued = 0;
}

static struct shim_class kqueues = {
	.size = sizeof(struct kqueue), .mark = SHIM_MARK_KQUEUE,
	.not_ours = EBADF, .not_owner = EBADF, .clear = clear,
};

static void
push(struct kqueue *q, int id)
{
	struct knote *kn = &q->slots[id / FILTERS].note[id % FILTERS];

	if (kn->queued)
		return;
	kn->queued = true;
	if (q->queued++ == 0)
		q->head = id;
	else
		q->slots[q->tail / FILTERS].note[q->tail % FILTERS].next = id;
	q->tail = id;
}

static int
pop(struct kqueue *q)
{
	int id = q->head;
	struct knote *kn = &q->slots[id / FILTERS].note[id % FILTERS];

	kn->queued = false;
	q->head = kn->next;
	q->queued--;
	return id;
}

/*
 * Drops the filters of a number whose file was closed behind our back. If
 * that file is still open elsewhere (dup, fork) it stays in the epoll set
 * and cannot be removed; its events are recognised by their generation, and
 * being edge-triggered they do not keep coming.
 */
static void
forget(struct slot *s)
{
	s->note[READ].live = s->note[WRITE].live = false;
	s->watched = s->unpollable = false;
}

/* Both tests are needed: epoll may know two files under one number. */
static bool
still_there(struct kqueue *q, int fd)
{
	struct slot *s = &q->slots[fd];
	struct stat st;

	return (s->watched || s->unpollable) && fstat(fd, &st) == 0 &&
	    st.st_dev == s->dev && st.st_ino == s->ino &&
	    (s->unpollable || shim_still_member(q->base.fd, fd));
}

/* Brings the epoll set in line with the filters of a descriptor. */
static int
sync_epoll(struct kqueue *q, int fd)
{
	struct slot *s = &q->slots[fd];
	struct knote *r = &s->note[READ], *w = &s->note[WRITE];
	struct epoll_event ev = { .events = EPOLLET };
	struct stat st;
	int op = s->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	uint32_t spliced = shim_splice_events(fd);

	if (!r->live && !w->live && spliced == 0) {
		if (s->watched)
			epoll_ctl(q->base.fd, EPOLL_CTL_DEL, fd, NULL);
		forget(s);
		return 0;
	}
	if (r->live && !r->disabled)
		ev.events |= EPOLLIN | EPOLLRDHUP;
	if (w->live && !w->disabled)
		ev.events |= EPOLLOUT;
	ev.events |= spliced;
	if (s->unpollable || (s->watched && s->mask == ev.events))
		return 0;
	if (!s->watched) {
		if (fstat(fd, &st) == -1)
			return errno;
		s->dev = st.st_dev;
		s->ino = st.st_ino;
		s->socket = S_ISSOCK(st.st_mode);
		s->regular = S_ISREG(st.st_mode);
		s->generation++;
	}
	ev.data.u64 = (uint64_t)s->generation << 32 | (uint32_t)fd;
	if (epoll_ctl(q->base.fd, op, fd, &ev) == -1 &&
	    (errno != EEXIST || /* put back by dup2(2) after being forgotten */
	    epoll_ctl(q->base.fd, EPOLL_CTL_MOD, fd, &ev) == -1)) {
		if (errno != EPERM)
			return errno;
		s->unpollable = true;
		return 0;
	}
	s->watched = true;
	s->mask = ev.events;
	return 0;
}

/* EVFILT_PROC: the process's descriptor stays open until the queue is
 * closed; nobody deletes it. */
static int
watch_exit(struct kqueue *q, pid_t pid)
{
	struct epoll_event ev = { .events = EPOLLIN, .data = { .u64 = UINT64_MAX } };
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd == -1)
		return errno;
	return epoll_ctl(q->base.fd, EPOLL_CTL_ADD, fd, &ev) == -1 ? errno : 0;
}

/* Applies one element of the changelist; returns an errno or 0. */
static int
change(struct kqueue *q, const struct shim_kevent *ch)
{
	int filter = ch->filter == EVFILT_READ ? READ : WRITE;
	int fd = ch->ident > INT_MAX / FILTERS - 1 ? -1 : (int)ch->ident;
	struct knote *kn = NULL;
	int error;

	if (ch->filter == EVFILT_PROC && ch->flags == EV_ADD &&
	    ch->fflags == NOTE_EXIT)
		return watch_exit(q, (pid_t)ch->ident);
	if ((ch->filter != EVFILT_READ && ch->filter != EVFILT_WRITE) ||
	    (ch->flags & (EV_ENABLE | EV_DISABLE)) == (EV_ENABLE | EV_DISABLE))
		return EINVAL;
	if (fd >= 0 && fd < q->nslots) {
		if (!still_there(q, fd))
			forget(&q->slots[fd]);
		if (q->slots[fd].note[filter].live)
			kn = &q->slots[fd].note[filter];
	}
	if (fcntl(fd, F_GETFD) == -1)
		return EBADF;
	if (kn == NULL) {
		if (!(ch->flags & EV_ADD))
			return ENOENT;
		if (ch->fflags != 0)
			return EINVAL;
		if (!shim_grow((void **)&q->slots, &q->nslots,
		    sizeof(struct slot), fd))
			return ENOMEM;
		kn = &q->slots[fd].note[filter];
		kn->live = true;
		kn->flags = ch->flags &
		    (EV_ONESHOT | EV_CLEAR | EV_RECEIPT | EV_DISPATCH);
	} else if (ch->flags & EV_DELETE) {
		kn->live = false;
		return sync_epoll(q, fd);
	}
	if (ch->flags & EV_DISABLE)
		kn->disabled = true;
	else if (ch->flags & (EV_ADD | EV_ENABLE))
		kn->disabled = false;
	error = sync_epoll(q, fd);
	if (error == 0 && filter == WRITE && q->slots[fd].regular)
		error = EINVAL;
	if (error != 0) { /* it could not be added */
		kn->live = false;
		sync_epoll(q, fd);
		return error;
	}
	kn->udata = ch->udata;
	push(q, fd * FILTERS + filter); /* it may be ready already */
	return 0;
}

/* Runs a filter: whether it is ready now, and with which flags and data. */
static bool
ready(const struct slot *s, int fd, int filter, struct shim_kevent *ev)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };
	struct stat st;
	int n;

	*ev = (struct shim_kevent){ .ident = (uintptr_t)fd,
		.filter = filter == READ ? EVFILT_READ : EVFILT_WRITE,
		.flags = s->note[filter].flags, .udata = s->note[filter].udata,
		.data = filter == READ ? 1 : PIPE_BUF };
	if (s->unpollable) {
		if (s->regular && fstat(fd, &st) == 0)
			ev->data = st.st_size - lseek(fd, 0, SEEK_CUR);
		return ev->data != 0;
	}
	if (poll(&p, 1, 0) <= 0)
		return false;
	/*
	 * A stream socket whose both directions have ended shows both flags.
	 * POLLHUP alone means that it was never connected, which a kqueue does not
	 * report.
	 */
	if (s->socket && (p.revents & POLLHUP) && !(p.revents & POLLRDHUP))
		p.revents = 0;
	if (filter == READ) {
		if (p.revents & (POLLRDHUP | POLLHUP))
			ev->flags |= EV_EOF;
		if (ioctl(fd, FIONREAD, &n) == 0)
			ev->data = n;
		return (p.revents & (POLLIN | POLLRDHUP | POLLHUP | POLLERR)) != 0;
	}
	/* A pipe reports with POLLERR that nobody reads from it any more. */
	if ((p.revents & POLLHUP) || (!s->socket && (p.revents & POLLERR)))
		ev->flags |= EV_EOF;
	return (p.revents & (POLLOUT | POLLHUP | POLLERR)) != 0;
}

/* Fills the eventlist from the candidates, each of which is checked once. */
static int
deliver(struct kqueue *q, struct shim_kevent *events, int nevents)
{
	int n = 0, budget = q->queued;

	while (n < nevents && budget-- > 0) {
		int id = pop(q), fd = id / FILTERS, filter = id % FILTERS;
		struct slot *s;
		struct knote *kn;
		bool more;

		if (filter == READ && shim_splice_move(fd, &more)) {
			if (more)
				push(q, id);
			continue; /* a spliced source is not ready */
		}
		s = &q->slots[fd];
		kn = &s->note[filter];
		if (!kn->live || kn->disabled)
			continue;
		if (!still_there(q, fd)) {
			forget(s);
			continue;
		}
		if (!ready(s, fd, filter, &events[n]))
			continue;
		n++;
		if (kn->flags & EV_ONESHOT) {
			kn->live = false;
			sync_epoll(q, fd);
		} else if (kn->flags & EV_DISPATCH) {
			kn->disabled = true;
			sync_epoll(q, fd);
		} else if (!(kn->flags & EV_CLEAR)) {
			push(q, id); /* at the end, so that all get their turn */
		}
	}
	return n;
}

/* Turns edges into candidates; waits for the first one if need be. */
static int
collect(struct kqueue *q, int timeout)
{
	struct epoll_event ev[128];
	int i, n;

	do {
		n = epoll_wait(q->base.fd, ev, 128, timeout);
		for (i = 0; i < n; i++) {
			int fd = (int)(uint32_t)ev[i].data.u64;
			struct slot *s;

			if (ev[i].data.u64 == UINT64_MAX) /* of a process */
				continue;
			s = &q->slots[fd];
			if (!s->watched || s->generation != ev[i].data.u64 >> 32)
				continue;
			if (ev[i].events & ~(uint32_t)EPOLLOUT)
				push(q, fd * FILTERS + READ);
			if (ev[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
				int source = shim_splice_source(fd);

				push(q, fd * FILTERS + WRITE);
				if (source != -1)
					push(q, source * FILTERS + READ);
			}
		}
		timeout = 0;
	} while (n == 128);
	return n;
}

/* The queue in which this thread waited last: its event loop, not one that watches a process. */
static _Thread_local struct kqueue *latest;

bool
shim_kqueue_recheck(int fd)
{
	struct kqueue *q = latest;

	if (q == NULL || shim_queue_get(&kqueues, q->base.fd) != q ||
	    !shim_grow((void **)&q->slots, &q->nslots, sizeof(struct slot), fd))
		return false;
	if (!still_there(q, fd))
		forget(&q->slots[fd]);
	if (sync_epoll(q, fd) != 0)
		return false;
	push(q, fd * FILTERS + READ);
	return true;
}

int
shim_kqueue(void)
{
	return shim_queue_new(&kqueues);
}

int
shim_kevent(int kq, const struct shim_kevent *changes, int nchanges,
    struct shim_kevent *events, int nevents, const struct timespec *timeout)
{
	struct kqueue *q = shim_queue_get(&kqueues, kq);
	int64_t deadline;
	int i, n, left, errors = 0;

	if (q == NULL)
		return -1;
	if (nevents > 0)
		latest = q;
	for (i = 0; i < nchanges; i++) {
		/* A copy, because both lists may be the same array. */
		struct shim_kevent ch = changes[i];
		int error = change(q, &ch);

		if (error == 0 && !(ch.flags & EV_RECEIPT))
			continue;
		if (errors >= nevents) {
			errno = error;
			return error != 0 ? -1 : errors;
		}
		ch.flags = EV_ERROR;
		ch.data = error;
		events[errors++] = ch;
	}
	if (errors > 0 || nevents <= 0)
		return errors;
	if (!shim_deadline(timeout, &deadline)) {
		errno = EINVAL;
		return -1;
	}
	for (;;) {
		left = shim_left(deadline);
		if (collect(q, q->queued > 0 ? 0 : left) == -1)
			return -1;
		n = deliver(q, events, nevents);
		if (n > 0 || left == 0)
			return n;
	}
}

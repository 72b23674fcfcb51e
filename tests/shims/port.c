/*
 * Event ports on Linux, descriptors only, for tests only.
 *
 * Follows the manual pages of illumos and Solaris.  The parts that matter
 * here:
 *  - port_associate(3C), PORT_SOURCE_FD: "At most one event notification will be
 *    generated per associated file descriptor"; if the condition holds "at the
 *    time the port_associate() function is called, an event is immediately sent
 *    to the port", and otherwise when it first does.
 *  - the same: "When an event for a PORT_SOURCE_FD object is retrieved, the object
 *    no longer has an association with the port."
 *  - the same: if the object is associated already, the call "serves to
 *    update the events and user arguments"; an event that was sent is
 *    withdrawn, and the condition checked again.  port_dissociate withdraws
 *    it as well.
 *  - the same, ERRORS: EBADF, EBADFD, EINVAL, ENOENT; and EAGAIN at the
 *    resource control process.max-port-events, which shim_port_limit sets for
 *    the ports of a thread.  It counts the associations of a port; one that is
 *    made again, after its event was retrieved, counts as new.
 *  - port_create(3C): an association ends when its descriptor is closed.
 *  - port_get(3C), port_getn: waits "until the desired number of events are
 *    available, the timeout elapses, a signal occurs"; "On return, the value
 *    pointed to by nget is updated to the actual number of events retrieved"; ERRORS.
 *  - poll(2): POLLERR and POLLHUP come unasked.
 *
 * How it works: an association is a member of an epoll set with
 * EPOLLONESHOT. Retrieving its event disarms the member, associating again
 * arms it.  An event that is sent at once goes into a queue instead and
 * does not change any more: as on the real systems, its condition may have
 * passed when it is retrieved. Work per call is in proportion to the events
 * retrieved.
 *
 * What a caller must know about port_getn, here as on the real systems:
 *  - *nget is read (how many events to wait for) and written (how many
 *    there are), so set it before every call.  With 0 the call returns no
 *    events.  If more than *nget events are ready, up to max are returned.
 *  - -1 with ETIME does not mean that there are no events: *nget of them
 *    have been retrieved and have lost their associations.  Here the same
 *    goes for EINTR.
 *  - The real call may leave *nget as it was when it fails with EINTR, and may
 *    return 0 with *nget 0 instead of ETIME for a zero timeout.  A caller that
 *    clears portev_source before the call can tell.
 *
 * Narrower than the real thing:
 *  - PORT_SOURCE_FD only; any other source is EINVAL.  No port_get, port_send
 *    or port_alert (port_getn with *nget 1 does for the first).
 *  - max 0, which counts the events without retrieving them, is EINVAL.
 *  - Files without a poll method (regular files) are EPERM; the real ones are
 *    always ready.
 *  - Only events known to Solaris' poll(2) count, so POLLRDHUP does not.
 *    POLLERR and POLLHUP are always reported.  POLLNVAL never occurs, since
 *    closing a descriptor ends its association.
 *  - A condition that becomes true after the association is checked when
 *    the event is retrieved: if it has passed by then, the association goes
 *    on and there is no event.
 *  - Closing a descriptor and putting the very same open file back under its
 *    number goes unnoticed.
 *  - The port cannot be duplicated, passed on or watched.  After fork(2)
 *    the child gets EBADF, whereas it shares a real port.
 *  - The port is close-on-exec, and timeouts are rounded up to milliseconds.
 */
#include "shims.h"

#define KNOWN_EVENTS (POLLIN | POLLPRI | POLLOUT | POLLRDNORM | POLLRDBAND | \
    POLLWRNORM | POLLWRBAND)

struct association { /* one per descriptor number */
	void *user;
	uint32_t generation; /* tells its epoll events from a predecessor's */
	bool live;           /* associated */
	bool watched;        /* in the epoll set, armed or not */
	int sent;            /* the event that was sent at once, or 0 */
	bool queued;         /* is in the queue of those */
	int next;            /* the one behind it there */
};

struct port {
	struct shim_queue base;
	struct association *table;
	int count;
	int head, tail, queued;
	int live; /* associations */
};

static _Thread_local int limit = INT_MAX;

static void
clear(struct shim_queue *base)
{
	struct port *p = (struct port *)base;

	free(p->table);
	p->table = NULL;
	p->count = p->queued = p->live = 0;
}

/* Ends an association, and drops an event already sent for it. */
static void
forget(struct port *p, struct association *a)
{
	p->live -= a->live;
	a->live = false;
	a->sent = 0;
}

static struct shim_class ports = {
	.size = sizeof(struct port), .mark = SHIM_MARK_PORT,
	.not_ours = EBADFD, .not_owner = EBADF, .clear = clear,
};

/*
 * Checks the arguments that associate and dissociate share. If the number
 * turns out to be closed, what was remembered about it is dropped.
 */
static struct port *
check(int port, int source, uintptr_t object)
{
	struct port *p = shim_queue_get(&ports, port);

	if (p == NULL)
		return NULL;
	if (source != PORT_SOURCE_FD) {
		errno = EINVAL;
		return NULL;
	}
	if (object >= INT_MAX || fcntl((int)object, F_GETFD) == -1) {
		if (object < (uintptr_t)p->count) {
			forget(p, &p->table[object]);
			p->table[object].watched = false;
		}
		errno = EBADFD;
		return NULL;
	}
	return p;
}

void
shim_port_limit(int most)
{
	limit = most;
}

int
shim_port_create(void)
{
	return shim_queue_new(&ports);
}

int
shim_port_associate(int port, int source, uintptr_t object, int events,
    void *user)
{
	struct port *p = check(port, source, object);
	struct epoll_event ev;
	struct pollfd now = { .fd = -1 };
	struct association *a;
	int fd = (int)object;

	if (p == NULL)
		return -1;
	if (!shim_grow((void **)&p->table, &p->count, sizeof(*a), fd)) {
		errno = ENOMEM;
		return -1;
	}
	a = &p->table[fd];
	if (!a->live && p->live >= limit) {
		errno = EAGAIN;
		return -1;
	}
	/* The bits of epoll are those of poll. */
	ev.events = (uint32_t)(events & KNOWN_EVENTS) | EPOLLONESHOT;
	ev.data.u64 = (uint64_t)a->generation << 32 | (uint32_t)fd;
	if (!a->watched || epoll_ctl(port, EPOLL_CTL_MOD, fd, &ev) == -1) {
		/*
		 * Either new, or another file: MOD does not find the descriptor if its
		 * number was closed and reused. The old file may be open elsewhere, and
		 * its member still in the set; the generation tells them apart.
		 */
		forget(p, a);
		a->watched = false;
		ev.data.u64 = (uint64_t)++a->generation << 32 | (uint32_t)fd;
		if (epoll_ctl(port, EPOLL_CTL_ADD, fd, &ev) == -1 &&
		    (errno != EEXIST || /* put back by dup2(2) */
		    epoll_ctl(port, EPOLL_CTL_MOD, fd, &ev) == -1))
			return -1;
	}
	p->live += !a->live;
	a->live = a->watched = true;
	a->user = user;
	now.fd = fd;
	now.events = (short)(events & KNOWN_EVENTS);
	a->sent = poll(&now, 1, 0) == 1 ? now.revents : 0;
	if (a->sent != 0 && !a->queued) {
		a->queued = true;
		if (p->queued++ == 0)
			p->head = fd;
		else
			p->table[p->tail].next = fd;
		p->tail = fd;
	}
	return 0;
}

int
shim_port_dissociate(int port, int source, uintptr_t object)
{
	struct port *p = check(port, source, object);
	struct association *a;

	if (p == NULL)
		return -1;
	if (object < (uintptr_t)p->count && p->table[object].live) {
		a = &p->table[object];
		forget(p, a);
		a->watched = false;
		/* Finds nothing if the number was closed and reused. */
		if (epoll_ctl(port, EPOLL_CTL_DEL, (int)object, NULL) == 0)
			return 0;
	}
	errno = ENOENT;
	return -1;
}

/* Retrieves one event, unless its descriptor was closed; true if there was
 * one. */
static bool
retrieve(struct port *p, int fd, int events, struct shim_port_event *event)
{
	struct association *a = &p->table[fd];

	forget(p, a);
	if (!shim_still_member(p->base.fd, fd)) {
		a->watched = false; /* closed, but perhaps alive elsewhere */
		return false;
	}
	*event = (struct shim_port_event){
		.portev_events = events,
		.portev_source = PORT_SOURCE_FD,
		.portev_object = (uintptr_t)fd,
		.portev_user = a->user,
	};
	return true;
}

/* Retrieves events that were sent at once; returns how many were still
 * valid. */
static unsigned
retrieve_sent(struct port *p, struct shim_port_event *list, unsigned max)
{
	unsigned good = 0;

	while (good < max && p->queued > 0) {
		struct association *a = &p->table[p->head];
		int fd = p->head;

		p->head = a->next;
		p->queued--;
		a->queued = false;
		if (a->sent != 0)
			good += retrieve(p, fd, a->sent, &list[good]);
	}
	return good;
}

/* Retrieves what epoll found. An association whose event is in the queue
 * already gives no second one. */
static unsigned
retrieve_found(struct port *p, const struct epoll_event *found, int n,
    struct shim_port_event *list)
{
	unsigned good = 0;
	int i;

	for (i = 0; i < n; i++) {
		int fd = (int)(uint32_t)found[i].data.u64;
		struct association *a = &p->table[fd];

		if (a->live && a->sent == 0 &&
		    a->generation == found[i].data.u64 >> 32)
			good += retrieve(p, fd, (int)found[i].events, &list[good]);
	}
	return good;
}

int
shim_port_getn(int port, struct shim_port_event list[], unsigned max,
    unsigned *nget, struct timespec *timeout)
{
	struct port *p = shim_queue_get(&ports, port);
	struct epoll_event found[128];
	int64_t deadline;
	unsigned wanted, have = 0;
	int n, room, left = 0;

	if (p == NULL)
		return -1;
	if (list == NULL || nget == NULL || max == 0 || *nget > max ||
	    !shim_deadline(timeout, &deadline)) {
		errno = EINVAL;
		return -1;
	}
	wanted = *nget;
	if (wanted == 0)
		return 0;
	have = retrieve_sent(p, list, max);
	n = 0;
	while (have < max) {
		room = max - have < 128 ? (int)(max - have) : 128;
		/* Once there are enough, takes whatever else is ready, without waiting. */
		left = have < wanted ? shim_left(deadline) : 0;
		n = epoll_wait(port, found, room, left);
		if (n == -1)
			break;
		have += retrieve_found(p, found, n, list + have);
		if (have >= wanted && n < room)
			break;
		if (n == 0 && left == 0) {
			n = -1;
			errno = ETIME;
			break;
		}
	}
	*nget = have;
	return n == -1 ? -1 : 0;
}

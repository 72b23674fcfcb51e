/*
 * floor MODE LISTEN-PORT BACKEND-PORT [CONGESTION-CONTROL]
 *
 * The least that relaying over loopback costs with epoll: no configuration, no limits, no log, no
 * balancing, no worker processes. MODE is how bytes are moved: "copy" through one buffer that all
 * sessions share, "splice" through a pipe per direction. It is a yardstick for relays, not one.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SIZE = 128 * 1024, /* most bytes of one read */
    MOVES = 16,        /* most reads of a direction before the others have their turn */
    EVENTS = 256,
    BACKLOG = 4096,
};

struct session;

/* From one end to the other. */
struct direction {
    int source, sink;
    int pipe[2];
    char *unwritten; /* what the sink has not taken; with splice it waits in the pipe */
    size_t waiting;
    bool hung_up; /* the end of the source, or an error, is announced */
    bool ended;   /* the source was read to its end */
    bool shut;    /* the sink was told so */
    bool again;   /* was stopped by MOVES, so that no event will come */
};

struct end {
    struct session *session;
    int index; /* of the direction that begins here; the other one ends here */
};

struct session {
    struct end ends[2];
    struct direction directions[2];
    struct session *next; /* in the list of those to be continued, or to be freed */
    bool continued, closed;
};

static bool splicing;
static char buffer[SIZE];
static int poller;
static struct session *to_continue, *to_free;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Writes what waits. Returns 1 if nothing is left, 0 if the sink is full, -1 if it is broken. */
static int flush(struct direction *way)
{
    while (way->waiting > 0) {
        ssize_t count = splicing
            ? splice(way->pipe[0], NULL, way->sink, NULL, way->waiting, SPLICE_F_NONBLOCK)
            : send(way->sink, way->unwritten, way->waiting, MSG_NOSIGNAL);
        if (count < 0)
            return errno == EAGAIN ? 0 : -1;
        way->waiting -= (size_t) count;
        if (!splicing)
            memmove(way->unwritten, way->unwritten + count, way->waiting);
    }
    free(way->unwritten);
    way->unwritten = NULL;
    return 1;
}

/* Reads once. Returns the bytes read, 0 at the end, or -1 with errno. */
static ssize_t fill(struct direction *way)
{
    ssize_t count = splicing
        ? splice(way->source, NULL, way->pipe[1], NULL, SIZE, SPLICE_F_NONBLOCK)
        : recv(way->source, buffer, SIZE, 0);
    if (count <= 0)
        return count;
    way->waiting = (size_t) count;
    if (splicing)
        return count;
    /* Straight from the shared buffer; only what the sink does not accept is copied. */
    ssize_t sent = send(way->sink, buffer, way->waiting, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return -1;
    if (sent < 0)
        sent = 0;
    way->waiting -= (size_t) sent;
    if (way->waiting > 0) {
        way->unwritten = malloc(way->waiting);
        if (way->unwritten == NULL)
            fail("malloc");
        memcpy(way->unwritten, buffer + sent, way->waiting);
    }
    return count;
}

/* Moves as much as it can; false if the session is over. */
static bool move(struct direction *way)
{
    way->again = false;
    for (int moves = 0; !way->shut; moves++) {
        int flushed = flush(way);
        if (flushed <= 0)
            return flushed == 0;
        if (way->ended) {
            shutdown(way->sink, SHUT_WR);
            way->shut = true;
            break;
        }
        if (moves == MOVES) {
            way->again = true;
            break;
        }
        ssize_t count = fill(way);
        if (count < 0)
            return errno == EAGAIN;
        way->ended = count == 0;
        /* A short read has emptied the source: an event will report more, unless it came already. */
        if (!splicing && count > 0 && count < SIZE && !way->hung_up && way->waiting == 0)
            break;
    }
    return true;
}

static void close_session(struct session *session)
{
    session->closed = true;
    for (int i = 0; i < 2; i++) {
        struct direction *way = &session->directions[i];
        close(way->source);
        if (splicing) {
            close(way->pipe[0]);
            close(way->pipe[1]);
        }
        free(way->unwritten);
    }
    /* Other events of this turn, or the list of sessions to continue, may still refer to it. */
    if (!session->continued) {
        session->next = to_free;
        to_free = session;
    }
}

static void run(struct session *session, bool first, bool second)
{
    struct direction *ways = session->directions;
    if ((first && !move(&ways[0])) || (second && !move(&ways[1])) ||
        (ways[0].shut && ways[1].shut)) {
        close_session(session);
        return;
    }
    if ((ways[0].again || ways[1].again) && !session->continued) {
        session->continued = true;
        session->next = to_continue;
        to_continue = session;
    }
}

static void ready(struct end *end, unsigned int events)
{
    struct session *session = end->session;
    if (session->closed)
        return;
    struct direction *out = &session->directions[end->index];
    struct direction *in = &session->directions[!end->index];
    bool hung_up = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (hung_up)
        out->hung_up = true;
    bool read = hung_up || events & EPOLLIN;
    /* Every event reports writability; most of the time nothing waits for it. */
    bool write = in->waiting > 0;
    run(session, end->index == 0 ? read : write, end->index == 0 ? write : read);
}

static void set_up(int fd, const char *congestion)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (congestion != NULL &&
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t) strlen(congestion)) < 0)
        fail(congestion);
}

static void watch(int fd, unsigned int events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl");
}

static void take(int client, const struct sockaddr_in *backend, const char *congestion)
{
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct session *session = calloc(1, sizeof *session);
    if (server < 0 || session == NULL)
        fail("session");
    set_up(server, congestion);
    /* The first read finds out if this fails. */
    (void) connect(server, (const struct sockaddr *) backend, sizeof *backend);
    for (int i = 0; i < 2; i++) {
        session->ends[i] = (struct end) {session, i};
        session->directions[i].source = i == 0 ? client : server;
        session->directions[i].sink = i == 0 ? server : client;
        if (splicing && pipe2(session->directions[i].pipe, O_NONBLOCK) < 0)
            fail("pipe2");
    }
    for (int i = 0; i < 2; i++)
        watch(session->directions[i].source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
              &session->ends[i]);
}

static struct sockaddr_in loopback(const char *port)
{
    return (struct sockaddr_in) {
        .sin_family = AF_INET,
        .sin_port = htons((in_port_t) atoi(port)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

int main(int count, char **words)
{
    if (count < 4 || (strcmp(words[1], "copy") != 0 && strcmp(words[1], "splice") != 0)) {
        fprintf(stderr, "usage: floor copy|splice LISTEN-PORT BACKEND-PORT [CONGESTION-CONTROL]\n");
        return 64;
    }
    splicing = strcmp(words[1], "splice") == 0;
    struct sockaddr_in own = loopback(words[2]), backend = loopback(words[3]);
    const char *congestion = count > 4 ? words[4] : NULL;

    signal(SIGPIPE, SIG_IGN); /* splice has no MSG_NOSIGNAL */
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    set_up(listener, congestion); /* what is accepted inherits it */
    if (bind(listener, (struct sockaddr *) &own, sizeof own) < 0 || listen(listener, BACKLOG) < 0)
        fail("listen");
    poller = epoll_create1(0);
    watch(listener, EPOLLIN, NULL);

    for (;;) {
        struct epoll_event events[EVENTS];
        int found = epoll_wait(poller, events, EVENTS, to_continue == NULL ? -1 : 0);
        for (int i = 0; i < found; i++) {
            if (events[i].data.ptr != NULL) {
                ready(events[i].data.ptr, events[i].events);
                continue;
            }
            int client;
            while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
                take(client, &backend, congestion);
        }
        struct session *session = to_continue;
        to_continue = NULL;
        while (session != NULL) {
            struct session *next = session->next;
            session->continued = false;
            if (session->closed) {
                session->next = to_free;
                to_free = session;
            } else {
                run(session, session->directions[0].again, session->directions[1].again);
            }
            session = next;
        }
        while (to_free != NULL) {
            struct session *next = to_free->next;
            free(to_free);
            to_free = next;
        }
    }
}

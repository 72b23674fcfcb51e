/* Descriptors in the event loop, with each mechanism. */
#include "check.h"
#include <sys/resource.h>
#include <sys/socket.h>

struct seen {
    int i, o, e, h;
    int fd;
};

static struct io_context *io;

static void on_i(void *ctx, int fd) { ((struct seen *)ctx)->i++, ((struct seen *)ctx)->fd = fd; }
static void on_o(void *ctx, int fd) { ((struct seen *)ctx)->o++, ((struct seen *)ctx)->fd = fd; }
static void on_e(void *ctx, int fd) { ((struct seen *)ctx)->e++, ((struct seen *)ctx)->fd = fd; }
static void on_h(void *ctx, int fd) { ((struct seen *)ctx)->h++, ((struct seen *)ctx)->fd = fd; }

static void watch(int fd, struct seen *seen)
{
    memset(seen, 0, sizeof *seen);
    io_register(io, fd, seen);
    io_set_cb_i(io, fd, (void *)on_i);
    io_set_cb_o(io, fd, (void *)on_o);
    io_set_cb_e(io, fd, (void *)on_e);
    io_set_cb_h(io, fd, (void *)on_h);
}

#define CHECK_SEEN(seen, I, O, E, H)  \
    do {                              \
        CHECK_INT((seen).i, I);       \
        CHECK_INT((seen).o, O);       \
        CHECK_INT((seen).e, E);       \
        CHECK_INT((seen).h, H);       \
    } while (0)

static void pair(int fd[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
        exit(2);
}

static void put(int fd)
{
    if (write(fd, "x", 1) != 1)
        exit(2);
}

static void properties(void)
{
    int fd[2], context, other;
    pair(fd);
    io_register(io, fd[0], &context);
    CHECK(io_get_ctx(io, fd[0]) == &context);
    CHECK_INT(io_is_invalid_i(io, fd[0]), 1);
    CHECK_INT(io_is_invalid_o(io, fd[0]), 1);
    CHECK_INT(io_is_invalid_e(io, fd[0]), 1);
    CHECK_INT(io_is_invalid_h(io, fd[0]), 1);
    CHECK_INT(io_want_read(io, fd[0]), 0);
    CHECK_INT(io_want_write(io, fd[0]), 0);
    io_set_cb_i(io, fd[0], (void *)on_i);
    io_set_cb_o(io, fd[0], (void *)on_o);
    io_set_cb_e(io, fd[0], (void *)on_e);
    io_set_cb_h(io, fd[0], (void *)on_h);
    CHECK(io_get_cb_i(io, fd[0]) == (void *)on_i);
    CHECK(io_get_cb_o(io, fd[0]) == (void *)on_o);
    CHECK(io_get_cb_e(io, fd[0]) == (void *)on_e);
    CHECK(io_get_cb_h(io, fd[0]) == (void *)on_h);
    CHECK_INT(io_is_invalid_i(io, fd[0]), 0);
    CHECK_INT(io_is_invalid_h(io, fd[0]), 0);
    io_set_i(io, fd[0]);
    io_set_i(io, fd[0]);
    io_set_o(io, fd[0]);
    CHECK(io_want_read(io, fd[0]) && io_want_write(io, fd[0]));
    io_clr_i(io, fd[0]);
    io_clr_o(io, fd[0]);
    CHECK(!io_want_read(io, fd[0]) && !io_want_write(io, fd[0]));
    io_set_i(io, fd[0]);
    io_set_o(io, fd[0]);
    io_clr_cb_i(io, fd[0]);
    io_clr_cb_o(io, fd[0]);
    io_clr_cb_e(io, fd[0]);
    io_clr_cb_h(io, fd[0]);
    CHECK(!io_want_read(io, fd[0]) && !io_want_write(io, fd[0]));
    CHECK(io_is_invalid_i(io, fd[0]) && io_is_invalid_o(io, fd[0]) && io_is_invalid_e(io, fd[0]) && io_is_invalid_h(io, fd[0]));

    /* Again, from the start. */
    io_set_cb_i(io, fd[0], (void *)on_i);
    io_set_i(io, fd[0]);
    io_register(io, fd[0], &other);
    CHECK(io_get_ctx(io, fd[0]) == &other);
    CHECK_INT(io_is_invalid_i(io, fd[0]), 1);
    CHECK_INT(io_want_read(io, fd[0]), 0);
    CHECK(io_unregister(io, fd[0]) == &other);
    CHECK(!io_get_ctx(io, fd[0]));

    /* Numbers that are no descriptors. */
    io_register(io, -1, &context);
    io_set_i(io, -1);
    io_set_o(io, -1);
    io_clr_i(io, -1);
    io_clr_o(io, -1);
    CHECK(!io_unregister(io, -1));
    CHECK_INT(io_close(io, -1), -1);
    CHECK_INT(io_is_invalid_i(io, -1), -1);
    CHECK_INT(io_is_invalid_o(io, -1), -1);
    CHECK_INT(io_is_invalid_e(io, -1), -1);
    CHECK_INT(io_is_invalid_h(io, -1), -1);

    io_register(io, fd[1], &context);
    CHECK_INT(io_close(io, fd[1]), 0);
    CHECK_INT(fcntl(fd[1], F_GETFD), -1);
    CHECK_INT(io_close(io, fd[1]), -1);
    close(fd[0]);
}

static void dispatch(void)
{
    struct seen seen;
    int fd[2];
    pair(fd);
    watch(fd[0], &seen);
    CHECK_INT(io_poll(io, 0), 0);
    io_set_i(io, fd[0]);
    CHECK_INT(io_poll(io, 0), 0);
    put(fd[1]);
    CHECK_INT(io_poll(io, 1000), 1);
    CHECK_SEEN(seen, 1, 0, 0, 0);
    CHECK_INT(seen.fd, fd[0]);
    /* Reported again, because nothing was read. */
    CHECK_INT(io_poll(io, 1000), 1);
    CHECK_SEEN(seen, 2, 0, 0, 0);
    /* One callback per round; reading goes first. */
    io_set_o(io, fd[0]);
    CHECK_INT(io_poll(io, 1000), 1);
    CHECK_SEEN(seen, 3, 0, 0, 0);
    io_clr_i(io, fd[0]);
    CHECK_INT(io_poll(io, 1000), 1);
    CHECK_SEEN(seen, 3, 1, 0, 0);
    io_clr_o(io, fd[0]);
    CHECK_INT(io_poll(io, 0), 0);
    CHECK_SEEN(seen, 3, 1, 0, 0);
    io_close(io, fd[0]);

    /* The peer has closed: reported as readable, if that is wanted. */
    watch(fd[1], &seen);
    io_set_i(io, fd[1]);
    CHECK_INT(io_poll(io, 1000), 1);
    CHECK_SEEN(seen, 1, 0, 0, 0);
    io_close(io, fd[1]);
}

static void hangups(const char *mechanism)
{
    struct seen seen;
    int fd[2];
    if (!strcmp(mechanism, "16"))
        return; /* select(2) does not tell of hang-ups */
    /* A pipe's reader gets a hang-up, its writer an error. */
    if (pipe(fd))
        exit(2);
    watch(fd[0], &seen);
    io_set_i(io, fd[0]);
    io_clr_i(io, fd[0]);
    close(fd[1]);
    CHECK(io_poll(io, 1000) >= 0);
    CHECK_SEEN(seen, 0, 0, 0, 1);
    io_close(io, fd[0]);

    if (pipe(fd))
        exit(2);
    watch(fd[1], &seen);
    io_set_o(io, fd[1]);
    io_clr_o(io, fd[1]);
    close(fd[0]);
    io_poll(io, 1000);
    CHECK_SEEN(seen, 0, 0, 1, 0);
    io_close(io, fd[1]);
}

/* Callbacks that change registrations. */
static int victims[2];
static struct seen victim_seen[2];

static void close_other(void *ctx, int fd)
{
    struct seen *seen = (struct seen *)ctx;
    int other = victims[fd == victims[0]];
    seen->i++;
    io_close(io, fd);
    io_close(io, other);
}

static void closing(void)
{
    int a[2], b[2];
    pair(a);
    pair(b);
    victims[0] = a[0];
    victims[1] = b[0];
    watch(a[0], &victim_seen[0]);
    watch(b[0], &victim_seen[1]);
    io_set_cb_i(io, a[0], (void *)close_other);
    io_set_cb_i(io, b[0], (void *)close_other);
    io_set_i(io, a[0]);
    io_set_i(io, b[0]);
    put(a[1]);
    put(b[1]);
    CHECK_INT(io_poll(io, 1000), 2);
    CHECK_INT(victim_seen[0].i + victim_seen[1].i, 1);
    CHECK_INT(io_poll(io, 0), 0);
    close(a[1]);
    close(b[1]);
}

/* A callback that reuses the descriptor's number for something new. */
static struct seen replaced;
static int replacement[2];

static void replace(void *ctx, int fd)
{
    ((struct seen *)ctx)->i++;
    io_close(io, fd);
    pair(replacement);
    watch(replacement[0], &replaced);
    io_set_i(io, replacement[0]);
}

static void replacing(void)
{
    struct seen seen;
    int fd[2];
    pair(fd);
    watch(fd[0], &seen);
    io_set_cb_i(io, fd[0], (void *)replace);
    io_set_i(io, fd[0]);
    put(fd[1]);
    io_poll(io, 1000);
    CHECK_INT(seen.i, 1);
    CHECK_INT(io_poll(io, 0), 0);
    CHECK_INT(replaced.i, 0);
    put(replacement[1]);
    io_poll(io, 1000);
    CHECK_INT(replaced.i, 1);
    CHECK_INT(seen.i, 1);
    io_close(io, replacement[0]);
    close(replacement[1]);
    close(fd[1]);
}

static void cloning(void)
{
    struct seen seen;
    int fd[2];
    pair(fd);
    watch(fd[0], &seen);
    io_set_i(io, fd[0]);
    int copy = dup(fd[0]);
    io_register(io, copy, &fd);
    io_clone(io, copy, fd[0]);
    CHECK(io_get_ctx(io, copy) == &seen);
    CHECK(io_get_cb_i(io, copy) == (void *)on_i && io_get_cb_h(io, copy) == (void *)on_h);
    CHECK(io_want_read(io, copy) && !io_want_write(io, copy));
    if (original)
        io_poll(io, 0); /* or it forgets the copy with the other one */
    io_close(io, fd[0]);
    put(fd[1]);
    CHECK_INT(io_poll(io, 1000), 1);
    CHECK_SEEN(seen, 1, 0, 0, 0);
    CHECK_INT(seen.fd, copy);
    io_close(io, copy);
    close(fd[1]);
}

static void unregistered(void)
{
    struct seen seen;
    int fd[2];
    pair(fd);
    /* Interest before registration, as a module of the C project does. */
    io_set_i(io, fd[0]);
    io_clr_i(io, fd[0]);
    watch(fd[0], &seen);
    io_set_i(io, fd[0]);
    put(fd[1]);
    io_poll(io, 1000);
    CHECK_INT(seen.i, 1);
    io_close(io, fd[0]);
    close(fd[1]);

    /* A file is always ready. */
    char *path = test_file("regular", "text");
    int file = open(path, O_RDONLY);
    watch(file, &seen);
    io_set_i(io, file);
    io_poll(io, 1000);
    io_poll(io, 1000);
    CHECK(seen.i >= 1);
    io_close(io, file);
    free(path);
}

static int freed;
static void free_context(void *ctx)
{
    ((struct seen *)ctx)->o = -1;
    freed++;
}

static struct seen inv;
static void no_callback(void *ctx, int fd) { (void)ctx, inv.i++, inv.fd = fd, io_clr_i(io, fd); }

static void replaced_invalid(void)
{
    int fd[2], context;
    memset(&inv, 0, sizeof inv);
    pair(fd);
    io_set_cb_inv_i(io, (void *)no_callback);
    io_set_cb_inv_o(io, (void *)on_o);
    io_set_cb_inv_e(io, (void *)on_e);
    io_set_cb_inv_h(io, (void *)on_h);
    io_register(io, fd[0], &context);
    CHECK(io_get_cb_i(io, fd[0]) == (void *)no_callback && io_get_cb_h(io, fd[0]) == (void *)on_h);
    CHECK_INT(io_is_invalid_i(io, fd[0]), 1);
    put(fd[1]);
    io_set_i(io, fd[0]);
    io_poll(io, 1000);
    CHECK_INT(inv.i, 1);
    CHECK_INT(inv.fd, fd[0]);
    io_close(io, fd[0]);
    close(fd[1]);
}

static void life(const char *mechanism)
{
    struct seen seen[2];
    int fd[2];
    setenv("IO_POLL_MECHANISM", mechanism, 1);
    io_now.tv_sec = 0;
    io = io_init();
    CHECK(io != NULL);
    CHECK(llabs((long long)io_now.tv_sec - (long long)time(NULL)) <= 1);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    /* select(2) has no room for more. */
    if (original || strcmp(mechanism, "16"))
        CHECK_INT(limit.rlim_cur, limit.rlim_max);
    CHECK(io_get_nfds_limit(io) > 0 && (rlim_t)io_get_nfds_limit(io) <= limit.rlim_max);
    CHECK_INT(io_get_nfds_limit(NULL), 0);
    properties();
    dispatch();
    hangups(mechanism);
    closing();
    replacing();
    cloning();
    unregistered();
    pair(fd);
    watch(fd[0], &seen[0]);
    watch(fd[1], &seen[1]);
    freed = 0;
    CHECK(!io_destroy(io, free_context));
    CHECK_INT(freed, 2);
    CHECK_INT(seen[0].o, -1);
    CHECK(fcntl(fd[0], F_GETFD) >= 0);
    close(fd[0]);
    close(fd[1]);
    CHECK(!io_destroy(NULL, NULL));
    io = io_init();
    replaced_invalid();
    CHECK(!io_destroy(io, NULL));
}

int main(void)
{
    char *text;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max > 4096)
        limit.rlim_max = 4096;
    limit.rlim_cur = limit.rlim_max < 256 ? limit.rlim_max : 256;
    setrlimit(RLIMIT_NOFILE, &limit);
    CHECK_INT(io_now.tv_sec, 0);
    init_common_data();
    capture_begin();
    life("4");
    text = capture_end();
    CHECK_HAS(text, "epoll event notification mechanism is being used\n");
    if (!original) { /* the original's poll and select abort if a descriptor is registered twice */
        life("8");
        life("16");
    }
    return check_result();
}

/* Timers of the event loop. */
#include "check.h"

static struct io_context *io;
static int runs[4];
static void *last_key;

static void count(int which, void *key, int fd)
{
    runs[which]++;
    last_key = key;
    CHECK_INT(fd, -1);
}
static void popping(void *key, int fd) { count(0, key, fd), io_sched_pop(io, key); }
static void renewing(void *key, int fd) { count(1, key, fd), io_sched_renew(io, key); }
static void staying(void *key, int fd) { count(2, key, fd); }
static void adding(void *key, int fd)
{
    count(3, key, fd);
    io_sched_pop(io, key);
    io_sched_add(io, key, (void *)popping, 0, 1000);
}

static long long now(void)
{
    struct timeval tv;
    gettimeofday(&tv, NULL);
    return tv.tv_sec * 1000LL + tv.tv_usec / 1000;
}

static void run_for(int milliseconds)
{
    long long end = now() + milliseconds, left;
    while ((left = end - now()) > 0) {
        int wait = io_sched_exec(io);
        io_poll(io, wait < 0 || wait > left ? (int)left : wait);
    }
    io_sched_exec(io); /* what has become due while it waited for the last time */
}

/* Runs the loop until something was called this often, or for ten seconds. */
static void run_until(int *calls, int expected)
{
    long long end = now() + 10000;
    while (*calls < expected && now() < end) {
        int wait = io_sched_exec(io);
        if (*calls < expected)
            io_poll(io, wait < 0 || wait > 100 ? 100 : wait);
    }
    CHECK(*calls >= expected);
}

static void due(void)
{
    int key;
    memset(runs, 0, sizeof runs);
    CHECK_INT(io_sched_exec(io), -1);
    io_sched_add(io, &key, (void *)popping, 0, 400000);
    long long start = now();
    int wait = io_sched_exec(io);
    CHECK(wait > 0 && wait <= 401);
    CHECK_INT(runs[0], 0);
    run_until(&runs[0], 1);
    CHECK_INT(runs[0], 1);
    CHECK(last_key == &key);
    CHECK(now() - start >= wait - 2);
    CHECK_INT(io_sched_exec(io), -1);

    /* At once. */
    io_sched_add(io, &key, (void *)popping, 0, 0);
    run_until(&runs[0], 2);
    CHECK_INT(runs[0], 2);

    /* A timer stays until it is removed. */
    io_sched_add(io, &key, (void *)staying, 0, 0);
    run_until(&runs[2], 3);
    io_sched_drop(io, &key);
    CHECK_INT(io_sched_exec(io), -1);

    io_sched_add(io, &key, (void *)renewing, 0, 5000);
    run_for(60);
    CHECK(runs[1] >= 1 && runs[1] <= 13);
    io_sched_drop(io, &key);
    io_sched_add(io, &key, (void *)adding, 0, 1000);
    run_until(&runs[0], 3);
    CHECK_INT(runs[3], 1);
    CHECK_INT(runs[0], 3);
    CHECK_INT(io_sched_exec(io), -1);
}

static void stacks(void)
{
    int key, other;
    CHECK(!io_sched_peek(io, &key));
    CHECK(!io_sched_peek_time(io, &key));
    CHECK(!io_sched_pop(io, &key));
    CHECK_INT(io_sched_del(io, &key, (void *)popping), 0);
    CHECK_INT(io_sched_renew(io, &key), -1);
    io_sched_drop(io, &key);

    io_sched_add(io, &key, (void *)popping, 100, 0);
    io_sched_add(io, &key, (void *)renewing, 200, 0);
    io_sched_app(io, &key, (void *)staying, 300, 0);
    io_sched_app(io, &other, (void *)adding, 50, 0);
    CHECK(io_sched_peek(io, &key) == (void *)renewing);
    CHECK(io_sched_peek(io, &other) == (void *)adding);
    /* Adding the others looked at the clock again, and a second may have ended. */
    long left = io_sched_peek_time(io, &key)->tv_sec - io_now.tv_sec;
    CHECK(left == 200 || left == 199);
    CHECK_INT(io_sched_renew_proc(io, &key, (void *)popping), -1);
    CHECK_INT(io_sched_renew_proc(io, &key, (void *)renewing), 0);
    CHECK_INT(io_sched_renew(io, &key), 0);
    /* Popping returns the function that is first now, and starts its time. */
    CHECK(io_sched_pop(io, &key) == (void *)popping);
    CHECK(io_sched_peek(io, &key) == (void *)popping);
    CHECK_INT(io_sched_peek_time(io, &key)->tv_sec - io_now.tv_sec, 100);
    CHECK(io_sched_pop(io, &key) == (void *)staying);
    CHECK(!io_sched_pop(io, &key));
    CHECK(!io_sched_peek(io, &key));

    io_sched_add(io, &key, (void *)staying, 1, 0);
    io_sched_add(io, &key, (void *)popping, 1, 0);
    io_sched_add(io, &key, (void *)staying, 1, 0);
    io_sched_add(io, &key, (void *)renewing, 1, 0);
    CHECK_INT(io_sched_del(io, &key, (void *)adding), 0);
    /* It is not the first: everything due later is removed. */
    CHECK_INT(io_sched_del(io, &key, (void *)staying), -1);
    CHECK(io_sched_peek(io, &key) == (void *)renewing);
    CHECK(io_sched_pop(io, &key) == (void *)popping);
    CHECK_INT(io_sched_del(io, &key, (void *)popping), -1);
    CHECK(!io_sched_peek(io, &key));
    CHECK(io_sched_peek(io, &other) == (void *)adding);
    while (io_sched_pop(io, &other))
        ;
    CHECK_INT(io_sched_exec(io), -1);
}

static void many(void)
{
    /* Equal times for all, microseconds above a million, and the time of the next timer. */
    int keys[200];
    memset(runs, 0, sizeof runs);
    for (int i = 0; i < 200; i++)
        io_sched_add(io, &keys[i], (void *)popping, 0, 10000);
    for (int i = 0; i < 200; i += 4)
        io_sched_drop(io, &keys[i]);
    run_for(60);
    CHECK_INT(runs[0], 150);

    io_sched_add(io, &keys[0], (void *)popping, 5, 999999);
    struct timeval *at = io_sched_peek_time(io, &keys[0]);
    CHECK(at && at->tv_usec <= 1000000 && at->tv_sec - io_now.tv_sec >= 5 && at->tv_sec - io_now.tv_sec <= 6);
    io_sched_add(io, &keys[1], (void *)popping, 100, 0);
    int wait = io_sched_exec(io);
    CHECK(wait > 4000 && wait <= 6001);
    io_sched_drop(io, &keys[0]);
    wait = io_sched_exec(io);
    CHECK(wait > 90000 && wait <= 100001);
    io_sched_drop(io, &keys[1]);
}

int main(void)
{
    init_common_data();
    io = io_init();
    due();
    stacks();
    many();
    io_destroy(io, NULL);
    return check_result();
}

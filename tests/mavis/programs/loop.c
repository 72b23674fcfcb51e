/* The event loop as a whole: how it runs, and how it ends a process. */
#include "check.h"
#include <sys/socket.h>

static struct io_context *io;

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

static void invalid_callback(void *arg)
{
    int fd[2];
    (void)arg;
    io = io_init();
    pair(fd);
    io_register(io, fd[0], &fd);
    put(fd[1]);
    io_set_i(io, fd[0]);
    io_poll(io, 1000);
}

static void no_mechanism(void *arg)
{
    (void)arg;
    setenv("IO_POLL_MECHANISM", "0", 1);
    io_init();
}

static void leave(void *ctx, int fd) { (void)ctx, (void)fd, _exit(io_now.tv_sec > 1000000 ? 42 : 43); }

static void run_main(void *arg)
{
    int fd[2];
    (void)arg;
    io = io_init();
    pair(fd);
    io_register(io, fd[0], &fd);
    io_set_cb_i(io, fd[0], (void *)leave);
    io_set_i(io, fd[0]);
    put(fd[1]);
    io_main(io);
}

/* Waits until a process sleeps (S) or is stopped (T), as far as that is visible. */
static void wait_for_state(pid_t pid, char state)
{
    char path[64], *text, *end;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    for (int i = 0; i < 10000; i++) {
        text = file_text(path);
        end = text ? strrchr(text, ')') : NULL;
        int is_reached = !end || (end[1] == ' ' && end[2] == state);
        free(text);
        if (is_reached)
            return;
        poll(NULL, 0, 1);
    }
}

static void interrupted(void *arg)
{
    /* A process that was stopped and continued goes on; in the original, epoll_wait fails for good after that. */
    pid_t parent = getpid(), child;
    (void)arg;
    io = io_init();
    child = fork();
    if (!child) {
        wait_for_state(parent, 'S');
        kill(parent, SIGSTOP);
        wait_for_state(parent, 'T');
        kill(parent, SIGCONT);
        _exit(0);
    }
    io_poll(io, 300);
    waitpid(child, NULL, 0);
}

int main(void)
{
    static const char *const mechanisms[] = { "4", "8", "16" };
    char *text;
    init_common_data();
    for (int i = 0; i < 3; i++) {
        setenv("IO_POLL_MECHANISM", mechanisms[i], 1);
        CHECK_INT(in_child(invalid_callback, NULL, &text), 256 + SIGABRT);
        CHECK_HAS(text, "io_invalid_i (");
        free(text);
        CHECK_INT(in_child(run_main, NULL, NULL), 42);
        if (!original || i)
            CHECK_INT(in_child(interrupted, NULL, NULL), RETURNED);
    }
    CHECK_INT(in_child(no_mechanism, NULL, NULL), 256 + SIGABRT);
    return check_result();
}

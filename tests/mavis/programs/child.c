/* Child processes. */
#include "check.h"
#include <misc/io_child.h>

static pid_t ended;
static int ended_status, ended_times;
static void *ended_ctx;

static void on_end(pid_t pid, void *ctx, int status)
{
    ended = pid;
    ended_ctx = ctx;
    ended_status = status;
    ended_times++;
}

static void on_end_too(pid_t pid, void *ctx, int status)
{
    on_end(pid, ctx, status);
    ended_times += 100;
}

/* Starts a child that ends with a given status when its pipe is closed. */
static int go_on;
static pid_t start(void (*fn)(pid_t, void *, int), void *ctx, int status)
{
    int pipes[2];
    char byte;
    if (pipe(pipes))
        exit(2);
    pid_t pid = io_child_fork(fn, ctx);
    CHECK(pid >= 0);
    if (pid == 0) {
        close(pipes[1]);
        if (read(pipes[0], &byte, 1) < 0)
            _exit(99);
        io_child_reap();
        _exit(status);
    }
    close(pipes[0]);
    go_on = pipes[1];
    return pid;
}

/* Waits until the child has ended, without taking its status, and then reaps. */
static void finish(pid_t pid)
{
    siginfo_t info;
    close(go_on);
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
    io_child_reap();
    CHECK_INT(waitpid(pid, NULL, WNOHANG), -1);
}

int main(void)
{
    int context, other;
    init_common_data();
    io_child_reap();
    pid_t pid = start(on_end, &context, 7);
    io_child_reap();
    CHECK_INT(ended_times, 0);
    finish(pid);
    CHECK_INT(ended_times, 1);
    CHECK_INT(ended, pid);
    CHECK(ended_ctx == &context);
    CHECK(WIFEXITED(ended_status) && WEXITSTATUS(ended_status) == 7);

    ended_times = 0;
    pid = start(on_end, &context, 0);
    io_child_set(pid, on_end_too, &other);
    finish(pid);
    CHECK_INT(ended_times, 101);
    CHECK(ended_ctx == &other);

    ended_times = 0;
    pid = start(on_end, &context, 0);
    io_child_ign(pid);
    finish(pid);
    CHECK_INT(ended_times, 0);

    /* No function, and an unknown process. */
    io_child_set(999999, on_end, NULL);
    io_child_ign(999999);
    pid = start(NULL, NULL, 0);
    io_child_ign(pid);
    finish(pid);
    if (!original) {
        pid = start(NULL, NULL, 0);
        finish(pid);
    }
    CHECK_INT(ended_times, 0);

    /* Killed. */
    pid = start(on_end, &context, 0);
    kill(pid, SIGKILL);
    finish(pid);
    CHECK_INT(ended_times, 1);
    CHECK(WIFSIGNALED(ended_status) && WTERMSIG(ended_status) == SIGKILL);
    return check_result();
}

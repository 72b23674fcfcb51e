/* Programs that run as one process with their broker. The broker part counts connections by what the program says in
 * common_data, because some programs report the end of a connection with SCM_DONE and some do not. */
#include "check.h"
#include <arpa/inet.h>
#include <mavis/scm.h>
#include <misc/io_sched.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

/* How a test program behaves. */
struct manner {
    const char *spawn; /* in the section of the broker */
    int max;           /* what it says with SCM_MAX, or 0 */
    int tells;         /* it sends SCM_DONE */
};

static char *program;
static int port;
static const struct manner *manner;

static void done(void *context, int fd)
{
    struct scm_data data = { SCM_DONE, 1 };
    (void)context;
    io_close(common_data.io, fd);
    common_data.users_cur--;
    if (manner->tells)
        common_data.scm_send_msg(0, &data, -1);
}

/* A client that has closed has nothing more to say. */
static void readable(void *context, int fd)
{
    char room[16];
    if (read(fd, room, sizeof room) < 1)
        done(context, fd);
}

static void greet(int fd, struct scm_data_accept *data)
{
    (void)data;
    common_data.users_cur++;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    io_register(common_data.io, fd, &port);
    io_set_cb_i(common_data.io, fd, (void *)readable);
    io_set_cb_e(common_data.io, fd, (void *)done);
    io_set_cb_h(common_data.io, fd, (void *)done);
    io_set_i(common_data.io, fd);
    if (write(fd, "+", 1) != 1)
        exit(3);
}

static void serve(const char *config)
{
    char *argv[] = { program, strdup("-f"), strdup(config), NULL };
    struct rlimit few = { 64, 64 };
    setrlimit(RLIMIT_NOFILE, &few);
    scm_main(3, argv, environ);
    CHECK_INT(common_data.singleprocess, 1);
    common_data.scm_accept = greet;
    if (manner->max) {
        struct scm_data data = { SCM_MAX, manner->max };
        common_data.scm_send_msg(0, &data, -1);
    }
    io_main(common_data.io);
}

static int connected(void)
{
    struct sockaddr_in address;
    struct timeval patience = { 20, 0 };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short)port);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (!connect(fd, (struct sockaddr *)&address, sizeof address))
        return fd;
    close(fd);
    return -1;
}

/* Finds a free port by binding a socket, which it then closes. */
static int free_port(void)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || getsockname(fd, (struct sockaddr *)&address, &length))
        exit(2);
    close(fd);
    return ntohs(address.sin_port);
}

static pid_t start(const struct manner *how)
{
    char text[512];
    manner = how;
    port = free_port();
    snprintf(text, sizeof text, "id = spawnd { single process = yes listen = { address = 127.0.0.1 port = %d } %s }", port, how->spawn);
    char *config = test_file("single.cfg", text);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        alarm(100);
        serve(config);
        _exit(3);
    }
    for (int i = 0, fd; i < 1000; i++) {
        if ((fd = connected()) >= 0) {
            close(fd);
            return pid;
        }
        struct timespec moment = { 0, 20000000 };
        nanosleep(&moment, NULL);
    }
    printf("nobody serves\n");
    exit(1);
}

static void stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* Whether the connection is served within `patience` milliseconds. */
static int is_served(int fd, int patience)
{
    struct pollfd ready = { fd, POLLIN, 0 };
    char byte = 0;
    return poll(&ready, 1, patience) == 1 && read(fd, &byte, 1) == 1 && byte == '+';
}

#define LONG 20000
#define SHORT 500

/* Many more connections than it may have at a time, one after the other. */
static void one_after_the_other(const struct manner *how)
{
    pid_t pid = start(how);
    int i = 0;
    for (; i < 150; i++) {
        int fd = connected();
        if (fd < 0 || !is_served(fd, LONG))
            break;
        close(fd);
    }
    CHECK_INT(i, 150);
    stop(pid);
}

/* All connections up to the limit are served. When one ends, exactly one more is. */
static void at_once(const struct manner *how, int limit)
{
    enum { MORE = 3 };
    pid_t pid = start(how);
    int fds[64];
    for (int i = 0; i < limit + MORE; i++)
        CHECK((fds[i] = connected()) >= 0);
    for (int i = 0; i < limit; i++)
        CHECK(is_served(fds[i], LONG));
    CHECK(!is_served(fds[limit], SHORT));
    if (!original) /* the original never goes on after it was full */
        for (int i = 0; i < MORE; i++) {
            close(fds[i]);
            CHECK(is_served(fds[limit + i], LONG));
            if (i + 1 < MORE)
                CHECK(!is_served(fds[limit + i + 1], SHORT));
        }
    stop(pid);
}

int main(int argc, char **argv)
{
    (void)argc;
    program = argv[0];
    static const struct manner silent = { "syslog facility = NOPE", 0, 0 }, telling = { "", 40, 1 };
    one_after_the_other(&silent);
    one_after_the_other(&telling);
    static const struct manner configured = { "spawn { instances max = 2 users max = 2 }", 0, 0 };
    at_once(&configured, 4);
    /* The limit that the program announces counts, whether it is lower or higher. */
    static const struct manner less = { "", 3, 1 }, more = { "spawn { instances max = 1 users max = 2 }", 6, 0 };
    at_once(&less, 3);
    at_once(&more, 6);
    return check_result();
}

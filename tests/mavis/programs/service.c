/* A program with a broker and workers, from its clients' point of view: a worker greets each of them. */
#include "check.h"
#include <arpa/inet.h>
#include <mavis/scm.h>
#include <misc/io_sched.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>

static int channel;

static void end(void *context, int fd)
{
    (void)context;
    (void)fd;
    exit(0);
}

/* A message from the broker. */
static void message(void *context, int fd)
{
    union {
        struct scm_data_accept accept;
        char room[1024];
    } received;
    struct scm_data done = { SCM_DONE, 1 };
    int client = -1;
    if (scm_recv_msg(fd, &received.accept, sizeof received, &client) || received.accept.type != SCM_ACCEPT)
        end(context, fd);
    if (write(client, "+", 1) != 1)
        exit(3);
    close(client);
    if (scm_send_msg(fd, &done, -1))
        exit(3);
}

static void section(struct sym *sym)
{
    while (sym->code != S_closebra)
        parse_common(sym);
}

/* The broker does not return from scm_main(). */
static void serve(int argc, char **argv, char **envp)
{
    struct scm_data most = { SCM_MAX, 10 };
    scm_main(argc, argv, envp);
    common_data.io = io_init();
    cfg_read_config(common_data.conffile, section, T("service"));
    channel = dup(0);
    fcntl(channel, F_SETFL, O_NONBLOCK);
    io_register(common_data.io, channel, &channel);
    io_set_cb_i(common_data.io, channel, (void *)message);
    io_set_cb_e(common_data.io, channel, (void *)end);
    io_set_cb_h(common_data.io, channel, (void *)end);
    io_set_i(common_data.io, channel);
    if (scm_send_msg(channel, &most, -1))
        exit(3);
    io_main(common_data.io);
}

/* Whether somebody accepts and greets. */
static int is_greeted(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), greeted = 0;
    char byte = 0;
    if (!connect(fd, (const struct sockaddr *)address, sizeof *address)) {
        struct pollfd ready = { fd, POLLIN, 0 };
        greeted = poll(&ready, 1, 60000) == 1 && read(fd, &byte, 1) == 1 && byte == '+';
    }
    close(fd);
    return greeted;
}

int main(int argc, char **argv, char **envp)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    struct timespec moment = { 0, 20000000 };
    char text[256];
    int status = 0, greeted = 0;
    if (argc > 1) {
        serve(argc, argv, envp);
        return 3;
    }
    /* Finds a free port by binding a socket, which it then closes. */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || getsockname(fd, (struct sockaddr *)&address, &length))
        return 2;
    close(fd);
    snprintf(text, sizeof text,
             "id = spawnd { listen = { address = 127.0.0.1 port = %d } spawn { instances min = 1 instances max = 2 } }"
             "id = service { }",
             ntohs(address.sin_port));
    char *config = test_file("service.cfg", text);
    pid_t pid = fork();
    if (!pid) {
        alarm(100);
        execl(argv[0], argv[0], "-f", config, NULL);
        _exit(3);
    }
    for (int i = 0; i < 1500 && !greeted; i++) {
        greeted = is_greeted(&address);
        nanosleep(&moment, NULL);
    }
    for (int i = 0; i < 30 && greeted; i++)
        greeted = is_greeted(&address);
    CHECK(greeted);
    kill(pid, SIGTERM);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    return check_result();
}

/* The broker's insides: configuration, listeners, workers. */
#include "check.h"
#include <arpa/inet.h>
#include <limits.h>
#include <mavis/internal.h>
#include <mavis/scm.h>
#include <mavis/spawnd_headers.h>
#include <sys/socket.h>

static struct spawnd_context *listener(int index)
{
    return spawnd_data.listener_arr[index];
}

static void contexts(void)
{
    struct spawnd_context *ctx = spawnd_new_context(common_data.io), *second = spawnd_new_context(common_data.io);
    CHECK(ctx->io == common_data.io);
    CHECK_INT(ctx->fn, -1);
    CHECK(ctx->keepcnt == -1 && ctx->keepidle == -1 && ctx->keepintvl == -1);
    CHECK(!ctx->is_listener && !ctx->dying && !ctx->use && !ctx->tag_len && !ctx->tls_versions);
    free(ctx);

    sockaddr_union su;
    int before = spawnd_data.listeners_max;
    su_pton_p(&su, T("192.0.2.1"), 77);
    CHECK_INT(spawnd_note_listener(&su, second), 0);
    CHECK_INT(spawnd_data.listeners_max, before + 1);
    CHECK(listener(before) != NULL);
    CHECK(su_equal(&listener(before)->sa, &su));
    spawnd_data.listeners_max = before;
}

static void declarations(void)
{
    char config[4096];
    snprintf(config, sizeof config,
             "listen = { address = 127.0.0.1 port = 4949 realm = one backlog = 5 haproxy = yes tls = yes }\n"
             "listen { path = %s/sock mode = 600 flag = access }\n"
             "listen = { address = ::1 port = 4950 tls = TLSv1.2,TLSv1.3 tcp keepalive count = 3 }\n"
             "background = no bind retry delay = 3 overload = reset pidfile = %s/pid.file tcp keepalive idle = 30\n"
             "spawn { instances min = 3 instances max = 7 users min = 11 users max = 22 exec = /bin/true id = child config = /etc/c }\n"
             "}",
             getenv("TEST_DIR"), getenv("TEST_DIR"));
    struct sym *sym = sym_of(config);
    spawnd_parse_decls(sym);
    CHECK_INT(sym->code, S_closebra);
    sym_done(sym);
    CHECK_INT(spawnd_data.listeners_max, 3);
    if (spawnd_data.listeners_max != 3)
        return;
    CHECK_INT(su_get_port(&listener(0)->sa), 4949);
    CHECK_INT(listener(0)->sa.sa.sa_family, AF_INET);
    CHECK_TEXT(listener(0)->tag, "one");
    CHECK_INT(listener(0)->listen_backlog, 5);
    CHECK_INT(listener(0)->tls_versions, 0x0403);
    CHECK_INT(listener(0)->sd_flags & SCM_FLAG_HAPROXY, SCM_FLAG_HAPROXY);
    CHECK_INT(listener(1)->sa.sa.sa_family, AF_UNIX);
    CHECK_INT(listener(1)->mode, 0600);
    /* The system's maximum; the original has 128. */
    CHECK_INT(listener(1)->listen_backlog, original ? 128 : INT_MAX);
    CHECK_INT(listener(2)->sa.sa.sa_family, AF_INET6);
    CHECK_INT(listener(2)->tls_versions, 0x0304);
    CHECK_INT(listener(2)->keepcnt, 3);
    CHECK_INT(spawnd_data.background, 0);
    CHECK_INT(spawnd_data.retry_delay, 3);
    CHECK_INT(spawnd_data.overload, S_reset);
    CHECK_INT(spawnd_data.keepidle, 30);
    CHECK_HAS(spawnd_data.pidfile, "/pid.file");
    CHECK_INT(common_data.servers_min, 3);
    CHECK_INT(common_data.servers_max, 7);
    CHECK_INT(common_data.users_min, 11);
    CHECK_INT(common_data.users_max, 22);
    CHECK_TEXT(spawnd_data.child_path, "/bin/true");
    CHECK_TEXT(spawnd_data.child_id, "child");
    CHECK_TEXT(spawnd_data.child_config, "/etc/c");
    CHECK_PARSE_ERROR("bogus = 1 }", spawnd_parse_decls(sym), "but got 'bogus'");
    CHECK_PARSE_ERROR("listen = { bogus }", spawnd_parse_decls(sym), "but got 'bogus'");
}

static void acl(void)
{
    sockaddr_union inside, outside;
    su_pton(&inside, T("10.1.2.3"));
    su_pton(&outside, T("192.0.2.1"));
    CHECK(spawnd_acl_check(&inside) != 0);
    if (original)
        return; /* permit and deny crash its parser */
    struct sym *sym = sym_of("deny 10.1.2.0/24 permit 10.0.0.0/8 }");
    spawnd_parse_decls(sym);
    sym_done(sym);
    CHECK(!spawnd_acl_check(&inside));
    CHECK(!spawnd_acl_check(&outside));
    su_pton(&inside, T("10.2.2.3"));
    CHECK(spawnd_acl_check(&inside) != 0);
}

/* This program as a worker: it greets one client with the realm of its listener. */
static int worker(void)
{
    struct scm_data max = { SCM_MAX, 5 };
    struct scm_data_accept message;
    int fd = -1;
    if (scm_send_msg(0, &max, -1))
        return 1;
    free(test_file("worker.ready", ""));
    do {
        struct pollfd ready = { 0, POLLIN, 0 };
        if (poll(&ready, 1, 10000) != 1 || scm_recv_msg(0, &message, sizeof message, &fd))
            return 1;
    } while (message.type != SCM_ACCEPT);
    return write(fd, message.realm, strlen(message.realm)) < 0;
}

/* A bound listener, and a client that reaches the worker. */
static void serving(void *arg)
{
    sockaddr_union su;
    socklen_t length = sizeof su;
    char greeting[32] = "";
    (void)arg;
    common_data.io = io_init();
    common_data.progname = T("prog");
    common_data.users_min = common_data.users_max = common_data.users_max_total = 5;
    common_data.servers_min = common_data.servers_max = 1;
    memset(&spawnd_data, 0, sizeof spawnd_data);
    spawnd_data.overload = S_queue;
    spawnd_data.child_config = T("worker");
    spawnd_data.child_id = T("child");
    get_exec_path(&spawnd_data.child_path, T("prog"));
    spawnd_data.server_arr = (struct spawnd_server **)calloc(2, sizeof(void *));

    struct spawnd_context *ctx = spawnd_new_context(common_data.io);
    su_pton_p(&su, T("127.0.0.1"), 0);
    ctx->socktype = SOCK_STREAM;
    ctx->listen_backlog = 8;
    strcpy(ctx->tag, "tagged");
    ctx->tag_len = 6;
    spawnd_note_listener(&su, ctx);
    ctx = listener(0);
    spawnd_add_child();
    CHECK_INT(common_data.servers_cur, 1);
    spawnd_bind_listener(ctx, -1);
    CHECK(ctx->fn >= 0);
    CHECK(!getsockname(ctx->fn, &su.sa, &length) && su_get_port(&su));
    CHECK(io_get_cb_i(common_data.io, ctx->fn) == (void *)spawnd_accepted);
    CHECK_INT(io_want_read(common_data.io, ctx->fn), 1);
    /* The worker has announced how many clients it takes, and the broker has read that. */
    char *ready = test_path("worker.ready");
    for (int i = 0; i < 1000 && access(ready, F_OK); i++)
        io_poll(common_data.io, 10);
    for (int i = 0; i < 5; i++)
        io_poll(common_data.io, 10);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_INT(connect(client, &su.sa, sizeof su.sin), 0);
    for (int i = 0; i < 200 && recv(client, greeting, sizeof greeting - 1, MSG_DONTWAIT) <= 0; i++) {
        io_sched_exec(common_data.io);
        io_poll(common_data.io, 50);
    }
    CHECK_TEXT(greeting, "tagged");
    spawnd_adjust_tracking(0, -1);
    spawnd_adjust_tracking(3, 2);
    /* The worker must not outlive this process. */
    _exit(check_failures ? 101 : RETURNED);
}

static void cleaning(void *arg)
{
    int pair[2];
    (void)arg;
    common_data.io = io_init();
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
        _exit(2);
    struct spawnd_context *ctx = spawnd_new_context(common_data.io);
    ctx->fn = pair[0];
    io_register(common_data.io, pair[0], ctx);
    spawnd_cleanup_internal(ctx, pair[0]);
    CHECK_INT(fcntl(pair[0], F_GETFD), -1);
}

/* Starts a worker: a program whose descriptor 0 leads to us. */
static void spawning(void *arg)
{
    pid_t pid = 0;
    int status;
    struct scm_data data;
    (void)arg;
    common_data.io = io_init();
    common_data.progname = T("prog");
    common_data.singleprocess = 0;
    char *script = test_file("worker.sh", "#!/bin/sh\ntest -S /proc/self/fd/0 && echo \"$@\" > \"$TEST_DIR/worker.args\"\nexit 7\n");
    chmod(script, 0755);
    memset(&spawnd_data, 0, sizeof spawnd_data);
    spawnd_data.child_path = script;
    spawnd_data.child_config = T("/etc/child.cfg");
    spawnd_data.child_id = T("child");
    int fd = spawnd_spawn_child(&pid);
    CHECK(fd >= 0 && pid > 0);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    char *path = test_path("worker.args");
    CHECK_TEXT(file_text(path), "/etc/child.cfg child\n");
    CHECK(recv(fd, &data, sizeof data, MSG_DONTWAIT) <= 0);
    spawnd_data.server_arr = NULL;
}

static void signals(void *arg)
{
    struct sigaction action;
    (void)arg;
    common_data.io = io_init();
    spawnd_setup_signals();
    spawnd_process_signals();
    sigaction(SIGHUP, NULL, &action);
    CHECK(action.sa_handler != SIG_DFL);
    sigaction(SIGTERM, NULL, &action);
    CHECK(action.sa_handler != SIG_DFL);
    sigaction(SIGUSR1, NULL, &action);
    CHECK(action.sa_handler != SIG_DFL);
}

static void run_main(void *arg)
{
    char **argv = (char **)arg;
    int argc = 0;
    while (argv[argc])
        argc++;
    optind = 1;
    common_data.progname = T("prog");
    dup2(2, 1);
    spawnd_main(argc, argv, environ, T("spawnd"));
}

static void mains(void)
{
    /* Titles are written over the arguments. */
    char *text, *usage[] = { strdup("prog"), strdup("-Q"), NULL };
    char *empty[] = { strdup("prog"), test_file("empty.cfg", "id = spawnd { }\n"), NULL };
    CHECK_INT(in_child(run_main, usage, &text), 64);
    CHECK_INT(in_child(run_main, empty, &text), 71);
    CHECK_HAS(text, "FATAL: No listeners defined.");
}

/* Shows what went to stderr if something failed. */
static void run(const char *name, void (*fn)(void *))
{
    char *text;
    int status = in_child(fn, NULL, &text);
    if (status != RETURNED) {
        check_failures++;
        printf("%s: expected to return, got %d: %s\n", name, status, text);
    }
    free(text);
}

int main(int argc, char **argv)
{
    init_common_data();
    if (argc > 1 && !strcmp(argv[1], "worker"))
        return worker();
    common_data.io = io_init();
    mains();
    contexts();
    acl();
    declarations();
    run("serving", serving);
    run("cleaning", cleaning);
    run("spawning", spawning);
    run("signals", signals);
    return check_result();
}

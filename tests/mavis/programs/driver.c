/* Sends queries through a chain of modules, as a program with an event loop does, and prints the answers:
 *
 *     driver [-s] [-w MILLISECONDS] CONFIG ID QUERY...
 *
 * A QUERY is NAME=VALUE;NAME=VALUE... With a `!` in front it is cancelled at once. Each gets a TIMESTAMP of its own
 * unless it has one. -s: run without an event loop. -w: how long to wait for all answers.
 *
 * Prints `send N RESULT`, `recv N RESULT` and `cancel N RESULT`, with the attributes indented, and at the end how
 * many queries have no answer. */
#include "check.h"

struct query {
    int number;
    int is_pending;
};

static mavis_ctx *chain;
static struct io_context *io;
static int pending;

static void show(const char *what, struct query *query, int result, av_ctx *ac)
{
    printf("%s %d %d%s\n", what, query->number, result, ac ? "" : " none");
    for (int i = 0; ac && i < AV_A_ARRAYSIZE; i++)
        if (i != AV_A_TIMESTAMP && i != AV_A_SERIAL && av_get(ac, i))
            printf("    %s = %s\n", av_char[i].name, av_get(ac, i));
}

static void settle(struct query *query)
{
    if (query->is_pending) {
        query->is_pending = 0;
        pending--;
    }
}

static void on_answer(void *app_ctx)
{
    struct query *query = (struct query *)app_ctx;
    av_ctx *ac = NULL;
    int result = mavis_recv(chain, &ac, query);
    show("recv", query, result, ac);
    if (result != MAVIS_DEFERRED) {
        settle(query);
        av_free(ac);
    }
}

static void section(struct sym *sym)
{
    while (sym->code != S_closebra) {
        parse(sym, S_mavis);
        switch (sym->code) {
        case S_path:
            parse_mavispath(sym);
            break;
        case S_module:
            if (parse_mavismodule(&chain, io, sym)) {
                printf("module not loaded\n");
                exit(3);
            }
            break;
        default:
            parse_error_expect(sym, S_path, S_module, S_unknown);
        }
    }
}

static void send_query(int number, char *text)
{
    static struct query queries[1000];
    struct query *query = &queries[number];
    av_ctx *ac = av_new((void *)on_answer, query);
    int is_cancelled = *text == '!';
    query->number = number;
    av_setf(ac, AV_A_TIMESTAMP, T("driver-%d-%d"), (int)getpid(), number);
    text = strdup(text + is_cancelled);
    for (char *field = strtok(text, ";"); field; field = strtok(NULL, ";")) {
        char *value = strchr(field, '=');
        *value++ = 0;
        av_set(ac, av_attribute_to_i(field), value);
    }
    query->is_pending = 1;
    pending++;
    int result = mavis_send(chain, &ac);
    show("send", query, result, ac);
    if (result != MAVIS_DEFERRED)
        settle(query);
    av_free(ac);
    free(text);
    if (is_cancelled) {
        printf("cancel %d %d\n", number, mavis_cancel(chain, query));
        settle(query);
    }
}

static long long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    int option, synchronous = 0;
    long long wait = 10000;
    while ((option = getopt(argc, argv, "sw:")) != -1)
        if (option == 's')
            synchronous = 1;
        else if (option == 'w')
            wait = atoi(optarg);
        else
            return 64;
    if (argc - optind < 2)
        return 64;
    init_common_data();
    if (!synchronous)
        io = io_init();
    cfg_read_config(argv[optind], section, argv[optind + 1]);
    printf("init %d\n", mavis_init(chain, T(MAVIS_API_VERSION), T(MAVIS_TOKEN_VERSION)));
    for (int i = optind + 2; i < argc; i++)
        send_query(i - optind - 1, argv[i]);
    long long end = milliseconds() + wait;
    while (pending > 0 && io && milliseconds() < end) {
        int next = io_sched_exec(io);
        if (pending > 0)
            io_poll(io, next < 0 || next > 50 ? 50 : next);
    }
    printf("pending %d\n", pending);
    mavis_drop(chain);
    io_destroy(io, NULL);
    printf("dropped\n");
    return 0;
}

/* A module that answers later.
 *
 *     user NAME = ANSWER, default = ANSWER      see answers.h; ACK without them
 *     delay = N                                 milliseconds, 10 without it
 *     buffer = BOOL                             the answer comes through a pipe that becomes readable,
 *                                               and not by a timer alone
 *
 * Without an event loop it waits in one of its own and answers at once. */
#define MAVIS_NAME "later"
#define MAVIS_CTX_PRIVATE   \
    struct answer *answers; \
    rb_tree_t *queries;     \
    int delay;              \
    int by_pipe;            \
    int own_loop;

#define HAVE_mavis_new
#define HAVE_mavis_parse_in
#define HAVE_mavis_send_in
#define HAVE_mavis_recv_in
#define HAVE_mavis_cancel_in
#define HAVE_mavis_drop_in
#include "answers.h"
#include <unistd.h>

struct query {
    mavis_ctx *mcx;
    av_ctx *ac;
    void *app_ctx;
    int pipe[2]; /* -1: none */
    int is_done;
};

static int compare(const void *a, const void *b)
{
    uintptr_t one = (uintptr_t)((const struct query *)a)->app_ctx, two = (uintptr_t)((const struct query *)b)->app_ctx;
    return one < two ? -1 : one > two;
}

static void free_query(const void *payload)
{
    struct query *query = (struct query *)(uintptr_t)payload;
    io_sched_drop(query->mcx->io, query);
    if (query->pipe[0] >= 0) {
        io_close(query->mcx->io, query->pipe[0]);
        close(query->pipe[1]);
    }
    av_free(query->ac);
    free(query);
}

static void mavis_new(mavis_ctx *mcx)
{
    mcx->delay = 10;
    if (!mcx->io) {
        mcx->io = io_init();
        mcx->own_loop = 1;
    }
    mcx->queries = RB_tree_new(compare, free_query);
}

static int mavis_parse_in(mavis_ctx *mcx, struct sym *sym)
{
    while (sym->code != S_closebra && sym->code != S_eof) {
        switch (sym->code) {
        case S_user:
        case S_default:
            answers_parse(&mcx->answers, sym);
            break;
        case S_delay:
            sym_get(sym);
            parse(sym, S_equal);
            mcx->delay = parse_int(sym);
            break;
        case S_buffer:
            sym_get(sym);
            parse(sym, S_equal);
            mcx->by_pipe = (int)parse_bool(sym);
            break;
        default:
            if (!mavis_parse_directive(mcx, sym))
                parse_error_expect(sym, S_script, S_action, S_user, S_default, S_delay, S_buffer, S_closebra, S_unknown);
        }
    }
    return MAVIS_CONF_OK;
}

/* The answer is ready: the program fetches it with mavis_recv() inside its callback. */
static void finish(struct query *query)
{
    query->is_done = 1;
    if (!query->mcx->own_loop)
        ((void (*)(void *))query->ac->app_cb)(query->app_ctx);
}

static void on_readable(void *ctx, int fd)
{
    struct query *query = (struct query *)ctx;
    char byte;
    if (read(fd, &byte, 1) == 1)
        finish(query);
}

static void on_lost(void *ctx, int fd)
{
    (void)fd;
    finish((struct query *)ctx);
}

static void on_time(void *ctx, int fd)
{
    struct query *query = (struct query *)ctx;
    (void)fd;
    io_sched_pop(query->mcx->io, query);
    if (query->pipe[1] < 0)
        finish(query);
    else if (write(query->pipe[1], "x", 1) != 1)
        finish(query);
}

static int give(mavis_ctx *mcx, av_ctx *ac)
{
    int result = MAVIS_FINAL;
    if (mcx->answers)
        result = answers_give(mcx->answers, ac);
    else
        av_set(ac, AV_A_RESULT, (char *)AV_V_RESULT_OK);
    if (result == MAVIS_FINAL && mcx->identity_source_name)
        av_set(ac, AV_A_IDENTITY_SOURCE, mcx->identity_source_name);
    return result;
}

static int mavis_send_in(mavis_ctx *mcx, av_ctx **ac)
{
    struct query *query = (struct query *)Xcalloc(1, sizeof *query);
    query->mcx = mcx;
    query->app_ctx = mcx->own_loop ? (void *)query : (*ac)->app_ctx;
    query->pipe[0] = query->pipe[1] = -1;
    if (mcx->by_pipe && !pipe(query->pipe)) {
        io_register(mcx->io, query->pipe[0], query);
        io_set_cb_i(mcx->io, query->pipe[0], (void *)on_readable);
        io_set_cb_e(mcx->io, query->pipe[0], (void *)on_lost);
        io_set_cb_h(mcx->io, query->pipe[0], (void *)on_lost);
        io_set_i(mcx->io, query->pipe[0]);
    }
    if (!RB_insert(mcx->queries, query)) {
        /* The rule is one query for each app_ctx. */
        free_query(query);
        return MAVIS_IGNORE;
    }
    io_sched_add(mcx->io, query, (void *)on_time, mcx->delay / 1000, mcx->delay % 1000 * 1000);
    if (mcx->own_loop) {
        while (!query->is_done) {
            int wait = io_sched_exec(mcx->io);
            if (!query->is_done)
                io_poll(mcx->io, wait);
        }
        RB_search_and_delete(mcx->queries, query);
        return give(mcx, *ac);
    }
    query->ac = *ac;
    *ac = NULL;
    return MAVIS_DEFERRED;
}

static int mavis_recv_in(mavis_ctx *mcx, av_ctx **ac, void *app_ctx)
{
    struct query key, *query;
    key.app_ctx = app_ctx;
    query = (struct query *)RB_lookup(mcx->queries, &key);
    if (!query || !query->is_done)
        return MAVIS_DOWN;
    *ac = query->ac;
    query->ac = NULL;
    RB_search_and_delete(mcx->queries, &key);
    return mavis_module_answer(mcx, ac, give(mcx, *ac));
}

static int mavis_cancel_in(mavis_ctx *mcx, void *app_ctx)
{
    struct query key;
    key.app_ctx = app_ctx;
    if (!RB_search(mcx->queries, &key))
        return MAVIS_DOWN;
    RB_search_and_delete(mcx->queries, &key);
    return MAVIS_FINAL;
}

static void mavis_drop_in(mavis_ctx *mcx)
{
    RB_tree_delete(mcx->queries);
    answers_free(&mcx->answers);
    if (mcx->own_loop)
        io_destroy(mcx->io, NULL);
}

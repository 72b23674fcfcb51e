/* A module that does what modules must not do, for tests of programs.
 *
 *     mode = WHAT       what it does with a query; see the table below
 *     user NAME         only with queries of this user; passes on the others
 */
#define MAVIS_NAME "misbehave"
#define MAVIS_CTX_PRIVATE \
    char *how;            \
    char *user;           \
    av_ctx *kept;         \
    int kept_times;

#define HAVE_mavis_parse_in
#define HAVE_mavis_send_in
#define HAVE_mavis_recv_in
#define HAVE_mavis_cancel_in
#define HAVE_mavis_drop_in
#include <mavis/module.h>

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static int mavis_parse_in(mavis_ctx *mcx, struct sym *sym)
{
    while (sym->code != S_closebra && sym->code != S_eof) {
        switch (sym->code) {
        case S_mode:
            sym_get(sym);
            parse(sym, S_equal);
            mcx->how = Xstrdup(sym->buf);
            if (!strcmp(mcx->how, "bad-block"))
                return MAVIS_CONF_ERR;
            sym_get(sym);
            break;
        case S_user:
            sym_get(sym);
            mcx->user = Xstrdup(sym->buf);
            sym_get(sym);
            break;
        default:
            if (!mavis_parse_directive(mcx, sym))
                parse_error_expect(sym, S_script, S_action, S_mode, S_user, S_closebra, S_unknown);
        }
    }
    return MAVIS_CONF_OK;
}

static int defer(mavis_ctx *mcx, av_ctx **ac)
{
    av_free(mcx->kept);
    mcx->kept = *ac;
    *ac = NULL;
    return MAVIS_DEFERRED;
}

static void call_back(mavis_ctx *mcx)
{
    void *app_ctx = mcx->kept->app_ctx;
    void (*callback)(void *) = (void (*)(void *))mcx->kept->app_cb;
    callback(app_ctx);
}

/* Never answers. */
static int silent(mavis_ctx *mcx, av_ctx **ac)
{
    return defer(mcx, ac);
}

static void on_time(void *ctx, int fd)
{
    mavis_ctx *mcx = (mavis_ctx *)ctx;
    void *app_ctx = mcx->kept->app_ctx;
    void (*callback)(void *) = (void (*)(void *))mcx->kept->app_cb;
    (void)fd;
    io_sched_pop(mcx->io, mcx);
    mcx->kept_times = 2;
    callback(app_ctx);
    callback(app_ctx);
}

/* Calls back twice for one query; the second time there is nothing to fetch. */
static int twice(mavis_ctx *mcx, av_ctx **ac)
{
    io_sched_add(mcx->io, mcx, (void *)on_time, 0, 1000);
    return defer(mcx, ac);
}

/* Calls back before it has returned. */
static int early(mavis_ctx *mcx, av_ctx **ac)
{
    int result = defer(mcx, ac);
    mcx->kept_times = 1;
    call_back(mcx);
    return result;
}

/* Returns "deferred", but leaves the query with the caller and never answers. */
static int torn(mavis_ctx *mcx, av_ctx **ac)
{
    (void)mcx;
    (void)ac;
    return MAVIS_DEFERRED;
}

/* Returns an unknown result. */
static int unknown(mavis_ctx *mcx, av_ctx **ac)
{
    (void)mcx;
    av_set(*ac, AV_A_RESULT, (char *)AV_V_RESULT_OK);
    return 77;
}

static int negative(mavis_ctx *mcx, av_ctx **ac)
{
    (void)mcx;
    (void)ac;
    return -1;
}

/* Sets values that nobody expects. */
static int garbage(mavis_ctx *mcx, av_ctx **ac)
{
    char text[300];
    (void)mcx;
    for (int i = 0; i < (int)sizeof text - 1; i++)
        text[i] = (char)(i % 255 + 1);
    text[sizeof text - 1] = 0;
    av_unset(*ac, AV_A_TYPE);
    av_set(*ac, AV_A_USER, text);
    av_set(*ac, AV_A_TACTYPE, (char *)"");
    av_set(*ac, AV_A_RESULT, (char *)"MAYBE");
    return MAVIS_FINAL;
}

/* Sets a value too long for any buffer. */
static int huge(mavis_ctx *mcx, av_ctx **ac)
{
    size_t size = 16 << 20;
    char *text = (char *)malloc(size);
    (void)mcx;
    memset(text, 'a', size);
    text[size - 1] = 0;
    av_set(*ac, AV_A_TACPROFILE, text);
    av_set(*ac, AV_A_RESULT, (char *)AV_V_RESULT_OK);
    free(text);
    return MAVIS_FINAL;
}

/* Removes everything from the query. */
static int clear(mavis_ctx *mcx, av_ctx **ac)
{
    (void)mcx;
    av_clear(*ac);
    return MAVIS_FINAL;
}

/* Takes the query itself away, without a word. */
static int steal(mavis_ctx *mcx, av_ctx **ac)
{
    (void)mcx;
    av_free(*ac);
    *ac = NULL;
    return MAVIS_IGNORE;
}

static int crash(mavis_ctx *mcx, av_ctx **ac)
{
    (void)mcx;
    (void)ac;
    raise(SIGSEGV);
    return MAVIS_FINAL;
}

static int abort_(mavis_ctx *mcx, av_ctx **ac)
{
    (void)mcx;
    (void)ac;
    abort();
}

static int leave(mavis_ctx *mcx, av_ctx **ac)
{
    (void)mcx;
    (void)ac;
    exit(3);
}

static int print(mavis_ctx *mcx, av_ctx **ac)
{
    (void)mcx;
    printf("this goes to stdout\n");
    fflush(stdout);
    fprintf(stderr, "this goes to stderr\n");
    av_set(*ac, AV_A_RESULT, (char *)AV_V_RESULT_OK);
    return MAVIS_FINAL;
}

static void never_read(void *ctx, int fd)
{
    (void)ctx;
    (void)fd;
}

/* Registers a descriptor that is always readable: the loop never rests. */
static int leak(mavis_ctx *mcx, av_ctx **ac)
{
    int pipes[2];
    if (mcx->io && !pipe(pipes) && write(pipes[1], "x", 1) == 1) {
        io_register(mcx->io, pipes[0], mcx);
        io_set_cb_i(mcx->io, pipes[0], (void *)never_read);
        io_set_i(mcx->io, pipes[0]);
    }
    av_set(*ac, AV_A_RESULT, (char *)AV_V_RESULT_OK);
    return MAVIS_FINAL;
}

static const struct {
    const char *name;
    int (*send)(mavis_ctx *, av_ctx **);
} ways[] = { { "silent", silent },   { "twice", twice },     { "early", early }, { "torn", torn },   { "unknown", unknown },
             { "negative", negative }, { "garbage", garbage }, { "huge", huge },   { "clear", clear }, { "steal", steal },
             { "crash", crash },     { "abort", abort_ },    { "exit", leave },  { "print", print }, { "leak", leak } };

static int mavis_send_in(mavis_ctx *mcx, av_ctx **ac)
{
    char *user = av_get(*ac, AV_A_USER);
    if (!mcx->how || (mcx->user && (!user || strcmp(user, mcx->user))))
        return MAVIS_DOWN;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (!strcmp(ways[i].name, mcx->how))
            return ways[i].send(mcx, ac);
    return MAVIS_DOWN;
}

static int mavis_recv_in(mavis_ctx *mcx, av_ctx **ac, void *app_ctx)
{
    if (!mcx->kept_times || !mcx->kept || mcx->kept->app_ctx != app_ctx)
        return MAVIS_IGNORE;
    *ac = mcx->kept;
    mcx->kept = NULL;
    av_set(*ac, AV_A_RESULT, (char *)AV_V_RESULT_OK);
    return mavis_module_answer(mcx, ac, MAVIS_FINAL);
}

static int mavis_cancel_in(mavis_ctx *mcx, void *app_ctx)
{
    if (!mcx->kept || mcx->kept->app_ctx != app_ctx)
        return MAVIS_DOWN;
    av_free(mcx->kept);
    mcx->kept = NULL;
    return MAVIS_FINAL;
}

static void mavis_drop_in(mavis_ctx *mcx)
{
    av_free(mcx->kept);
    free(mcx->how);
    free(mcx->user);
}

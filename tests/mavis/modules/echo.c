/* A module that answers at once.
 *
 *     user NAME = ANSWER, default = ANSWER      see answers.h
 *     set ATTRIBUTE = VALUE                     on the way down, before the answer
 *     unset ATTRIBUTE                           on the way up
 *     out = ANSWER                              on the way up, with ANSWER as above
 *     limit = N  timeout = SECONDS  mode = OCTAL  userid = USER  groupid = GROUP
 *                                               kept, and put into COMMENT on the way down
 *     warning                                   a mistake, after which it goes on by itself
 *     debug = BOOL                              each hook says so on stderr: `[IDENTIFIER HOOK]`
 */
#define MAVIS_NAME "echo"
#define MAVIS_CTX_PRIVATE     \
    struct answer *answers;   \
    struct answer *out;       \
    struct setting *settings; \
    int limit, timeout;       \
    mode_t mode;              \
    uid_t uid;                \
    gid_t gid;                \
    int chatty;

#define HAVE_mavis_new
#define HAVE_mavis_init_in
#define HAVE_mavis_init_out
#define HAVE_mavis_parse_in
#define HAVE_mavis_send_in
#define HAVE_mavis_recv_out
#define HAVE_mavis_drop_in
#define HAVE_mavis_drop_out
#include "answers.h"

struct setting {
    struct setting *next;
    int attribute;
    char *value; /* NULL: unset */
};

static void say(mavis_ctx *mcx, const char *hook)
{
    if (mcx->chatty)
        fprintf(stderr, "[%s %s]\n", mcx->identifier, hook);
}

static void mavis_new(mavis_ctx *mcx)
{
    mcx->limit = -1;
}

static int mavis_init_in(mavis_ctx *mcx)
{
    say(mcx, "init_in");
    return MAVIS_INIT_OK;
}

/* A negative timeout makes the module fail. */
static int mavis_init_out(mavis_ctx *mcx)
{
    say(mcx, "init_out");
    return mcx->timeout < 0 ? MAVIS_INIT_ERR : MAVIS_INIT_OK;
}

static void parse_setting(mavis_ctx *mcx, struct sym *sym)
{
    struct setting **at = &mcx->settings, *setting = (struct setting *)Xcalloc(1, sizeof *setting);
    int is_set = sym->code == S_set;
    while (*at)
        at = &(*at)->next;
    *at = setting;
    sym_get(sym);
    setting->attribute = av_attr_token_to_i(sym);
    if (setting->attribute < 0)
        parse_error(sym, (char *)"'%s' is no attribute", sym->buf);
    sym_get(sym);
    if (is_set) {
        parse(sym, S_equal);
        setting->value = Xstrdup(sym->buf);
        sym_get(sym);
    }
}

static int mavis_parse_in(mavis_ctx *mcx, struct sym *sym)
{
    while (sym->code != S_closebra && sym->code != S_eof) {
        switch (sym->code) {
        case S_user:
        case S_default:
            answers_parse(&mcx->answers, sym);
            break;
        case S_out:
            sym_get(sym);
            parse(sym, S_equal);
            mcx->out = (struct answer *)Xcalloc(1, sizeof *mcx->out);
            mcx->out->text = Xstrdup(sym->buf);
            sym_get(sym);
            break;
        case S_set:
        case S_unset:
            parse_setting(mcx, sym);
            break;
        case S_limit:
            sym_get(sym);
            parse(sym, S_equal);
            mcx->limit = parse_int(sym);
            break;
        case S_timeout:
            sym_get(sym);
            parse(sym, S_equal);
            mcx->timeout = parse_seconds(sym);
            break;
        case S_mode:
            parse_umask(sym, &mcx->mode);
            break;
        case S_userid:
            parse_userid(sym, &mcx->uid, &mcx->gid);
            break;
        case S_groupid:
            parse_groupid(sym, &mcx->gid);
            break;
        case S_debug:
            sym_get(sym);
            parse(sym, S_equal);
            mcx->chatty = (int)parse_bool(sym);
            break;
        case S_warning:
            if (!setjmp(sym->env))
                parse_error(sym, (char *)"a mistake that is forgiven");
            sym_get(sym);
            break;
        default:
            if (!mavis_parse_directive(mcx, sym))
                parse_error_expect(sym, S_script, S_action, S_user, S_default, S_out, S_set, S_unset, S_limit, S_timeout, S_mode,
                                   S_userid, S_groupid, S_debug, S_closebra, S_unknown);
        }
    }
    say(mcx, "parse_in");
    return MAVIS_CONF_OK;
}

static int mavis_send_in(mavis_ctx *mcx, av_ctx **ac)
{
    say(mcx, "send_in");
    for (struct setting *setting = mcx->settings; setting; setting = setting->next)
        if (setting->value)
            av_set(*ac, setting->attribute, setting->value);
    if (mcx->limit != -1)
        av_setf(*ac, AV_A_COMMENT, (char *)"limit %d timeout %d mode %o uid %d gid %d", mcx->limit, mcx->timeout, (unsigned)mcx->mode,
                (int)mcx->uid, (int)mcx->gid);
    int result = answers_give(mcx->answers, *ac);
    if (result == MAVIS_FINAL && mcx->identity_source_name)
        av_set(*ac, AV_A_IDENTITY_SOURCE, mcx->identity_source_name);
    return result;
}

static int mavis_recv_out(mavis_ctx *mcx, av_ctx **ac)
{
    say(mcx, "recv_out");
    for (struct setting *setting = mcx->settings; setting; setting = setting->next)
        if (!setting->value)
            av_unset(*ac, setting->attribute);
    return mcx->out ? answers_give(mcx->out, *ac) : MAVIS_FINAL;
}

static void mavis_drop_in(mavis_ctx *mcx)
{
    say(mcx, "drop_in");
    answers_free(&mcx->answers);
    answers_free(&mcx->out);
    while (mcx->settings) {
        struct setting *setting = mcx->settings;
        mcx->settings = setting->next;
        free(setting->value);
        free(setting);
    }
}

static void mavis_drop_out(mavis_ctx *mcx)
{
    say(mcx, "drop_out");
}

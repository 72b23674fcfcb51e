/* How to write a MAVIS module. A module is a shared object libmavis_NAME.so from one source file:
 *
 *     #define MAVIS_NAME "greet"                       // its name
 *     #define MAVIS_CTX_PRIVATE char *text;            // its own fields of mavis_ctx, if it needs any
 *     #define HAVE_mavis_send_in                       // the hooks that it implements
 *     #include <mavis/module.h>
 *
 *     static int mavis_send_in(mavis_ctx *mcx, av_ctx **ac) { ... }
 *
 * Include this header once, before all others of mavis/. It defines Mavis_new(), through which the
 * library loads the module, and everything that is the same in all modules: the chain, scripts and
 * actions. It calls these hooks:
 *
 *     void mavis_new(mcx)                    initialises the private fields, which are zeroed before
 *     int  mavis_parse_in(mcx, sym)          parses the module's block: starts at the first token inside, which is
 *                                            already read, and stops at the closing brace without taking it. Call
 *                                            mavis_parse_directive() for `script`, `action` and unknown directives.
 *                                            Returns MAVIS_CONF_OK or an error. Without this hook, a module takes
 *                                            those two directives only.
 *     int  mavis_init_in(mcx)                after all configuration, before the modules below are initialised;
 *                                            returns MAVIS_INIT_OK or an error
 *     int  mavis_init_out(mcx)               the same, after the modules below
 *     int  mavis_send_in(mcx, ac)            gets a query on its way down: MAVIS_DOWN passes it on, MAVIS_FINAL
 *                                            answers it. MAVIS_DEFERRED: keep *ac, set it to NULL, and call its
 *                                            callback later.
 *     int  mavis_recv_in(mcx, ac, app_ctx)   called from that callback: returns the answer for `app_ctx` in *ac, or
 *                                            MAVIS_DOWN if the query is not yours; see mavis_module_answer()
 *     int  mavis_recv_out(mcx, ac)           gets an answer on its way up
 *     int  mavis_cancel_in(mcx, app_ctx)     drops a query: MAVIS_FINAL, or MAVIS_DOWN if it is not yours
 *     void mavis_drop_in(mcx)                frees the contents of the private fields, before the modules below are
 *                                            freed
 *     void mavis_drop_out(mcx)               the same, after the modules below
 */
#ifndef MAVIS_MODULE_H
#define MAVIS_MODULE_H

#ifdef MAVIS_MAVIS_H
#error "include mavis/module.h before the other headers of mavis/"
#endif
#ifndef MAVIS_NAME
#error "define MAVIS_NAME, the name of the module in quotes, before you include mavis/module.h"
#endif

#include <mavis/mavis.h>
#include <dlfcn.h>
#include <string.h>

MAVIS_BEGIN_DECLS

#ifdef HAVE_mavis_new
static void mavis_new(mavis_ctx *mcx);
#endif
#ifdef HAVE_mavis_init_in
static int mavis_init_in(mavis_ctx *mcx);
#endif
#ifdef HAVE_mavis_init_out
static int mavis_init_out(mavis_ctx *mcx);
#endif
#ifdef HAVE_mavis_parse_in
static int mavis_parse_in(mavis_ctx *mcx, struct sym *sym);
#endif
#ifdef HAVE_mavis_send_in
static int mavis_send_in(mavis_ctx *mcx, av_ctx **ac);
#endif
#ifdef HAVE_mavis_recv_in
static int mavis_recv_in(mavis_ctx *mcx, av_ctx **ac, void *app_ctx);
#endif
#ifdef HAVE_mavis_recv_out
static int mavis_recv_out(mavis_ctx *mcx, av_ctx **ac);
#endif
#ifdef HAVE_mavis_cancel_in
static int mavis_cancel_in(mavis_ctx *mcx, void *app_ctx);
#endif
#ifdef HAVE_mavis_drop_in
static void mavis_drop_in(mavis_ctx *mcx);
#endif
#ifdef HAVE_mavis_drop_out
static void mavis_drop_out(mavis_ctx *mcx);
#endif

/* ---- helpers for the hooks ---- */

/* Parses a `script` or `action` directive. 1 if the current token started one, otherwise 0. */
MAVIS_INLINE int mavis_parse_directive(mavis_ctx *mcx, struct sym *sym)
{
    switch (sym->code) {
    case S_script:
        mavis_script_parse(mcx, NULL, sym);
        return 1;
    case S_action:
        mavis_module_parse_action(mcx, sym);
        return 1;
    default:
        return 0;
    }
}

/* For recv_in: sends an answer up through the modules above, which have yet to process it. `*ac` is
 * the finished query, and `result` is what send_in would have returned. */
MAVIS_INLINE int mavis_module_answer(mavis_ctx *mcx, av_ctx **ac, int result)
{
    mcx->last_result = result;
    av_set(*ac, AV_A_CURRENT_MODULE, mcx->identifier);
    result = mavis_send(mcx->top, ac);
    return result == MAVIS_FINAL ? MAVIS_FINAL_DEFERRED : result;
}

/* ---- the same in all modules ---- */

static int mavis_module_append(mavis_ctx *mcx, void *added)
{
    mavis_ctx *last = (mavis_ctx *)added;
    if (mcx->down) {
        mcx->down->top = mcx->top;
        return mcx->down->append(mcx->down, added);
    }
    last->top = mcx->top;
    mcx->down = last;
    return 0;
}

static int mavis_module_init(mavis_ctx *mcx)
{
    int result = MAVIS_INIT_OK;
    mavis_check_version((char *)MAVIS_API_VERSION, (char *)MAVIS_TOKEN_VERSION);
#ifdef HAVE_mavis_init_in
    result = mavis_init_in(mcx);
#endif
    if (mcx->down)
        result = mcx->down->init(mcx->down);
#ifdef HAVE_mavis_init_out
    {
        int out = mavis_init_out(mcx);
        if (result == MAVIS_INIT_OK)
            result = out;
    }
#endif
    return result;
}

static int mavis_module_parse(mavis_ctx *mcx, struct sym *sym, char *id)
{
    if (!strcmp(id, mcx->identifier)) {
#ifdef HAVE_mavis_parse_in
        return mavis_parse_in(mcx, sym);
#else
        while (sym->code != S_closebra && sym->code != S_eof)
            if (!mavis_parse_directive(mcx, sym))
                parse_error_expect(sym, S_script, S_action, S_closebra, S_unknown);
        return MAVIS_CONF_OK;
#endif
    }
    if (mcx->down && mcx->down->parse(mcx->down, sym, id) == MAVIS_CONF_OK)
        return MAVIS_CONF_OK;
    return MAVIS_CONF_ERR;
}

/* Applies the `action` directives to answers that report an error or an unknown user. */
MAVIS_INLINE int mavis_module_fixup(mavis_ctx *mcx, av_ctx *ac, int result)
{
    char *verdict = ac ? av_get(ac, AV_A_RESULT) : NULL;
    if (!verdict)
        return result;
    if (result == MAVIS_FINAL || result == MAVIS_FINAL_DEFERRED) {
        if (mcx->down && ((mcx->action_error == S_continue && !strcmp(verdict, AV_V_RESULT_ERROR)) ||
                          (mcx->action_notfound == S_continue && !strcmp(verdict, AV_V_RESULT_NOTFOUND)))) {
            av_unset(ac, AV_A_USER_RESPONSE);
            av_set(ac, AV_A_RESULT, (char *)AV_V_RESULT_NOTFOUND);
            result = MAVIS_DOWN;
        }
    } else if (result == MAVIS_DOWN && mcx->action_notfound == S_reject &&
               !strcmp(verdict, AV_V_RESULT_NOTFOUND)) {
        av_set(ac, AV_A_RESULT, (char *)AV_V_RESULT_FAIL);
        result = MAVIS_FINAL;
    }
    return result;
}

static int mavis_module_send(mavis_ctx *mcx, av_ctx **ac)
{
    int result = MAVIS_DOWN;
    enum token verdict = S_unknown;
    char *current = av_get(*ac, AV_A_CURRENT_MODULE);

    if (current) {
        /* An answer on its way up. The module that produced it continues where it left off; the
         * modules above pass the query down to it, and process the answer when it comes back. */
        if (!strcmp(current, mcx->identifier)) {
            result = mcx->last_result;
            av_unset(*ac, AV_A_CURRENT_MODULE);
        }
    } else {
        if (mcx->script_in) {
            verdict = mavis_script_eval(mcx, *ac, mcx->script_in);
            if (verdict == S_return) {
                if (mcx->script_out)
                    mavis_script_eval(mcx, *ac, mcx->script_out);
                return MAVIS_FINAL;
            }
        }
#ifdef HAVE_mavis_send_in
        if (verdict != S_skip) {
            result = mavis_send_in(mcx, ac);
            result = mavis_module_fixup(mcx, *ac, result);
        }
#endif
    }
    if (result == MAVIS_DOWN && mcx->down && *ac)
        result = mcx->down->send(mcx->down, ac);
#ifdef HAVE_mavis_recv_out
    if (result == MAVIS_FINAL && verdict != S_skip) {
        if (mcx->script_interim)
            verdict = mavis_script_eval(mcx, *ac, mcx->script_interim);
        if (verdict != S_skip) {
            result = mavis_recv_out(mcx, ac);
            result = mavis_module_fixup(mcx, *ac, result);
        }
    }
#endif
    if (result == MAVIS_DOWN)
        result = MAVIS_FINAL;
    if (mcx->script_out && result == MAVIS_FINAL && verdict != S_skip)
        mavis_script_eval(mcx, *ac, mcx->script_out);
    return result;
}

static int mavis_module_recv(mavis_ctx *mcx, av_ctx **ac, void *app_ctx)
{
    int result = MAVIS_DOWN;
    enum token verdict = S_unknown;

#ifdef HAVE_mavis_recv_in
    result = mavis_recv_in(mcx, ac, app_ctx);
    result = mavis_module_fixup(mcx, *ac, result);
#endif
    if (result == MAVIS_DOWN && mcx->down && *ac)
        result = mcx->down->send(mcx->down, ac);
    if (result == MAVIS_DOWN && mcx->down)
        result = mcx->down->recv(mcx->down, ac, app_ctx);
    if (result == MAVIS_FINAL && mcx->script_interim) {
        verdict = mavis_script_eval(mcx, *ac, mcx->script_interim);
        if (verdict == S_skip)
            return result;
    }
#ifdef HAVE_mavis_recv_out
    if (result == MAVIS_FINAL && verdict != S_return) {
        result = mavis_recv_out(mcx, ac);
        result = mavis_module_fixup(mcx, *ac, result);
        if (result == MAVIS_DOWN && mcx->down && *ac)
            result = mcx->down->send(mcx->down, ac);
    }
#endif
    if (result == MAVIS_DOWN)
        result = MAVIS_FINAL;
    if (mcx->script_out && result == MAVIS_FINAL && *ac)
        mavis_script_eval(mcx, *ac, mcx->script_out);
    return result;
}

static int mavis_module_cancel(mavis_ctx *mcx, void *app_ctx)
{
    int result = MAVIS_DOWN;
#ifdef HAVE_mavis_cancel_in
    result = mavis_cancel_in(mcx, app_ctx);
#endif
    if (result == MAVIS_DOWN && mcx->down)
        result = mcx->down->cancel(mcx->down, app_ctx);
    return result == MAVIS_DOWN ? MAVIS_FINAL : result;
}

static void *mavis_module_drop(mavis_ctx *mcx)
{
    void *handle = mcx->handle;
#ifdef HAVE_mavis_drop_in
    mavis_drop_in(mcx);
#endif
    if (mcx->down) {
        void *below = mcx->down->drop(mcx->down);
        if (below)
            dlclose(below);
    }
#ifdef HAVE_mavis_drop_out
    mavis_drop_out(mcx);
#endif
    mavis_script_drop(&mcx->script_interim);
    mavis_script_drop(&mcx->script_in);
    mavis_script_drop(&mcx->script_out);
    free(mcx->identifier);
    free(mcx->identity_source_name);
    free(mcx);
    return handle;
}

/* The entry point of a module. */
mavis_ctx *Mavis_new(void *handle, struct io_context *io, char *id);

mavis_ctx *Mavis_new(void *handle, struct io_context *io, char *id)
{
    const char *name = id ? id : MAVIS_NAME;
    mavis_ctx *mcx = (mavis_ctx *)Xcalloc(1, sizeof(mavis_ctx) + strlen(name));
    mcx->handle = handle;
    mcx->io = io;
    mcx->append = mavis_module_append;
    mcx->init = mavis_module_init;
    mcx->parse = mavis_module_parse;
    mcx->send = mavis_module_send;
    mcx->recv = mavis_module_recv;
    mcx->cancel = mavis_module_cancel;
    mcx->drop = mavis_module_drop;
    mcx->identifier = Xstrdup(name);
    mcx->action_error = S_reject;
    mcx->action_notfound = S_continue;
#ifdef HAVE_mavis_new
    mavis_new(mcx);
#endif
    return mcx;
}

MAVIS_END_DECLS

#endif

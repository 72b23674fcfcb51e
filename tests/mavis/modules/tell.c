/* A module that admits everybody and logs the question, one line for each attribute. */
#define MAVIS_NAME "tell"

#define HAVE_mavis_parse_in
#define HAVE_mavis_send_in
#define HAVE_mavis_cancel_in
#include <mavis/module.h>

#include <errno.h>
#include <mavis/log.h>

static int mavis_parse_in(mavis_ctx *mcx, struct sym *sym)
{
    while (sym->code != S_closebra && sym->code != S_eof)
        if (!mavis_parse_directive(mcx, sym))
            parse_error_expect(sym, S_script, S_action, S_closebra, S_unknown);
    return MAVIS_CONF_OK;
}

static int mavis_send_in(mavis_ctx *mcx, av_ctx **ac)
{
    (void)mcx;
    if (errno)
        logmsg("asked: with errno %d", errno);
    for (int i = 0; i < AV_A_ARRAYSIZE; i++)
        if (av_get(*ac, i))
            logmsg("asked: %s=%s.", av_char[i].name, av_get(*ac, i));
    return MAVIS_DOWN;
}

static int mavis_cancel_in(mavis_ctx *mcx, void *app_ctx)
{
    (void)mcx;
    (void)app_ctx;
    logmsg("asked: cancelled");
    return MAVIS_DOWN;
}

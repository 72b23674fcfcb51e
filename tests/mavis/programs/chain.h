/* Makes chains of the test modules from a text. MODULE_DIR is the modules' directory. */
#ifndef CHAIN_H
#define CHAIN_H

#include "check.h"

/* Reads `mavis module = ...` lines, written without `mavis`, and starts the chain. */
MAVIS_INLINE mavis_ctx *chain_raw(struct io_context *io, const char *config)
{
    mavis_ctx *chain = NULL;
    char *text = (char *)malloc(strlen(config) + 4096);
    sprintf(text, "path = \"%s\" %s", getenv("MODULE_DIR"), config);
    struct sym *sym = sym_of(text);
    parse_mavispath(sym);
    while (sym->code == S_module)
        if (parse_mavismodule(&chain, io, sym)) {
            printf("cannot load: %s\n", config);
            check_failures++;
            break;
        }
    CHECK_INT(sym->code, S_eof);
    sym_done(sym);
    free(text);
    return chain;
}

MAVIS_INLINE mavis_ctx *chain_of(struct io_context *io, const char *config)
{
    mavis_ctx *chain = chain_raw(io, config);
    CHECK_INT(mavis_init(chain, T(MAVIS_API_VERSION), T(MAVIS_TOKEN_VERSION)), MAVIS_INIT_OK);
    return chain;
}

/* A query for a user. */
MAVIS_INLINE av_ctx *query_of(const char *user)
{
    static int number;
    av_ctx *ac = av_new(NULL, NULL);
    av_set(ac, AV_A_TYPE, T(AV_V_TYPE_TACPLUS));
    av_set(ac, AV_A_TACTYPE, T(AV_V_TACTYPE_INFO));
    av_set(ac, AV_A_USER, T(user));
    av_setf(ac, AV_A_TIMESTAMP, T("test-%d"), number++);
    return ac;
}

/* The RESULT and the result code that a chain returns for a user; static memory. */
MAVIS_INLINE const char *asked(mavis_ctx *chain, const char *user)
{
    static char text[256];
    av_ctx *ac = query_of(user);
    int result = mavis_send(chain, &ac);
    snprintf(text, sizeof text, "%d %s %s", result, ac && av_get(ac, AV_A_RESULT) ? av_get(ac, AV_A_RESULT) : "-",
             ac && av_get(ac, AV_A_IDENTITY_SOURCE) ? av_get(ac, AV_A_IDENTITY_SOURCE) : "-");
    av_free(ac);
    return text;
}

#endif

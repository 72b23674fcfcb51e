/* What the test modules share: answers by user.
 *
 *     user NAME = ANSWER      ANSWER is a result such as ACK, or one of down, ignore, timeout
 *     default = ANSWER        for the others; without it they are passed on
 */
#ifndef ANSWERS_H
#define ANSWERS_H

#include <mavis/module.h>
#include <stdio.h>

struct answer {
    struct answer *next;
    char *user; /* NULL: all */
    char *text;
};

MAVIS_INLINE void answers_parse(struct answer **list, struct sym *sym)
{
    struct answer *answer = (struct answer *)Xcalloc(1, sizeof *answer);
    int is_default = sym->code == S_default;
    while (*list)
        list = &(*list)->next;
    *list = answer;
    sym_get(sym);
    if (!is_default) {
        answer->user = Xstrdup(sym->buf);
        sym_get(sym);
    }
    parse(sym, S_equal);
    answer->text = Xstrdup(sym->buf);
    sym_get(sym);
}

/* Sets RESULT, and returns what a module must return. */
MAVIS_INLINE int answers_give(struct answer *list, av_ctx *ac)
{
    char *user = av_get(ac, AV_A_USER);
    for (; list; list = list->next)
        if (!list->user || (user && !strcmp(list->user, user))) {
            if (!strcmp(list->text, "down"))
                return MAVIS_DOWN;
            if (!strcmp(list->text, "ignore"))
                return MAVIS_IGNORE;
            if (!strcmp(list->text, "timeout"))
                return MAVIS_TIMEOUT;
            av_set(ac, AV_A_RESULT, list->text);
            return MAVIS_FINAL;
        }
    return MAVIS_DOWN;
}

MAVIS_INLINE void answers_free(struct answer **list)
{
    while (*list) {
        struct answer *answer = *list;
        *list = answer->next;
        free(answer->user);
        free(answer->text);
        free(answer);
    }
}

#endif

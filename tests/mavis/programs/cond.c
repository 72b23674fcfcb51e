/* The building blocks of scripts, and the raw form of conditions. */
#include "check.h"
#include <mavis/internal.h>

static struct mavis_cond *parsed(const char *text)
{
    struct sym *sym = sym_of(text);
    struct mavis_cond *cond = mavis_cond_parse(sym, NULL);
    CHECK_TEXT(sym->buf, "end");
    sym_done(sym);
    return cond;
}

static void raw_form(void)
{
    struct mavis_cond *c = parsed("USER == joe end");
    CHECK_INT(c->type, S_equal);
    CHECK_INT((intptr_t)c->u.s.lhs, AV_A_USER);
    CHECK_TEXT((char *)c->u.s.rhs, "joe");
    c = parsed("USER == $REALM end");
    CHECK_INT(c->type, S_equal);
    CHECK_INT(c->u.s.token, S_attr);
    CHECK_INT((intptr_t)c->u.s.rhs, AV_A_REALM);
    c = parsed("USER =~ /x/ end");
    CHECK_INT(c->type, S_slash);
    CHECK(c->u.s.rhs != NULL);
    c = parsed("USER =~ \"x\" end");
    CHECK_INT(c->type, S_regex);
    c = parsed("defined USER end");
    CHECK_INT(c->type, S_defined);
    CHECK_INT((intptr_t)c->u.s.lhs, AV_A_USER);
    c = parsed("undef USER end");
    CHECK_INT(c->type, S_undef);
    c = parsed("USER != joe end");
    CHECK_INT(c->type, S_exclmark);
    CHECK_INT(c->u.m.n, 1);
    CHECK_INT(c->u.m.e[0]->type, S_equal);
    c = parsed("(defined USER && defined REALM || undef HOME) end");
    CHECK_INT(c->type, S_or);
    CHECK_INT(c->u.m.n, 2);
    CHECK_INT(c->u.m.e[0]->type, S_and);
    CHECK_INT(c->u.m.e[0]->u.m.n, 2);
    CHECK_INT(c->u.m.e[1]->type, S_undef);
}

static void building(void)
{
    struct sym *sym = sym_of("set x");
    mem_t *mem = mem_create(M_LIST);
    struct mavis_action *action = mavis_action_new(sym, mem);
    CHECK_INT(action->code, S_set);
    CHECK(!action->n && !action->c && !action->b.a);
    CHECK_TEXT(sym->buf, "x");

    struct mavis_cond *all = mavis_cond_new(sym, mem, S_or), *leaf[30];
    CHECK_INT(all->type, S_or);
    CHECK_INT(all->u.m.n, 0);
    for (int i = 0; i < 30; i++) {
        leaf[i] = mavis_cond_new(sym, mem, S_defined);
        all = mavis_cond_add(all, mem, leaf[i]);
        CHECK_INT(all->u.m.n, i + 1);
        for (int k = 0; k <= i; k++)
            CHECK(all->u.m.e[k] == leaf[k]);
    }
    mavis_cond_optimize(&all, mem);
    CHECK_INT(all->type, S_or);
    CHECK_INT(all->u.m.n, 30);

    /* An "and" of one "or" of one condition is that condition. */
    struct mavis_cond *inner = mavis_cond_new(sym, mem, S_or), *outer = mavis_cond_new(sym, mem, S_and),
                      *one = mavis_cond_new(sym, mem, S_defined);
    inner = mavis_cond_add(inner, mem, one);
    outer = mavis_cond_add(outer, mem, inner);
    mavis_cond_optimize(&outer, mem);
    CHECK(outer == one);
    sym_done(sym);
}

static void normalized(void)
{
    struct sym *sym = sym_of("(USER == joe && defined REALM || ! undef HOME) end"), *inner = NULL;
    CHECK_INT(sym_normalize_cond_start(sym, NULL, &inner), -1);
    CHECK(inner && inner != sym);
    CHECK_INT(inner->code, S_leftbra);
    int depth = 0, tokens = 0;
    for (; inner->code != S_eof && tokens < 100; sym_get(inner), tokens++)
        depth += inner->code == S_leftbra ? 1 : inner->code == S_rightbra ? -1 : 0;
    CHECK_INT(depth, 0);
    CHECK(tokens > 13);
    sym_normalize_cond_end(&inner, NULL);
    CHECK_TEXT(sym->buf, "end");
    sym_done(sym);
    sym = sym_of("USER == joe");
    CHECK_INT(sym_normalize_cond_start(sym, NULL, &inner), 0);
    CHECK_TEXT(sym->buf, "USER");
    sym_done(sym);
}

int main(void)
{
    init_common_data();
    raw_form();
    building();
    normalized();
    return check_result();
}

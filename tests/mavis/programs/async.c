/* Deferred answers: ownership, fetching, cancelling, and the way up through the modules above. */
#include "chain.h"
#include <mavis/scm.h>

static struct io_context *io;
static mavis_ctx *chain;

struct query {
    int result;
    int answers;
    av_ctx *ac;
};

static void on_answer(void *app_ctx)
{
    struct query *query = (struct query *)app_ctx;
    av_ctx *ac = NULL;
    query->result = mavis_recv(chain, &ac, query);
    query->answers++;
    if (ac) {
        av_free(query->ac);
        query->ac = ac;
    }
}

static int ask(struct query *query, const char *user)
{
    av_ctx *ac = query_of(user);
    memset(query, 0, sizeof *query);
    av_setcb(ac, (void *)on_answer, query);
    int result = mavis_send(chain, &ac);
    if (result == MAVIS_DEFERRED)
        CHECK(!ac);
    else
        query->ac = ac;
    return result;
}

static void wait_for(struct query *query)
{
    for (int i = 0; i < 1000 && !query->answers; i++) {
        int wait = io_sched_exec(io);
        if (!query->answers)
            io_poll(io, wait < 0 || wait > 10 ? 10 : wait);
    }
    CHECK_INT(query->answers, 1);
}

static void check_answer(const char *file, int line, const char *user, int result, const char *text, const char *source)
{
    struct query query;
    check_int(file, line, user, ask(&query, user), MAVIS_DEFERRED);
    wait_for(&query);
    check_int(file, line, user, query.result, result);
    if (query.ac) {
        check_text(file, line, user, av_get(query.ac, AV_A_RESULT), text);
        check_text(file, line, user, av_get(query.ac, AV_A_IDENTITY_SOURCE), source);
        check_text(file, line, user, av_get(query.ac, AV_A_CURRENT_MODULE), NULL);
        check_text(file, line, user, av_get(query.ac, AV_A_USER), user);
        CHECK(query.ac->app_cb == (void *)on_answer && query.ac->app_ctx == &query);
        av_free(query.ac);
    } else
        check_text(file, line, user, "no answer", text);
}
#define CHECK_ANSWER(user, result, text, source) check_answer(__FILE__, __LINE__, (user), (result), (text), (source))

static void one_module(const char *how)
{
    char config[1024];
    snprintf(config, sizeof config, "module slow = later { %s user joe = ACK user bad = NAK user err = ERR user nfd = NFD }", how);
    chain = chain_of(io, config);
    CHECK(chain->io == io);
    CHECK_ANSWER("joe", MAVIS_FINAL, "ACK", "slow");
    CHECK_ANSWER("bad", MAVIS_FINAL, "NAK", "slow");
    CHECK_ANSWER("err", MAVIS_FINAL, "ERR", "slow");
    CHECK_ANSWER("other", MAVIS_FINAL, "NFD", NULL);

    struct query many[50];
    for (int i = 0; i < 50; i++)
        CHECK_INT(ask(&many[i], i % 2 ? "joe" : "bad"), MAVIS_DEFERRED);
    for (int i = 0; i < 50; i++) {
        wait_for(&many[i]);
        CHECK_INT(many[i].result, MAVIS_FINAL);
        CHECK_TEXT(av_get(many[i].ac, AV_A_RESULT), i % 2 ? "ACK" : "NAK");
        av_free(many[i].ac);
    }
    mavis_drop(chain);
}

static void cancelling(void)
{
    struct query one, two;
    chain = chain_of(io, "module = echo { user quick = ACK } module = later { delay = 5 } ");
    CHECK_INT(ask(&one, "joe"), MAVIS_DEFERRED);
    CHECK_INT(ask(&two, "kim"), MAVIS_DEFERRED);
    CHECK_INT(mavis_cancel(chain, &one), MAVIS_FINAL);
    wait_for(&two);
    CHECK_INT(one.answers, 0);
    CHECK_TEXT(av_get(two.ac, AV_A_RESULT), "ACK");
    av_free(two.ac);
    /* This query is unknown. */
    CHECK_INT(mavis_cancel(chain, &one), MAVIS_FINAL);
    CHECK_INT(ask(&one, "quick"), MAVIS_FINAL);
    av_free(one.ac);
    /* The chain may be dropped while a query is pending. */
    CHECK_INT(ask(&one, "joe"), MAVIS_DEFERRED);
    mavis_drop(chain);
    CHECK_INT(one.answers, 0);
}

/* Modules above process the answer once; modules below are asked if it is no answer. */
static void long_chain(void)
{
    struct query query;
    chain = chain_of(io, "module first = echo { set REALM = first unset COMMENT script out { set CUSTOM_0 = \"out first\" } }"
                         "module slow = later { user joe = ACK user next = down script out { set CUSTOM_1 = \"out slow\" }"
                         "   script in { set CUSTOM_2 = \"in slow\" } }"
                         "module last = echo { user next = ACK script out { set CUSTOM_3 = \"out last\" } }");
    CHECK_INT(ask(&query, "joe"), MAVIS_DEFERRED);
    wait_for(&query);
    CHECK_INT(query.result, MAVIS_FINAL);
    CHECK_TEXT(av_get(query.ac, AV_A_RESULT), "ACK");
    CHECK_TEXT(av_get(query.ac, AV_A_REALM), "first");
    CHECK_TEXT(av_get(query.ac, AV_A_CUSTOM_0), "out first");
    CHECK_TEXT(av_get(query.ac, AV_A_CUSTOM_1), "out slow");
    CHECK_TEXT(av_get(query.ac, AV_A_CUSTOM_2), "in slow");
    CHECK_TEXT(av_get(query.ac, AV_A_CUSTOM_3), NULL);
    av_free(query.ac);
    CHECK_INT(ask(&query, "next"), MAVIS_DEFERRED);
    wait_for(&query);
    CHECK_INT(query.result, MAVIS_FINAL);
    CHECK_TEXT(av_get(query.ac, AV_A_RESULT), "ACK");
    CHECK_TEXT(av_get(query.ac, AV_A_IDENTITY_SOURCE), "last");
    CHECK_TEXT(av_get(query.ac, AV_A_CUSTOM_0), "out first");
    CHECK_TEXT(av_get(query.ac, AV_A_CUSTOM_3), "out last");
    av_free(query.ac);
    mavis_drop(chain);
}

/* One deferring module below another: the first callback leads to "deferred" again. */
static void two_slow_ones(void)
{
    struct query query;
    chain = chain_of(io, "module one = later { user joe = down } module two = later { user joe = NAK }");
    CHECK_INT(ask(&query, "joe"), MAVIS_DEFERRED);
    wait_for(&query);
    CHECK_INT(query.result, MAVIS_DEFERRED);
    CHECK(!query.ac);
    query.answers = 0;
    wait_for(&query);
    CHECK_INT(query.result, MAVIS_FINAL);
    CHECK_TEXT(av_get(query.ac, AV_A_RESULT), "NAK");
    CHECK_TEXT(av_get(query.ac, AV_A_IDENTITY_SOURCE), "two");
    av_free(query.ac);
    mavis_drop(chain);
}

/* An answer that lacks attributes of the request fails the check on its way up. */
static void incomplete_answer(void)
{
    struct query query;
    chain = chain_of(io, "module = bare { } module slow = later { script in { unset TACTYPE } user joe = ACK }");
    CHECK_INT(ask(&query, "joe"), MAVIS_DEFERRED);
    wait_for(&query);
    CHECK_INT(query.result, MAVIS_IGNORE);
    CHECK(query.ac != NULL);
    CHECK_TEXT(av_get(query.ac, AV_A_RESULT), "ERR");
    CHECK_TEXT(av_get(query.ac, AV_A_COMMENT), "invalid request");
    CHECK(av_get(query.ac, AV_A_CURRENT_MODULE) != NULL);
    av_free(query.ac);
    mavis_drop(chain);
}

static void without_loop(void)
{
    chain = chain_of(NULL, "module slow = later { delay = 3 user joe = ACK user next = down } module = echo { default = NAK }");
    CHECK(!strncmp(asked(chain, "joe"), "0 ACK slow", 10));
    CHECK(!strncmp(asked(chain, "next"), "0 NAK", 5));
    mavis_drop(chain);
}

int main(void)
{
    init_common_data();
    io = io_init();
    one_module("delay = 3");
    one_module("delay = 2 buffer = yes");
    cancelling();
    long_chain();
    two_slow_ones();
    incomplete_answer();
    without_loop();
    io_destroy(io, NULL);
    return check_result();
}

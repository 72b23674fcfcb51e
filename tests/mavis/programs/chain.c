/* Chains of modules: loading, order of hooks, results, actions, the request check. */
#include "chain.h"

static void hooks(void)
{
    capture_begin();
    mavis_ctx *chain = chain_of(NULL, "module a = echo { debug = yes default = down }"
                                      "module b = echo { debug = yes user joe = ACK }");
    char *text = capture_end(), *one = chain->identifier, *two = chain->down->identifier, expected[1024];
    snprintf(expected, sizeof expected, "[%s parse_in]\n[%s parse_in]\n[%s init_in]\n[%s init_in]\n[%s init_out]\n[%s init_out]\n",
             one, two, one, two, two, one);
    CHECK_TEXT(text, expected);
    CHECK(chain->top == chain && chain->down->top == chain && !chain->down->down);
    CHECK_TEXT(chain->identity_source_name, "a");
    CHECK_TEXT(chain->down->identity_source_name, "b");
    CHECK(chain->handle && chain->down->handle && !chain->io);
    CHECK_INT(atoi(two), atoi(one) + 1);

    capture_begin();
    CHECK_TEXT(asked(chain, "joe"), "0 ACK b");
    text = capture_end();
    snprintf(expected, sizeof expected, "[%s send_in]\n[%s send_in]\n[%s recv_out]\n[%s recv_out]\n", one, two, two, one);
    CHECK_TEXT(text, expected);

    snprintf(expected, sizeof expected, "[%s drop_in]\n[%s drop_in]\n[%s drop_out]\n[%s drop_out]\n", one, two, two, one);
    capture_begin();
    CHECK_INT(mavis_drop(chain), 0);
    text = capture_end();
    CHECK_TEXT(text, expected);
    CHECK_INT(mavis_drop(NULL), 0);
}

static void results(void)
{
    mavis_ctx *chain = chain_of(NULL, "module = echo { user joe = ACK user bad = NAK user err = ERR user nfd = NFD user gone = ignore "
                                      "user late = timeout user next = down set REALM = here unset COMMENT }");
    CHECK(!strncmp(asked(chain, "joe"), "0 ACK ", 6));
    CHECK(!strncmp(asked(chain, "bad"), "0 NAK ", 6));
    CHECK(!strncmp(asked(chain, "err"), "0 ERR ", 6));
    CHECK(!strncmp(asked(chain, "nfd"), "0 NFD ", 6));
    CHECK_TEXT(asked(chain, "gone"), "2 - -");
    CHECK_TEXT(asked(chain, "late"), "3 - -");
    /* No module knew. */
    CHECK_TEXT(asked(chain, "next"), "0 NFD -");
    CHECK_TEXT(asked(chain, "other"), "0 NFD -");
    av_ctx *ac = query_of("joe");
    av_set(ac, AV_A_COMMENT, T("comment"));
    CHECK_INT(mavis_send(chain, &ac), MAVIS_FINAL);
    CHECK_TEXT(av_get(ac, AV_A_REALM), "here");
    CHECK_TEXT(av_get(ac, AV_A_COMMENT), NULL);
    CHECK_TEXT(av_get(ac, AV_A_CURRENT_MODULE), NULL);
    CHECK(av_get(ac, AV_A_SERIAL) != NULL);
    CHECK_INT(strlen(av_get(ac, AV_A_SERIAL)), 23);
    av_free(ac);
    mavis_drop(chain);

    /* Values that the parser's helpers read. */
    chain = chain_of(NULL, "module = echo { limit = 2k timeout = 3m mode = 640 userid = 5 groupid = 6 default = ACK }");
    ac = query_of("joe");
    CHECK_INT(mavis_send(chain, &ac), MAVIS_FINAL);
    CHECK_HAS(av_get(ac, AV_A_COMMENT), "limit 2048 timeout 180");
    CHECK_HAS(av_get(ac, AV_A_COMMENT), "uid 5 gid 6");
    av_free(ac);
    mavis_drop(chain);
}

static void actions(void)
{
    mavis_ctx *chain = chain_of(NULL, "module a = echo { user nfd = NFD user err = ERR }"
                                      "module b = echo { default = ACK }");
    CHECK_INT(chain->action_error, S_reject);
    CHECK_INT(chain->action_notfound, S_continue);
    CHECK_TEXT(asked(chain, "nfd"), "0 ACK b");
    CHECK_TEXT(asked(chain, "err"), "0 ERR a");
    CHECK_TEXT(asked(chain, "joe"), "0 ACK b");
    mavis_drop(chain);

    chain = chain_of(NULL, "module a = echo { action error = continue action not-found = reject user nfd = NFD user err = ERR }"
                           "module b = echo { default = ACK }");
    CHECK_INT(chain->action_error, S_continue);
    CHECK_INT(chain->action_notfound, S_reject);
    CHECK_TEXT(asked(chain, "nfd"), "0 NFD a");
    CHECK_TEXT(asked(chain, "err"), "0 ACK b");
    mavis_drop(chain);

    /* The modules below do not know either, so the result so far holds. */
    chain = chain_of(NULL, "module a = echo { action error = continue user err = ERR } module b = bare { }");
    CHECK_TEXT(asked(chain, "err"), "0 NFD a");
    mavis_drop(chain);

    /* A "not found" answer that comes back with DOWN is rejected. */
    chain = chain_of(NULL, "module a = echo { set RESULT = NFD default = down action not-found = reject }"
                           "module b = echo { default = ACK }");
    CHECK_TEXT(asked(chain, "x"), "0 NAK -");
    mavis_drop(chain);

    CHECK_PARSE_ERROR("action bogus = reject", mavis_module_parse_action(NULL, sym), "but got 'bogus'");
}

static void request_check(void)
{
    static const struct {
        int is_valid;
        const char *query;
    } queries[] = { { 1, "0 TACPLUS\n4 joe\n49 HOST\n" },
                    { 0, "0 TACPLUS\n4 joe\n" },
                    { 0, "0 TACPLUS\n49 HOST\n" },
                    { 0, "4 joe\n49 HOST\n" },
                    { 0, "0 tacplus\n4 joe\n49 HOST\n" },
                    { 1, "0 FTP\n4 joe\n8 secret\n14 192.0.2.1\n" },
                    { 0, "0 FTP\n4 joe\n8 secret\n" },
                    { 0, "0 FTP\n4 joe\n14 192.0.2.1\n" },
                    { 0, "0 FTP\n8 secret\n14 192.0.2.1\n" },
                    { 1, "0 PRIV_LOGSTATS\n" },
                    { 0, "0 PRIV_OTHER\n4 joe\n49 HOST\n" },
                    { 0, "" } };
    mavis_ctx *chain = chain_of(NULL, "module = echo { default = ACK }");
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        av_ctx *ac = av_new(NULL, NULL), *before = ac;
        char *text = strdup(queries[i].query);
        av_char_to_array(ac, text, NULL);
        CHECK_INT(mavis_send(chain, &ac), queries[i].is_valid ? MAVIS_FINAL : MAVIS_IGNORE);
        CHECK(ac == before);
        CHECK_TEXT(av_get(ac, AV_A_RESULT), queries[i].is_valid ? "ACK" : "ERR");
        CHECK_TEXT(av_get(ac, AV_A_COMMENT), queries[i].is_valid ? NULL : "invalid request");
        av_free(ac);
        free(text);
    }
    mavis_drop(chain);

    /* Without an answer, queries of this type are confirmed. */
    chain = chain_of(NULL, "module = bare { }");
    av_ctx *ac = av_new(NULL, NULL);
    av_set(ac, AV_A_TYPE, T(AV_V_TYPE_LOGSTATS));
    CHECK_INT(mavis_send(chain, &ac), MAVIS_FINAL);
    CHECK_TEXT(av_get(ac, AV_A_RESULT), "ACK");
    mavis_drop(chain);

    /* No chain. */
    av_clear(ac);
    CHECK_INT(mavis_send(NULL, &ac), MAVIS_IGNORE);
    CHECK_TEXT(av_get(ac, AV_A_RESULT), NULL);
    CHECK_INT(mavis_parse(NULL, NULL, T("0")), MAVIS_CONF_ERR);
    av_free(ac);
}

static void no_modules(void *arg)
{
    (void)arg;
    mavis_init(NULL, T(MAVIS_API_VERSION), T(MAVIS_TOKEN_VERSION));
}

static void versions(void)
{
    char *text;
    CHECK_INT(mavis_check_version(T("6"), T("a4cf21de3aea318d7fe186cb4b1e49a0")), 0);
    CHECK_INT(mavis_check_version(T(MAVIS_API_VERSION), T(MAVIS_TOKEN_VERSION)), 0);
    capture_begin();
    CHECK_INT(mavis_check_version(T("5"), T("00")), -1);
    text = capture_end();
    CHECK_HAS(text, "Warning: MAVIS library API version mismatch (5 vs. 6). Expect trouble.");
    CHECK(!strstr(text, "token hash"));
    capture_begin();
    CHECK_INT(mavis_check_version(T("6"), T("00")), -1);
    text = capture_end();
    CHECK_HAS(text, "Warning: MAVIS token hash mismatch (00 vs. a4cf21de3aea318d7fe186cb4b1e49a0). Expect trouble.");
    CHECK_INT(in_child(no_modules, NULL, &text), 64);
    CHECK_HAS(text, "Fatal: No modules configured");
}

static void loading(void)
{
    mavis_ctx *chain = NULL;
    char path[4096], config[8192], *text;
    const char *directory = getenv("MODULE_DIR");
    snprintf(path, sizeof path, "%s/libmavis_echo.so", directory);
    CHECK_INT(mavis_method_add(&chain, NULL, path, T("first")), 0);
    CHECK(chain && chain->top == chain && !chain->down);
    CHECK_TEXT(chain->identifier, "first");
    CHECK_TEXT(chain->identity_source_name, NULL);
    CHECK_INT(mavis_method_add(&chain, NULL, path, NULL), 0);
    CHECK_INT(mavis_method_add(&chain, NULL, path, T("third")), 0);
    CHECK_TEXT(chain->down->identifier, "echo");
    CHECK_TEXT(chain->down->down->identifier, "third");
    CHECK(chain->down->down->top == chain && !chain->down->down->down);

    /* Each module reads its own block. */
    struct sym *sym = sym_of("user joe = ACK }");
    CHECK_INT(mavis_parse(chain, sym, T("third")), MAVIS_CONF_OK);
    CHECK_INT(sym->code, S_closebra);
    sym_done(sym);
    sym = sym_of("user joe = ACK }");
    CHECK_INT(mavis_parse(chain, sym, T("fourth")), MAVIS_CONF_ERR);
    sym_done(sym);
    CHECK_INT(mavis_init(chain, T("6"), T(MAVIS_TOKEN_VERSION)), MAVIS_INIT_OK);
    CHECK_TEXT(asked(chain, "joe"), "0 ACK -");
    mavis_drop(chain);

    chain = NULL;
    capture_begin();
    CHECK_INT(mavis_method_add(&chain, NULL, T("/no/such/file.so"), T("x")), -1);
    snprintf(path, sizeof path, "%s/libmavis_hollow.so", directory);
    CHECK_INT(mavis_method_add(&chain, NULL, path, T("x")), -1);
    text = capture_end();
    CHECK_TEXT(text, "");
    CHECK(!chain);

    sym = sym_of("module = nowhere { } end");
    capture_begin();
    CHECK_INT(parse_mavismodule(&chain, NULL, sym), -1);
    text = capture_end();
    CHECK_TEXT(text, with_lines("[syslog 67] Error test.cfg:@0: FATAL: module 'nowhere' not found.\n"));
    CHECK_TEXT(sym->buf, "nowhere");
    sym_done(sym);

    /* A path instead of a name; a block that is bad. */
    snprintf(config, sizeof config, "module named = \"%s/libmavis_echo.so\" { default = ACK } end", directory);
    sym = sym_of(config);
    CHECK_INT(parse_mavismodule(&chain, NULL, sym), 0);
    CHECK_TEXT(sym->buf, "end");
    CHECK_TEXT(chain->identity_source_name, "named");
    sym_done(sym);
    sym = sym_of("module = misbehave { mode = bad-block } end");
    CHECK_INT(parse_mavismodule(&chain, NULL, sym), -1);
    sym_done(sym);
    mavis_drop(chain);

    /* A failure at the start is reported. */
    chain = chain_raw(NULL, "module = echo { timeout = -1 }");
    CHECK_INT(mavis_init(chain, T("6"), T(MAVIS_TOKEN_VERSION)), MAVIS_INIT_ERR);
    mavis_drop(chain);
}

static char *decrypt(const char *text, const char *key)
{
    char *result = (char *)malloc(strlen(text) + strlen(key) + 2);
    sprintf(result, "%s:%s", text, key);
    return result;
}

static void type6(void)
{
    CHECK_TEXT(mavis_decrypt_type6(T("text")), NULL);
    mavis_set_type6(decrypt, NULL);
    CHECK_TEXT(mavis_decrypt_type6(T("text")), NULL);
    mavis_set_type6(NULL, T("key"));
    CHECK_TEXT(mavis_decrypt_type6(T("text")), NULL);
    mavis_set_type6(decrypt, T("key"));
    char *text = mavis_decrypt_type6(T("text"));
    CHECK_TEXT(text, "text:key");
    free(text);
}

int main(void)
{
    init_common_data();
    hooks();
    results();
    actions();
    request_check();
    versions();
    loading();
    type6();
    return check_result();
}

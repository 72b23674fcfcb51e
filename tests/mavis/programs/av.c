/* Attribute sets: values, copies, callbacks, names. */
#include "check.h"

static void values(void)
{
    int marker;
    av_ctx *ac = av_new(T("callback"), &marker);
    CHECK_TEXT((char *)ac->app_cb, "callback");
    CHECK(ac->app_ctx == &marker);
    for (int i = 0; i < AV_A_ARRAYSIZE; i++)
        CHECK(!ac->arr[i]);

    char value[] = "joe";
    av_set(ac, AV_A_USER, value);
    value[0] = 'x';
    CHECK_TEXT(av_get(ac, AV_A_USER), "joe");
    CHECK(av_get(ac, AV_A_USER) == ac->arr[AV_A_USER]);
    av_set(ac, AV_A_USER, T("kim"));
    CHECK_TEXT(av_get(ac, AV_A_USER), "kim");
    av_set(ac, AV_A_USER, T(""));
    CHECK_TEXT(av_get(ac, AV_A_USER), "");
    av_unset(ac, AV_A_USER);
    CHECK_TEXT(av_get(ac, AV_A_USER), NULL);
    av_unset(ac, AV_A_USER);

    /* Values are malloc'ed; anything else would crash here. */
    av_set(ac, AV_A_USER, T("joe"));
    free(ac->arr[AV_A_USER]);
    ac->arr[AV_A_USER] = strdup("changed");
    CHECK_TEXT(av_get(ac, AV_A_USER), "changed");

    if (!original) {
        /* The value may be a part of the attribute's current text. */
        av_set(ac, AV_A_USER, av_get(ac, AV_A_USER) + 3);
        CHECK_TEXT(av_get(ac, AV_A_USER), "nged");
        av_setf(ac, AV_A_USER, T("%s%s"), av_get(ac, AV_A_USER), av_get(ac, AV_A_USER));
        CHECK_TEXT(av_get(ac, AV_A_USER), "ngednged");
    }

    static const int outside[] = { -1, -2000000000, 57, 58, 1000, 2000000000 };
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        av_set(ac, outside[i], T("x"));
        CHECK_TEXT(av_get(ac, outside[i]), NULL);
    }
    av_set(ac, AV_A_ARRAYSIZE, T("x"));
    CHECK_TEXT((char *)ac->app_cb, "callback");
    if (!original)
        CHECK_TEXT(av_get(ac, AV_A_ARRAYSIZE), NULL);

    av_setcb(ac, T("other"), &ac);
    CHECK_TEXT((char *)ac->app_cb, "other");
    CHECK(ac->app_ctx == &ac);

    av_set(ac, AV_A_CURRENT_MODULE, T("last"));
    CHECK_TEXT(av_get(ac, AV_A_CURRENT_MODULE), "last");
    av_clear(ac);
    for (int i = 0; i < AV_A_ARRAYSIZE; i++)
        CHECK(!ac->arr[i]);
    CHECK_TEXT((char *)ac->app_cb, "other");
    av_clear(NULL);
    av_free(ac);
    av_free(NULL);
}

static void formats(void)
{
    av_ctx *ac = av_new(NULL, NULL);
    av_setf(ac, AV_A_COMMENT, T("%s %d %u %ld %5.2f %c %x"), "text", -5, 7U, 123456789012L, 1.5, 'c', 255);
    CHECK_TEXT(av_get(ac, AV_A_COMMENT), "text -5 7 123456789012  1.50 c ff");
    av_setf(ac, AV_A_COMMENT, T("plain"));
    CHECK_TEXT(av_get(ac, AV_A_COMMENT), "plain");
    av_setf(ac, -1, T("%s"), "x");
    av_setf(ac, AV_A_ARRAYSIZE, T("%s"), "x");
    CHECK(!ac->app_cb);
    /* More arguments than fit into registers. */
    av_setf(ac, AV_A_COMMENT, T("%d%d%d%d%d%d%d%d%d%d"), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    CHECK_TEXT(av_get(ac, AV_A_COMMENT), "0123456789");

    av_add(ac, AV_A_GIDS, T(","), T("%d"), 1);
    CHECK_TEXT(av_get(ac, AV_A_GIDS), "1");
    av_add(ac, AV_A_GIDS, T(","), T("%d"), 20);
    CHECK_TEXT(av_get(ac, AV_A_GIDS), "1,20");
    av_add(ac, AV_A_GIDS, NULL, T("%s"), "0");
    CHECK_TEXT(av_get(ac, AV_A_GIDS), "1,200");
    av_add(ac, AV_A_GIDS, T(", "), T("%d-%d"), 3, 4);
    CHECK_TEXT(av_get(ac, AV_A_GIDS), "1,200, 3-4");

    /* A value longer than any buffer on its way. */
    char *longer = (char *)malloc(200001);
    memset(longer, 'a', 200000);
    longer[200000] = 0;
    av_set(ac, AV_A_COMMENT, longer);
    CHECK_TEXT(av_get(ac, AV_A_COMMENT), longer);
    longer[60000] = 0;
    av_setf(ac, AV_A_COMMENT, T("%s."), longer);
    CHECK_INT(strlen(av_get(ac, AV_A_COMMENT)), 60001);
    av_add(ac, AV_A_COMMENT, T("-"), T("%s"), "end");
    CHECK_TEXT(av_get(ac, AV_A_COMMENT) + 60000, ".-end");
    free(longer);
    av_free(ac);
}

static void copies(void)
{
    av_ctx *a = av_new(T("a"), NULL), *b = av_new(T("b"), NULL);
    av_set(a, AV_A_USER, T("joe"));
    av_set(a, AV_A_REALM, T("default"));
    av_set(b, AV_A_USER, T("kim"));
    av_set(b, AV_A_COMMENT, T("gone"));
    av_copy(b, a);
    CHECK_TEXT(av_get(b, AV_A_USER), "joe");
    CHECK_TEXT(av_get(b, AV_A_REALM), "default");
    CHECK_TEXT(av_get(b, AV_A_COMMENT), NULL);
    CHECK(av_get(a, AV_A_USER) != av_get(b, AV_A_USER));
    CHECK_TEXT(av_get(a, AV_A_USER), "joe");
    CHECK_TEXT((char *)b->app_cb, "b");

    av_set(b, AV_A_USER, T("kim"));
    av_set(b, AV_A_CURRENT_MODULE, T("m"));
    av_unset(b, AV_A_REALM);
    av_set(a, AV_A_HOME, T("/home"));
    av_merge(b, a);
    CHECK_TEXT(av_get(b, AV_A_USER), "kim");
    CHECK_TEXT(av_get(b, AV_A_REALM), "default");
    CHECK_TEXT(av_get(b, AV_A_HOME), "/home");
    CHECK_TEXT(av_get(b, AV_A_CURRENT_MODULE), "m");
    CHECK_TEXT(av_get(a, AV_A_REALM), "default");

    char *home = av_get(b, AV_A_HOME);
    av_move(a, b);
    CHECK(av_get(a, AV_A_HOME) == home);
    CHECK_TEXT(av_get(a, AV_A_USER), "kim");
    for (int i = 0; i < AV_A_ARRAYSIZE; i++)
        CHECK(!b->arr[i]);
    CHECK_TEXT((char *)a->app_cb, "a");
    CHECK_TEXT((char *)b->app_cb, "b");
    av_free(a);
    av_free(b);
}

static void private_values(void)
{
    static const int kept[] = { AV_A_PATH, AV_A_UID, AV_A_GID, AV_A_HOME, AV_A_ROOT, AV_A_SHELL, AV_A_GIDS, AV_A_MEMBEROF,
                                AV_A_DN, AV_A_IDENTITY_SOURCE, AV_A_SSHKEYHASH, AV_A_SSHKEY, AV_A_SSHKEYID, AV_A_ARGS,
                                AV_A_RARGS, AV_A_VERDICT, AV_A_CUSTOM_0, AV_A_CUSTOM_1, AV_A_CUSTOM_2, AV_A_CUSTOM_3 };
    av_ctx *ac = av_new(T("cb"), NULL);
    for (int i = 0; i < AV_A_ARRAYSIZE; i++)
        av_setf(ac, i, T("v%d"), i);
    av_free_private(ac);
    for (int i = 0; i < AV_A_ARRAYSIZE; i++) {
        int is_kept = 0;
        for (size_t k = 0; k < sizeof kept / sizeof *kept; k++)
            is_kept |= kept[k] == i;
        if (!!av_get(ac, i) != is_kept) {
            check_failures++;
            printf("%s:%d: expected attribute %d to be %s\n", __FILE__, __LINE__, i, is_kept ? "kept" : "unset");
        }
    }
    CHECK_TEXT((char *)ac->app_cb, "cb");
    av_free_private(NULL);
    av_free(ac);
}

static void names(void)
{
    CHECK_INT(av_attribute_to_i(T("user")), AV_A_USER);
    CHECK_INT(av_attribute_to_i(T("USER")), AV_A_USER);
    CHECK_INT(av_attribute_to_i(T("UsEr")), AV_A_USER);
    CHECK_INT(av_attribute_to_i(T("ssh-key")), AV_A_SSHKEY);
    CHECK_INT(av_attribute_to_i(T("SSH-KEY")), -1);
    CHECK_INT(av_attribute_to_i(T("type")), AV_A_TYPE);
    CHECK_INT(av_attribute_to_i(T("PASSWDNEW")), AV_A_PASSWORD_NEW);
    CHECK_INT(av_attribute_to_i(T("password-new")), AV_A_PASSWORD_NEW);
    CHECK_INT(av_attribute_to_i(T("tls_peer_data")), AV_A_CERTDATA);
    CHECK_INT(av_attribute_to_i(T("CERTDATA")), -1);
    CHECK_INT(av_attribute_to_i(T("")), -1);
    CHECK_INT(av_attribute_to_i(T("nobody")), -1);
    CHECK_INT(av_attribute_to_i(T("$user")), -1);
    for (int i = 0; i < AV_A_ARRAYSIZE; i++) {
        CHECK_INT(av_attribute_to_i(av_char[i].name), i);
        if (av_char[i].token && i != AV_A_TACTYPE)
            CHECK_INT(av_attribute_to_i(codestring[av_char[i].token].txt), i);
    }
    CHECK_INT(av_char[AV_A_CERTSUBJ].token, S_tls_peer_cert_subject);
    CHECK_INT(av_char[AV_A_TACTYPE].token, S_type);
    CHECK_INT(av_char[AV_A_CURRENT_MODULE].token, S_unknown);
    CHECK_TEXT(av_char[AV_A_CERTDATA].name, "TLS_PEER_DATA");

    static const struct {
        const char *text;
        int index;
    } tokens[] = { { "user", AV_A_USER },  { "$user", AV_A_USER }, { "$USER", AV_A_USER }, { "COMMENT", AV_A_COMMENT },
                   { "$ssh-key", AV_A_SSHKEY }, { "\"$realm\"", AV_A_REALM }, { "bogus", -1 }, { "type", AV_A_TYPE },
                   { "$$user", -1 },       { "tactype", AV_A_TACTYPE } };
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        struct sym *sym = sym_of(tokens[i].text);
        CHECK_INT(av_attr_token_to_i(sym), tokens[i].index);
        sym_done(sym);
    }
}

static void dump(void)
{
    av_ctx *ac = av_new(NULL, NULL);
    av_set(ac, AV_A_TACTYPE, T("HOST"));
    av_set(ac, AV_A_TYPE, T("TACPLUS"));
    av_set(ac, AV_A_PASSWORD_MUSTCHANGE, T("yes"));
    capture_begin();
    av_dump(ac);
    char *text = capture_end();
    CHECK_TEXT(text, "attribute-value-pairs:\n"
                     "TYPE                TACPLUS\n"
                     "TACTYPE             HOST\n"
                     "PASSWORD_MUSTCHANGE yes\n\n");
    free(text);
    av_free(ac);
}

int main(void)
{
    values();
    formats();
    copies();
    private_values();
    names();
    dump();
    return check_result();
}

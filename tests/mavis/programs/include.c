/* Includes and aliases: what puts other tokens into a file. */
#include "tokens.h"
#include <mavis/internal.h>

static void includes(void)
{
    char line[4096];
    char *one = test_file("inc1.cfg", "one {\n}\n"), *two = test_file("inc2.cfg", "two"), *sub = test_path("inc*.cfg");
    snprintf(line, sizeof line, "a include = %s b include \"%s\" c\nd include %s e", one, two, sub);
    struct sym *sym = sym_of(line);
    static const char *const texts[] = { "a", "one", "{", "}", "b", "two", "c", "d", "one", "{", "}", "two", "e", "" };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        CHECK_TEXT(sym->buf, texts[i]);
        if (!strcmp(texts[i], "c")) {
            CHECK_TEXT(sym->filename, "test.cfg");
            CHECK(!sym->next);
        } else if (!strcmp(texts[i], "one")) {
            CHECK_TEXT(sym->filename, one);
            CHECK(sym->next != NULL);
        }
        sym_get(sym);
    }
    sym_done(sym);

    sym = sym_raw("a include b");
    sym->flag_prohibit_include = 1;
    sym_init(sym);
    TOKEN(sym, S_string, "a");
    TOKEN(sym, S_include, "include");
    TOKEN(sym, S_string, "b");
    sym_done(sym);

    snprintf(line, sizeof line, "a include %s/none*.cfg b", getenv("TEST_DIR"));
    sym = sym_of(line);
    capture_begin();
    sym_get(sym);
    char *text = capture_end();
    CHECK_TEXT(sym->buf, "b");
    CHECK_HAS(text, "No such file or directory");
    CHECK_HAS(text, with_lines("test.cfg:@0: glob("));
    free(text);
    sym_done(sym);

    /* A name without wildcards is opened as it is. */
    snprintf(line, sizeof line, "a include %s/none.cfg b", getenv("TEST_DIR"));
    sym = sym_of(line);
    capture_begin();
    sym_get(sym);
    text = capture_end();
    CHECK_TEXT(sym->buf, "b");
    CHECK_HAS(text, "No such file or directory");
    free(text);
    sym_done(sym);

    /* $CONFDIR is the directory of the configuration. The original reads freed memory. */
    char *directory = test_path("");
    common_data.conffile = T("test.cfg");
    common_data.confdir = directory;
    if (!original) {
        sym = sym_of("a include $CONFDIR/inc2.cfg b");
        sym_get(sym);
        TOKEN(sym, S_string, "two");
        TOKEN(sym, S_string, "b");
        sym_done(sym);
    }
    free(directory);
    free(one);
    free(two);
    free(sub);
}

static void endless_alias(void *arg)
{
    struct sym *sym = sym_of("alias = again { again } x again y");
    (void)arg;
    sym->env_valid = 1;
    if (!setjmp(sym->env)) {
        parse_common(sym);
        for (int i = 0; i < 10 && sym->code != S_eof; i++)
            sym_get(sym);
    }
}

static void aliases(void)
{
    struct sym *sym = sym_of("alias = pair { \"a b\" = user } alias both { pair pair } x pair \"pair\" both end");
    parse_common(sym);
    parse_common(sym);
    TOKEN(sym, S_string, "x");
    for (int i = 0; i < 4; i++) {
        TOKEN(sym, S_string, "a b");
        TOKEN(sym, S_equal, "=");
        CHECK_TEXT(sym->buf, "user");
        sym_get(sym);
    }
    TOKEN(sym, S_string, "end");
    sym_done(sym);

    struct token_list **list = add_alias(T("made"));
    struct sym *tokens = sym_of("one \"two three\"");
    add_token_to_alias(list, tokens);
    sym_get(tokens);
    add_token_to_alias(list, tokens);
    sym_done(tokens);
    sym = sym_of("made end");
    CHECK_TEXT(sym->buf, "one");
    sym_get(sym);
    CHECK_TEXT(sym->buf, "two three");
    sym_get(sym);
    TOKEN(sym, S_string, "end");
    sym_done(sym);

    if (!original) {
        /* An alias for itself is a mistake or a word, but must not crash or hang. */
        int status = in_child(endless_alias, NULL, NULL);
        CHECK(status == RETURNED || status == 78);
        sym = sym_of("alias = nothing { } x nothing y");
        parse_common(sym);
        TOKEN(sym, S_string, "x");
        TOKEN(sym, S_string, "y");
        sym_done(sym);
    }
}

int main(void)
{
    init_common_data();
    includes();
    aliases();
    return check_result();
}

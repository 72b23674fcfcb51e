/* Mistakes in a configuration: messages, and where control goes. */
#include "check.h"
#include <mavis/debug.h>
#include <mavis/internal.h>
#include <mavis/scm.h>
#include <sys/socket.h>
#include <syslog.h>

/* The position in the outermost file counts, not that in the included one. */
static void included(void *arg)
{
    struct sym *sym = (struct sym *)arg, *inner = sym_of("x"), *middle = sym_of("y");
    inner->next = middle;
    middle->next = sym;
    inner->filename = T("inner.cfg");
    if (!setjmp(sym->env))
        parse_error(inner, T("deep"));
}

static void jumps(void)
{
    struct sym *sym = sym_of("a\nb\nc d");
    char *text;
    volatile int value;
    sym_get(sym);
    sym_get(sym);
    capture_begin();
    sym->env_valid = 1;
    value = setjmp(sym->env);
    if (!value)
        parse_error(sym, T("bad %s %d"), "thing", 7);
    text = capture_end();
    CHECK_INT(value, 1);
    CHECK_TEXT(text, with_lines("[syslog 67] Error test.cfg:@2: bad thing 7\n"));
    free(text);

    /* The parser can be used again. */
    CHECK_TEXT(sym->buf, "c");
    sym_get(sym);
    CHECK_TEXT(sym->buf, "d");

    CHECK_INT(in_child(included, sym, &text), RETURNED);
    CHECK_HAS(text, with_lines("[syslog 67] Error inner.cfg:@0: deep\n"));
    free(text);

    /* Many values, and a long message. */
    static char longer[100001];
    memset(longer, 'a', 100000);
    capture_begin();
    if (!setjmp(sym->env))
        parse_error(sym, T("%d%d%d%d%d%d%d%d%.1f%s!"), 1, 2, 3, 4, 5, 6, 7, 8, 9.5, longer);
    text = capture_end();
    CHECK_HAS(text, with_lines("test.cfg:@2: 123456789.5aaaa"));
    CHECK_HAS(text, "aaaa!\n");
    free(text);
    sym_done(sym);
}

static void expected(void)
{
    CHECK_PARSE_ERROR("bogus", parse_error_expect(sym, S_script, S_closebra, S_action, S_unknown),
                      "[syslog 67] Error test.cfg:@0: Expected 'action', 'script' or '}', but got 'bogus'\n");
    CHECK_PARSE_ERROR("bogus", parse_error_expect(sym, S_user, S_unknown), "test.cfg:@0: Expected 'user', but got 'bogus'\n");
    CHECK_PARSE_ERROR("bogus", parse_error_expect(sym, S_user, S_and, S_unknown), ": Expected '&&' or 'user', but got 'bogus'\n");
    if (!original) /* the original leaves empty places for the second ones */
        CHECK_PARSE_ERROR("bogus", parse_error_expect(sym, S_user, S_and, S_user, S_user, S_and, S_unknown),
                          ": Expected '&&' or 'user', but got 'bogus'\n");
    /* More arguments than fit into registers. */
    CHECK_PARSE_ERROR("bogus",
                      parse_error_expect(sym, S_yes, S_no, S_path, S_userid, S_groupid, S_mode, S_timeout, S_exec, S_setenv, S_home,
                                         S_closebra, S_unknown),
                      ": Expected 'exec', 'groupid', 'home', 'mode', 'no', 'path', 'setenv', 'timeout', 'userid', 'yes' or "
                      "'}', but got 'bogus'\n");
}

static void to_the_terminal(void)
{
    struct sym *sym = sym_of("first second third");
    char *text;
    sym_get(sym);
    common_data.debugstderr = 1;
    capture_begin();
    sym->env_valid = 1;
    if (!setjmp(sym->env))
        parse_error(sym, T("bad"));
    text = capture_end();
    common_data.debugstderr = 0;
    CHECK_HAS(text, "first second");
    CHECK_HAS(text, with_lines("\ntest.cfg:@0: bad\n"));
    free(text);
    sym_done(sym);
}

static void without_place(void *arg)
{
    struct sym *sym = sym_of("bogus");
    if (arg)
        parse_error_expect(sym, S_user, S_unknown);
    parse_error(sym, T("no place"));
}

static int exited;
static void at_exit(void)
{
    if (!exited)
        dprintf(2, "handlers of exit have run\n");
}

static void without_place_but_handler(void *arg)
{
    atexit(at_exit);
    without_place(arg);
}

static void exits(void)
{
    char *text;
    CHECK_INT(in_child(without_place, NULL, &text), 78);
    CHECK_HAS(text, with_lines("[syslog 67] Error test.cfg:@0: no place\n"));
    free(text);
    CHECK_INT(in_child(without_place_but_handler, &text, &text), 78);
    CHECK_HAS(text, "Expected 'user', but got 'bogus'\n");
    CHECK_HAS(text, "handlers of exit have run\n");
    free(text);
    exited = 1;
}

static void section(struct sym *sym)
{
    parse(sym, S_user);
    parse_error(sym, T("in the section"));
}

static void read_config(void *arg)
{
    init_common_data();
    cfg_read_config((char *)arg, section, T("test"));
}

static void conditional(struct sym *sym)
{
    parse(sym, S_user);
    mavis_cond_parse(sym, NULL);
}

static void read_condition(void *arg)
{
    init_common_data();
    cfg_read_config((char *)arg, conditional, T("test"));
}

/* A mistake within parentheses is treated like any other. */
static void bad_condition(int broker)
{
    struct scm_data message = { SCM_DONE, 0 };
    char *text, *path = test_file("condition.cfg", "id = test {\n user (USER == joe && NOSUCH == x)\n}\n");
    CHECK_INT(in_child(read_condition, path, &text), 78);
    CHECK_HAS(text, "'NOSUCH' is not a recognized attribute\n");
    if (!original) { /* the original does not tell the broker, which starts the worker again */
        CHECK_HAS(text, "Detected fatal configuration error. Exiting.");
        CHECK_INT(recv(broker, &message, sizeof message, MSG_DONTWAIT), 8);
        CHECK_INT(message.type, SCM_BAD_CFG);
    }
    free(text);
}

/* With debug flags, too, a fatal error is logged as an error. */
static void under_debug(void)
{
    struct sym *sym = sym_of("x");
    char *volatile text = NULL;
    common_data.debug = DEBUG_CONFIG_FLAG;
    PARSE_ERROR_OF(sym, parse_error(sym, T("bad")), text);
    CHECK_HAS(text, with_lines(original ? "[syslog 71] Error test.cfg:@0: bad\n" : "[syslog 67] Error test.cfg:@0: bad\n"));
    common_data.debug = 0;
    sym_done(sym);
}

/* For a file that the library reads itself, it tells the broker on descriptor 0, and exits. */
static void own_files(void)
{
    struct scm_data message = { SCM_DONE, 0 };
    int pair[2];
    char *text, *path = test_file("bad.cfg", "id = test {\n user bogus\n}\n");
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
        exit(2);
    int saved = dup(0);
    dup2(pair[1], 0);
    CHECK_INT(in_child(read_config, path, &text), 78);
    CHECK_HAS(text, with_lines("bad.cfg:@1: in the section\n"));
    CHECK_HAS(text, "Detected fatal configuration error. Exiting.");
    struct pollfd ready = { pair[0], POLLIN, 0 };
    CHECK_INT(poll(&ready, 1, 5000), 1);
    CHECK_INT(recv(pair[0], &message, sizeof message, MSG_DONTWAIT), 8);
    CHECK_INT(message.type, SCM_BAD_CFG);
    bad_condition(pair[0]);
    dup2(saved, 0);
    free(text);
    free(path);
}

/* A mistake that the program forgives, as tac_plus-ng does for groups: control returns to where the reader that the
 * library armed says. */
static void forgive(struct sym *sym, const char *word)
{
    if (!setjmp(sym->env))
        parse_error(sym, T("no '%s' here"), word);
}

static void forgiving(struct sym *sym)
{
    CHECK(sym->env_valid != 0);
    while (sym->code != S_closebra) {
        if (!strcmp(sym->buf, "fatal"))
            parse_error(sym, T("this is too much"));
        forgive(sym, sym->buf);
        sym_get(sym);
    }
}

/* Sets a place to return to that is good for the whole section. */
static void persistent(struct sym *sym)
{
    volatile int mistakes = 0;
    sym->env_valid = 1;
    if (setjmp(sym->env)) {
        mistakes = mistakes + 1;
        sym_get(sym);
    }
    while (sym->code != S_closebra)
        parse_error(sym, T("mistake %d"), mistakes);
    CHECK_INT(mistakes, 3);
}

static void read_forgiving(void *path)
{
    init_common_data();
    cfg_read_config((char *)path, forgiving, T("test"));
}

static void read_persistent(void *path)
{
    init_common_data();
    cfg_read_config((char *)path, persistent, T("test"));
}

static void own_places(void)
{
    struct scm_data message = { SCM_DONE, 0 };
    int pair[2];
    char *text, *path = test_file("forgiven.cfg", "id = test {\n one\n two\n three\n}\n");
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
        exit(2);
    int saved = dup(0);
    dup2(pair[1], 0);
    CHECK_INT(in_child(read_forgiving, path, &text), RETURNED);
    CHECK_HAS(text, with_lines("forgiven.cfg:@1: no 'one' here\n"));
    CHECK_HAS(text, with_lines("forgiven.cfg:@3: no 'three' here\n"));
    CHECK(!strstr(text, "Detected"));
    free(text);
    CHECK_INT(in_child(read_persistent, path, &text), RETURNED);
    CHECK_HAS(text, with_lines("forgiven.cfg:@3: mistake 2\n"));
    free(text);
    /* The broker was told nothing. */
    CHECK_INT(recv(pair[0], &message, sizeof message, MSG_DONTWAIT), -1);
    if (!original) { /* the original jumps into the function that has returned */
        path = test_file("forgiven.cfg", "id = test {\n one\n fatal\n}\n");
        CHECK_INT(in_child(read_forgiving, path, &text), 78);
        CHECK_HAS(text, with_lines("forgiven.cfg:@1: no 'one' here\n"));
        CHECK_HAS(text, with_lines("forgiven.cfg:@2: this is too much\n"));
        CHECK_HAS(text, "Detected fatal configuration error. Exiting.");
        CHECK_INT(recv(pair[0], &message, sizeof message, MSG_DONTWAIT), 8);
        CHECK_INT(message.type, SCM_BAD_CFG);
        free(text);
    }
    dup2(saved, 0);
}

static char *report(int priority, int level)
{
    capture_begin();
    report_cfg_error(priority, level, T("%s %d"), "text", 5);
    return capture_end();
}

static void reports(void)
{
    char expected[64];
    snprintf(expected, sizeof expected, "%d: text 5\n", (int)getpid());
    CHECK_TEXT(report(LOG_ERR, ~0), "[syslog 67] Error text 5\n");
    CHECK_TEXT(report(LOG_INFO, ~0), "[syslog 70] text 5\n");
    CHECK_TEXT(report(LOG_DEBUG, ~0), "");
    common_data.parse_only = 1;
    CHECK_TEXT(report(LOG_ERR, ~0), expected);
    CHECK_TEXT(report(LOG_INFO, ~0), expected);
    CHECK_TEXT(report(LOG_DEBUG, ~0), "");
    common_data.parse_only = 0;

    common_data.debug = DEBUG_CONFIG_FLAG;
    CHECK_TEXT(report(LOG_DEBUG, DEBUG_ACL_FLAG), "");
    CHECK_TEXT(report(LOG_INFO, DEBUG_ACL_FLAG), "[syslog 70] text 5\n");
    CHECK_TEXT(report(LOG_DEBUG, DEBUG_CONFIG_FLAG), "[syslog 71] text 5\n");
    CHECK_TEXT(report(LOG_ERR, DEBUG_CONFIG_FLAG), "[syslog 71] Error text 5\n");
    common_data.debugstderr = 1;
    CHECK_TEXT(report(LOG_DEBUG, DEBUG_CONFIG_FLAG), expected);
    CHECK_TEXT(report(LOG_ERR, DEBUG_CONFIG_FLAG), expected);
    common_data.debugstderr = 0;
    common_data.debugtty = 1;
    CHECK_TEXT(report(LOG_DEBUG, DEBUG_CONFIG_FLAG), expected);
    common_data.debugtty = 0;
    common_data.debug = 0;
}

int main(void)
{
    init_common_data();
    jumps();
    expected();
    to_the_terminal();
    exits();
    own_files();
    own_places();
    under_debug();
    reports();
    return check_result();
}

/* Helpers of the parser. */
#include "check.h"
#include <grp.h>
#include <limits.h>
#include <mavis/debug.h>
#include <pwd.h>
#include <syslog.h>

static void simple(void)
{
    struct sym *sym = sym_of("user = x yes permit true no deny false permit deny , , , a");
    parse(sym, S_user);
    parse(sym, S_equal);
    CHECK_TEXT(sym->buf, "x");
    parse(sym, S_string);
    for (int i = 0; i < 3; i++)
        CHECK_INT(parse_bool(sym), 1);
    for (int i = 0; i < 3; i++)
        CHECK_INT(parse_bool(sym), 0);
    CHECK_INT(parse_permission(sym), S_permit);
    CHECK_INT(parse_permission(sym), S_deny);
    CHECK_INT(parse_comma(sym), -1);
    CHECK_TEXT(sym->buf, "a");
    CHECK_INT(parse_comma(sym), 0);
    CHECK_TEXT(sym->buf, "a");
    sym_done(sym);

    CHECK_PARSE_ERROR("user", parse(sym, S_equal), "Expected '=', but got 'user'");
    CHECK_PARSE_ERROR("maybe", parse_bool(sym), "but got 'maybe'");
    CHECK_PARSE_ERROR("maybe", parse_bool(sym), "'yes'");
    CHECK_PARSE_ERROR("maybe", parse_permission(sym), "Expected 'deny' or 'permit', but got 'maybe'");
}

static void numbers(void)
{
    static const struct {
        const char *text;
        int value;
    } numbers[] = { { "0", 0 },       { "42", 42 },      { "-5", -5 },      { "0x10", 16 },   { "0xff", 255 },     { "2k", 2048 },
                    { "2K", 2048 },   { "1m", 1048576 }, { "1M", 1048576 }, { "1g", 1 << 30 }, { "1kilobyte", 1024 }, { "1G", 1 << 30 } },
      seconds[] = { { "0", 0 }, { "90", 90 }, { "90s", 90 }, { "2m", 120 }, { "2M", 120 }, { "3h", 10800 }, { "1d", 86400 }, { "1D", 86400 } };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sym *sym = sym_of(numbers[i].text);
        CHECK_INT(parse_int(sym), numbers[i].value);
        CHECK_INT(sym->code, S_eof);
        sym_done(sym);
        if (numbers[i].value < 0)
            continue;
        sym = sym_of(numbers[i].text);
        CHECK_INT(parse_uint(sym), numbers[i].value);
        CHECK_INT(sym->code, S_eof);
        sym_done(sym);
    }
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        struct sym *sym = sym_of(seconds[i].text);
        CHECK_INT(parse_seconds(sym), seconds[i].value);
        CHECK_INT(sym->code, S_eof);
        sym_done(sym);
    }
    struct sym *sym = sym_of("3000000000 4");
    CHECK_INT(parse_uint(sym), 3000000000U);
    /* `4` to `9` are words of the language, and still numbers. */
    CHECK_INT(sym->code, S_4);
    CHECK_INT(parse_int(sym), 4);
    sym_done(sym);
    /* A number with too many bits wraps. */
    static const struct {
        const char *text;
        int value;
    } large[] = { { "-1", -1 },     { "4294967295", -1 },          { "0xffffffff", -1 },       { "2147483648", INT_MIN },
                  { "8g", 0 },      { "3g", -1073741824 },         { "99999999999", 1215752191 }, { "5000000m", -1275068416 },
                  { "0xfffffff0k", -16384 }, { "99999999999999999999999", -1 } };
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        capture_begin();
        sym = sym_of(large[i].text);
        CHECK_INT(parse_int(sym), large[i].value);
        CHECK_INT(sym->code, S_eof);
        sym_done(sym);
        sym = sym_of(large[i].text);
        CHECK_INT(parse_uint(sym), (unsigned int)large[i].value);
        sym_done(sym);
        free(capture_end());
    }
    if (!original) { /* the original says nothing */
        capture_begin();
        sym = sym_of("8g");
        parse_int(sym);
        sym_done(sym);
        char *text = capture_end();
        CHECK_HAS(text, "test.cfg:1: '8g' has more than 32 bits, and counts as 0\n");
        free(text);
    }
    CHECK_PARSE_ERROR("ten", parse_int(sym), "xpected an integer, but got 'ten'");
    CHECK_PARSE_ERROR("10x", parse_int(sym), "xpected an integer, but got '10x'");
    CHECK_PARSE_ERROR("10s", parse_uint(sym), "integer, but got '10s'");
    CHECK_PARSE_ERROR("10x", parse_seconds(sym), "but got '10x'");
    CHECK_PARSE_ERROR("", parse_int(sym), "xpected an integer");
}

static void ids(void)
{
    uid_t uid = 77;
    gid_t gid = 88;
    mode_t mode = 0;
    struct sym *sym = sym_of("userid = 123 groupid = 456 umask = 027 end");
    parse_userid(sym, &uid, &gid);
    CHECK_INT(uid, 123);
    CHECK_INT(gid, 88);
    parse_groupid(sym, &gid);
    CHECK_INT(gid, 456);
    parse_umask(sym, &mode);
    CHECK_INT(mode, 027);
    CHECK_TEXT(sym->buf, "end");
    sym_done(sym);

    struct passwd *pw = getpwnam("daemon");
    struct group *gr = getgrnam("daemon");
    if (pw && gr) {
        sym = sym_of("userid = daemon userid = daemon groupid = daemon");
        parse_userid(sym, &uid, &gid);
        CHECK_INT(uid, pw->pw_uid);
        CHECK_INT(gid, pw->pw_gid);
        uid = 77;
        parse_userid(sym, &uid, NULL);
        CHECK_INT(uid, pw->pw_uid);
        gid = 88;
        parse_groupid(sym, &gid);
        CHECK_INT(gid, gr->gr_gid);
        CHECK_INT(sym->code, S_eof);
        sym_done(sym);
    }
    CHECK_PARSE_ERROR("userid = no-such-user", parse_userid(sym, &uid, &gid), "UNIX user 'no-such-user' not found.");
    CHECK_PARSE_ERROR("groupid = no-such-group", parse_groupid(sym, &gid), "UNIX group 'no-such-group' not found.");
    CHECK_PARSE_ERROR("userid 5", parse_userid(sym, &uid, &gid), "Expected '='");
}

static void debug_masks(void)
{
    static const struct {
        const char *text;
        unsigned int before, after;
    } masks[] = { { "PACKET", 0, DEBUG_PACKET_FLAG },
                  { "PACKET AUTHEN ACL", 0, DEBUG_PACKET_FLAG | DEBUG_AUTHEN_FLAG | DEBUG_ACL_FLAG },
                  { "PACKET HEX end", 8, 0x68 },
                  { "ALL", 0, DEBUG_ALL_FLAG },
                  { "ALL -PACKET", 0, DEBUG_ALL_FLAG & ~DEBUG_PACKET_FLAG },
                  { "+MAVIS", 1, 1 | DEBUG_MAVIS_FLAG },
                  { "DNS", 0, DEBUG_DNS_FLAG },
                  { "LWRES", 0, DEBUG_DNS_FLAG },
                  { "NONE", 0xff, DEBUG_NONE_FLAG },
                  { "-NONE", 0, DEBUG_ALL_FLAG },
                  { "3", 8, 0xb },
                  { "0x20", 0, DEBUG_PACKET_FLAG },
                  { "1k", 1, 1025 },
                  { "PACKET 0x40 end", 0, DEBUG_PACKET_FLAG | DEBUG_HEX_FLAG },
                  { "-2", 0, DEBUG_ALL_FLAG & ~DEBUG_PARSE_FLAG },
                  { "-1 -PACKET", 0, DEBUG_ALL_FLAG & ~DEBUG_PACKET_FLAG },
                  { "16", DEBUG_NONE_FLAG | DEBUG_USERINPUT_FLAG, 16 },
                  { "NONE PACKET end", 0xff, DEBUG_NONE_FLAG | DEBUG_PACKET_FLAG },
                  { "NONE PACKET user", 0xff, DEBUG_PACKET_FLAG },
                  { "USERINPUT", 1, 1 | DEBUG_USERINPUT_FLAG },
                  { "CONTROL INDEX AV NET PATH PROC BUFFER CMD REGEX LOCK CONFIG ACCT AUTHOR PARSE", 0,
                    DEBUG_CONTROL_FLAG | DEBUG_INDEX_FLAG | DEBUG_AV_FLAG | DEBUG_NET_FLAG | DEBUG_PATH_FLAG | DEBUG_PROC_FLAG |
                        DEBUG_BUFFER_FLAG | DEBUG_CMD_FLAG | DEBUG_REGEX_FLAG | DEBUG_LOCK_FLAG |
                        DEBUG_CONFIG_FLAG | DEBUG_ACCT_FLAG | DEBUG_AUTHOR_FLAG | DEBUG_PARSE_FLAG } };
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        struct sym *sym = sym_of(masks[i].text);
        unsigned int mask = masks[i].before;
        parse_debug(sym, &mask);
        CHECK_INT(mask, masks[i].after);
        if (strstr(masks[i].text, "end"))
            CHECK_TEXT(sym->buf, "end");
        else if (strstr(masks[i].text, "user"))
            CHECK_INT(sym->code, S_user);
        else
            CHECK_INT(sym->code, S_eof);
        sym_done(sym);
    }
}

/* Words are shown from the one after PARSE on. */
static void trace(void)
{
    struct sym *sym = sym_of("PARSE one two");
    capture_begin();
    parse_debug(sym, &common_data.debug);
    sym_get(sym);
    char *text = capture_end();
    common_data.debug = 0;
    CHECK_HAS(text, with_lines("[syslog 71] file=test.cfg line="));
    CHECK_HAS(text, "buf='one'\n");
    CHECK_HAS(text, "buf='two'\n");
    free(text);
    sym_done(sym);
    CHECK_PARSE_ERROR("7t", parse_debug(sym, &common_data.debug), "xpected an integer, but got '7t'");
}

static void read_common(struct sym *sym)
{
    while (sym->code != S_closebra)
        parse_common(sym);
}

/* Names that syslog does not know are ignored. */
static void unknown_names(void)
{
    char *path = test_file("names.cfg", "syslog facility = NOPE id = test { syslog severity = NEVER syslog facility = NOWHERE proctitle = read }");
    common_data.proctitle = NULL;
    capture_begin();
    cfg_read_config(path, read_common, T("test"));
    char *text = capture_end();
    CHECK_TEXT(common_data.proctitle, "read");
    if (!original) { /* the original says nothing, and takes the number 0 for each */
        CHECK_HAS(text, "[syslog 68] ");
        CHECK_HAS(text, "names.cfg:1: Expected a syslog facility, but got 'NOPE', which is ignored\n");
        CHECK_HAS(text, "Expected a syslog severity, but got 'NEVER', which is ignored\n");
        CHECK_HAS(text, "Expected a syslog facility, but got 'NOWHERE', which is ignored\n");
        CHECK_INT(common_data.syslog_facility, LOG_UUCP);
        CHECK_INT(common_data.syslog_level, LOG_INFO);
    }
    free(text);
    common_data.syslog_facility = LOG_UUCP;
    common_data.syslog_level = LOG_INFO;
}

static void syslog_names(void)
{
    static const struct {
        const char *name;
        int number;
    } levels[] = { { "EMERG", LOG_EMERG }, { "ALERT", LOG_ALERT },   { "CRIT", LOG_CRIT }, { "ERR", LOG_ERR }, { "WARNING", LOG_WARNING },
                   { "NOTICE", LOG_NOTICE }, { "INFO", LOG_INFO }, { "DEBUG", LOG_DEBUG }, { "notice", LOG_NOTICE }, { "Info", LOG_INFO },
                   { "none such", 0 } },
      facilities[] = { { "AUTH", LOG_AUTH },     { "AUTHPRIV", LOG_AUTHPRIV }, { "CRON", LOG_CRON },     { "DAEMON", LOG_DAEMON }, { "KERN", LOG_KERN },
                       { "LOCAL0", LOG_LOCAL0 }, { "LOCAL1", LOG_LOCAL1 },     { "LOCAL2", LOG_LOCAL2 }, { "LOCAL3", LOG_LOCAL3 }, { "LOCAL4", LOG_LOCAL4 },
                       { "LOCAL5", LOG_LOCAL5 }, { "LOCAL6", LOG_LOCAL6 },     { "LOCAL7", LOG_LOCAL7 }, { "LPR", LOG_LPR },       { "MAIL", LOG_MAIL },
                       { "NEWS", LOG_NEWS },     { "SYSLOG", LOG_SYSLOG },     { "USER", LOG_USER },     { "UUCP", LOG_UUCP },     { "FTP", LOG_FTP },
                       { "daemon", LOG_DAEMON }, { "none such", 0 } };
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        CHECK_INT(get_syslog_level(T(levels[i].name)), levels[i].number);
    for (size_t i = 0; i < sizeof facilities / sizeof *facilities; i++)
        CHECK_INT(get_syslog_facility(T(facilities[i].name)), facilities[i].number);
}

static void check_common(const char *directive)
{
    struct sym *sym = sym_of(directive);
    char *text;
    capture_begin();
    parse_common(sym);
    text = capture_end();
    free(text);
    CHECK_INT(sym->code, S_eof);
    sym_done(sym);
}

static void common(void)
{
    char line[4096];
    check_common("debug = PACKET NET");
    CHECK_INT(common_data.debug, DEBUG_PACKET_FLAG | DEBUG_NET_FLAG);
    common_data.debug = 0;
    check_common("trace = ACL");
    CHECK_INT(common_data.debug, DEBUG_ACL_FLAG);
    common_data.debug = 0;
    check_common("syslog level = ERR");
    CHECK_INT(common_data.syslog_level, LOG_ERR);
    check_common("syslog severity = DEBUG");
    CHECK_INT(common_data.syslog_level, LOG_DEBUG);
    check_common("syslog facility = LOCAL3");
    CHECK_INT(common_data.syslog_facility, LOG_LOCAL3);
    check_common("syslog ident = \"who is this\"");
    CHECK_TEXT(common_data.syslog_ident, "who is this");
    CHECK_INT(common_data.syslog_dflt, 1);
    check_common("syslog default = no");
    CHECK_INT(common_data.syslog_dflt, 0);
    check_common("syslog filter = 255");
    CHECK_INT(common_data.syslog_filter, 255);
    check_common("proctitle = \"my title\"");
    CHECK_TEXT(common_data.proctitle, "my title");
    check_common("coredump directory = /var/core");
    CHECK_TEXT(common_data.coredumpdir, "/var/core");
    check_common("gcore = /opt/gcore");
    CHECK_TEXT(common_data.gcorepath, "/opt/gcore");
    check_common("debug-cmd = \"gdb -p\"");
    CHECK_TEXT(common_data.debug_cmd, "gdb -p");
    check_common("setenv MAVIS_TEST_ONE = first");
    CHECK_TEXT(getenv("MAVIS_TEST_ONE"), "first");
    check_common("setenv MAVIS_TEST_ONE second");
    CHECK_TEXT(getenv("MAVIS_TEST_ONE"), "second");
    check_common("cleanup interval = 17");
    CHECK_INT(common_data.cleanup_interval, 17);

    common_data.debugtty = 1;
    check_common("debug redirect = syslog");
    CHECK_INT(common_data.debug_redirected, 0);
    CHECK_INT(common_data.debugtty, 0);
    CHECK_TEXT(common_data.font_red, "");
    check_common("debug redirect = stderr");
    CHECK_INT(common_data.debug_redirected, 1);
    char *path = test_path("redirected");
    snprintf(line, sizeof line, "debug redirect = %s", path);
    struct sym *sym = sym_of(line);
    int saved = dup(2);
    parse_common(sym);
    fputs("to the file\n", stderr);
    fflush(stderr);
    dup2(saved, 2);
    char *text = file_text(path);
    CHECK_TEXT(text, "to the file\n");
    sym_done(sym);
}

int main(void)
{
    init_common_data();
    simple();
    numbers();
    ids();
    debug_masks();
    trace();
    unknown_names();
    syslog_names();
    common();
    return check_result();
}

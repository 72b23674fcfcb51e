/* Messages: syslog and debugging. */
#include "check.h"
#include <mavis/debug.h>
#include <mavis/log.h>
#include <syslog.h>

static char *logged(void (*fn)(void))
{
    capture_begin();
    fn();
    return capture_end();
}

static void plain(void) { logmsg(T("%s %d %ld %c"), "text", -5, 123456789012L, 'x'); }
static void percent(void) { logmsg(T("%s"), "100%s %n"); }
static void many(void) { logmsg(T("%d%d%d%d%d%d%d%d%d %.2f"), 1, 2, 3, 4, 5, 6, 7, 8, 9, 1.25); }
static void failed(void)
{
    errno = ENOENT;
    logerr(T("%s:%d"), "open", 7);
    CHECK_INT(errno, ENOENT);
}

static void longer(void)
{
    static char text[10001];
    memset(text, 'a', 10000);
    logmsg(T("<%s>"), text);
}

/* The original walks its argument list a second time, which is undefined. */
static void failed_longer(void)
{
    static char text[10001];
    memset(text, 'a', 10000);
    errno = EPERM;
    logerr(T("<%s> %d"), text, 42);
}

static void messages(void)
{
    CHECK_TEXT(logged(plain), "[syslog 70] text -5 123456789012 x\n");
    CHECK_TEXT(logged(percent), "[syslog 70] 100%s %n\n");
    CHECK_TEXT(logged(many), "[syslog 70] 123456789 1.25\n");
    CHECK_TEXT(logged(failed), "[syslog 70] open:7: No such file or directory\n");
    char *text = logged(longer);
    CHECK_INT(strlen(text), strlen("[syslog 70] <>\n") + 10000);
    if (!original) {
        text = logged(failed_longer);
        CHECK_HAS(text, "aaa> 42: Operation not permitted\n");
    }

    common_data.syslog_level = LOG_WARNING;
    common_data.syslog_facility = LOG_LOCAL2;
    CHECK_TEXT(logged(percent), "[syslog 148] 100%s %n\n");
    common_data.syslog_level = LOG_INFO;
    common_data.syslog_facility = LOG_UUCP;
}

static void open_log(void)
{
    char expected[128];
    setenv("SYSLOG_SHIM_VERBOSE", "1", 1);
    common_data.progname = T("prog");
    snprintf(expected, sizeof expected, "[openlog prog %d %d]\n", LOG_NDELAY | LOG_PID, LOG_UUCP);
    CHECK_HAS(logged(logopen), expected);
    common_data.syslog_ident = T("ident");
    common_data.syslog_facility = LOG_LOCAL1;
    snprintf(expected, sizeof expected, "[openlog ident %d %d]\n", LOG_NDELAY | LOG_PID, LOG_LOCAL1);
    CHECK_HAS(logged(logopen), expected);
    common_data.syslog_ident = NULL;
    common_data.progname = NULL;
    common_data.syslog_facility = LOG_UUCP;
    snprintf(expected, sizeof expected, "[openlog  %d %d]\n", LOG_NDELAY | LOG_PID, LOG_UUCP);
    CHECK_HAS(logged(logopen), expected);
    unsetenv("SYSLOG_SHIM_VERBOSE");
}

static void debug_lines(void)
{
    debug(DEBUG_PACKET_FLAG, T("+ one %d\n"), 1);
    debug(DEBUG_PACKET_FLAG, T("two %s\n"), "a\tb\001");
    debug(DEBUG_NET_FLAG, T("other\n"));
    debug(DEBUG_PACKET_FLAG, T("- three\n"));
    debug(DEBUG_PACKET_FLAG, T("four\n"));
}

static void in_other_process(void *arg)
{
    (void)arg;
    debug_setpid();
    CHECK_INT(common_data.pid, getpid());
}

static void debugging(void)
{
    char one[32];
    common_data.debug = 0;
    CHECK_TEXT(logged(debug_lines), "");
    common_data.debug = DEBUG_PACKET_FLAG;
    char *text = logged(debug_lines);
    snprintf(one, sizeof one, "%6d: ", (int)common_data.pid);
    CHECK(!strncmp(text, one, strlen(one)));
    CHECK_HAS(text, "+ one 1\n");
    CHECK_HAS(text, "two a^b^\n");
    CHECK(!strstr(text, "other"));
    /* Lines between + and - are indented. */
    char *two = strstr(text, "two"), *four = strstr(text, "four"), *colon = strstr(text, ": ");
    CHECK(colon && colon[2] == '+');
    CHECK(two && two[-1] == ' ' && two[-2] == ' ');
    CHECK(four && four[-1] == ' ' && four[-2] == ':');
    common_data.debug = 0;
    free(text);
    CHECK_INT(in_child(in_other_process, NULL, NULL), RETURNED);
}

int main(void)
{
    init_common_data();
    messages();
    open_log();
    debugging();
    return check_result();
}

/* Preloaded into test programs. Messages for syslog go to stderr, each as a line `[syslog PRIORITY] TEXT`; if the
 * message has no facility, that of openlog is used. With SYSLOG_SHIM_VERBOSE in the environment, openlog and closelog
 * are shown as well. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <unistd.h>

void __syslog_chk(int priority, int flag, const char *format, ...);
void __vsyslog_chk(int priority, int flag, const char *format, va_list values);

static int default_facility = LOG_USER;

void openlog(const char *identity, int option, int facility)
{
    default_facility = facility;
    if (getenv("SYSLOG_SHIM_VERBOSE"))
        dprintf(2, "[openlog %s %d %d]\n", identity ? identity : "NULL", option, facility);
}

void closelog(void)
{
    if (getenv("SYSLOG_SHIM_VERBOSE"))
        dprintf(2, "[closelog]\n");
}

void vsyslog(int priority, const char *format, va_list values)
{
    char *text;
    if (!(priority & LOG_FACMASK))
        priority |= default_facility;
    if (vasprintf(&text, format, values) < 0)
        return;
    /* A single write, because several processes may share stderr. */
    dprintf(2, "[syslog %d] %s\n", priority, text);
    free(text);
}

void syslog(int priority, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsyslog(priority, format, values);
    va_end(values);
}

void __syslog_chk(int priority, int flag, const char *format, ...)
{
    va_list values;
    (void)flag;
    va_start(values, format);
    vsyslog(priority, format, values);
    va_end(values);
}

void __vsyslog_chk(int priority, int flag, const char *format, va_list values)
{
    (void)flag;
    vsyslog(priority, format, values);
}

/* Messages to syslog, with the facility and level of the configuration. */
#ifndef MAVIS_LOG_H
#define MAVIS_LOG_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Opens the log, or reopens it after its settings have changed. */
void logopen(void);

/* Logs a line. */
void logmsg(char *format, ...) MAVIS_PRINTF(1, 2);

/* Logs a line that ends with the text of errno. Leaves errno unchanged. */
void logerr(char *format, ...) MAVIS_PRINTF(1, 2);

MAVIS_END_DECLS

#endif

/* The debug trace. */
#ifndef MAVIS_DEBUG_H
#define MAVIS_DEBUG_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Bits of common_data.debug. */
#define DEBUG_PARSE_FLAG 0x1U
#define DEBUG_AUTHOR_FLAG 0x2U
#define DEBUG_AUTHEN_FLAG 0x4U
#define DEBUG_ACCT_FLAG 0x8U
#define DEBUG_CONFIG_FLAG 0x10U
#define DEBUG_PACKET_FLAG 0x20U
#define DEBUG_HEX_FLAG 0x40U
#define DEBUG_LOCK_FLAG 0x80U
#define DEBUG_REGEX_FLAG 0x100U
#define DEBUG_ACL_FLAG 0x200U
#define DEBUG_RADIUS_FLAG 0x400U
#define DEBUG_CMD_FLAG 0x800U
#define DEBUG_BUFFER_FLAG 0x1000U
#define DEBUG_PROC_FLAG 0x2000U
#define DEBUG_NET_FLAG 0x4000U
#define DEBUG_PATH_FLAG 0x8000U
#define DEBUG_CONTROL_FLAG 0x10000U
#define DEBUG_INDEX_FLAG 0x20000U
#define DEBUG_AV_FLAG 0x40000U
#define DEBUG_MAVIS_FLAG 0x80000U
#define DEBUG_DNS_FLAG 0x100000U
#define DEBUG_USERINPUT_FLAG 0x200000U
#define DEBUG_TACTRACE_FLAG 0x400000U
#define DEBUG_NONE_FLAG 0x80000000U
#define DEBUG_ALL_FLAG 0x7F9FFFFFU

/* Writes a line to stderr if a bit of `level` is set in common_data.debug. A text that starts with
 * `+` indents the following lines; one that starts with `-` ends that. */
void debug(unsigned long level, char *format, ...) MAVIS_PRINTF(2, 3);

/* Call this after fork(2), for the process id in these lines. */
void debug_setpid(void);

MAVIS_END_DECLS

#endif

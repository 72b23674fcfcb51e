/* The handling of crashes. */
#ifndef MISC_SIG_SEGV_H
#define MISC_SIG_SEGV_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Catches SIGSEGV and SIGBUS: logs a notice, runs the debugger command if there is one, leaves a
 * core file in `coredump_dir` if that is set, and ends the process. A NULL argument keeps the
 * setting of an earlier call. The texts are copied. */
void setup_sig_segv(char *coredump_dir, char *gcore_cmd, char *debug_cmd);

MAVIS_END_DECLS

#endif

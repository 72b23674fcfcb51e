/* The exported variables are defined in Rust (ffi/data.rs), as the linker exports only Rust symbols
   from this library. A program may have its own copy of one (R_*_COPY), so the library must not use
   the definitions directly. This code takes their addresses from the global offset table, as C
   compilers do for symbols that may be replaced. */
#include "shims.h"

/* The public header has the layout of common_data. Its checks of other structs are switched off
   here, as they do not hold everywhere: struct sym contains a jmp_buf, whose size differs between
   systems. */
#include <misc/cdefs.h>
#undef MAVIS_SIZE
#undef MAVIS_OFFSET
#define MAVIS_SIZE(type, tag, size) MAVIS_ASSERT(size_of_##tag, 1)
#define MAVIS_OFFSET(type, tag, field, at) MAVIS_ASSERT(tag##_##field, 1)
#include <mavis/mavis.h>

_Static_assert(sizeof(struct common_data) == 352 || sizeof(long) != 8, "layout of common_data");

extern char spawnd_data[], coredump_handler[];

HIDDEN void *compat_common_data(void) { return &common_data; }
HIDDEN void *compat_io_now(void) { return &io_now; }
HIDDEN void *compat_spawnd_data(void) { return spawnd_data; }
HIDDEN void *compat_coredump_handler(void) { return coredump_handler; }
HIDDEN void *compat_rbtree_null_node(void) { return &rbtree_null_node; }

/* Addresses of the fields of common_data that the library itself uses (src/os/common_data.rs). */
#define FIELD(name, field)                                                                         \
	HIDDEN void *compat_##name(void) { return &common_data.field; }
FIELD(debug_bits, debug)
FIELD(debug_redirected, debug_redirected)
FIELD(parse_only, parse_only)
FIELD(debugtty, debugtty)
FIELD(debugstderr, debugstderr)
FIELD(syslog_level, syslog_level)
FIELD(syslog_facility, syslog_facility)
FIELD(syslog_filter, syslog_filter)
FIELD(regex_match_case, regex_match_case)
FIELD(regex_pcre_flags, regex_pcre_flags)
FIELD(regex_posix_flags, regex_posix_flags)
FIELD(cleanup_interval, cleanup_interval)
FIELD(pid, pid)
FIELD(fonts, font_black)
FIELD(syslog_ident, syslog_ident)
FIELD(progname, progname)
FIELD(conffile, conffile)
FIELD(confdir, confdir)

/* A bit field has no address. */
HIDDEN unsigned compat_syslog_dflt(void) { return common_data.syslog_dflt; }
HIDDEN void compat_set_syslog_dflt(unsigned value) { common_data.syslog_dflt = value & 1; }

/* The exported variables are defined on the Rust side, where the linker's export list is made. A
   program may hold a copy of one (R_*_COPY), so that nobody may address them directly: this code
   goes through the global offset table, as every C compiler does for what others may replace. */
#include "shims.h"

extern char common_data[], io_now[], spawnd_data[], coredump_handler[], rbtree_null_node[];

HIDDEN void *compat_common_data(void) { return common_data; }
HIDDEN void *compat_io_now(void) { return io_now; }
HIDDEN void *compat_spawnd_data(void) { return spawnd_data; }
HIDDEN void *compat_coredump_handler(void) { return coredump_handler; }
HIDDEN void *compat_rbtree_null_node(void) { return rbtree_null_node; }

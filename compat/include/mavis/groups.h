/* Lists of group ids. */
#ifndef MAVIS_GROUPS_H
#define MAVIS_GROUPS_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* Writes the groups of a user of this system to `buf`, `gid` first, as numbers with commas; as many
 * as fit. An unknown user has only `gid`. Returns `buf`. */
char *groups_getlist(char *name, gid_t gid, char *buf, size_t buflen);

/* Writes `size` ids to `buf`, as numbers with commas; as many as fit. Returns `buf`. */
char *groups_list2ascii(size_t size, gid_t *list, char *buf, size_t buflen);

/* The reverse. `list` must have room for all ids of the text, up to 65536; `*size` becomes their
 * number. Items that are not numbers are skipped. */
void groups_ascii2list(char *alist, int *size, gid_t *list);

MAVIS_END_DECLS

#endif

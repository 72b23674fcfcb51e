/* Lists of group ids. */
#ifndef MAVIS_GROUPS_H
#define MAVIS_GROUPS_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

/* The groups of a user of this system, `gid` first, as numbers with commas in `buf`. NULL if there is no such
 * user or no room. */
char *groups_getlist(char *name, gid_t gid, char *buf, size_t buflen);

/* `size` ids as numbers with commas in `buf`; gives `buf`. */
char *groups_list2ascii(size_t size, gid_t *list, char *buf, size_t buflen);

/* Back: `*size` is the room of `list` on entry and the number of ids on return. Changes `alist`; what is no
 * number is left out. */
void groups_ascii2list(char *alist, int *size, gid_t *list);

MAVIS_END_DECLS

#endif

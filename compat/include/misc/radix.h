/* Prefix trees of addresses, in host byte order as in misc/net.h. IPv4 addresses are mapped, so
 * their prefix lengths are 96 more. */
#ifndef MISC_RADIX_H
#define MISC_RADIX_H

#include <misc/cdefs.h>
#include <netinet/in.h>

MAVIS_BEGIN_DECLS

typedef struct radixtree radixtree_t;

/* An empty tree. `f(payload, data)` frees payloads in radix_drop; `c(a, b)` returns 0 for payloads
 * that count as equal; both may be NULL. */
struct radixtree *radix_new(void (*f)(void *, void *), int (*c)(void *, void *));

/* Adds `d` for the first `m` bits of `*a`; the other bits of `*a` are cleared. Returns NULL, or the
 * different payload that the prefix already has, and keeps. */
void *radix_add(struct radixtree *rt, struct in6_addr *a, int m, void *d);

/* The same for a text as v6_ptoh() reads it. 0, 1 if the prefix already has a different payload, -1
 * if the text cannot be read. */
int radix_add_str(struct radixtree *rt, char *cidr, void *payload);

/* The payload of the longest prefix that contains the address, or NULL. If `arr` is not NULL, the
 * payloads of all matching prefixes are stored there, at most 129, shortest prefix first, without
 * an end mark. */
void *radix_lookup(struct radixtree *rt, struct in6_addr *a, void **arr);
void *radix_lookup_str(struct radixtree *rt, char *addr, void **arr);

/* Calls `f(address, length, payload, data)` for every prefix, longer ones before those that contain
 * them. */
void radix_walk(struct radixtree *rt, void (*f)(struct in6_addr *, int, void *, void *), void *data);

/* Frees the tree and its payloads, passing `data` to the freeing function, and sets the pointer to
 * NULL. */
void radix_drop(struct radixtree **rt, void *data);

MAVIS_END_DECLS

#endif

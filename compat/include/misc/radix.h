/* Prefix trees over addresses, which are in host byte order as everywhere in misc/net.h; IPv4
 * addresses are mapped ones, their prefix lengths 96 more. */
#ifndef MISC_RADIX_H
#define MISC_RADIX_H

#include <misc/cdefs.h>
#include <netinet/in.h>

MAVIS_BEGIN_DECLS

typedef struct radixtree radixtree_t;

/* An empty tree. `f(payload, data)` frees payloads in radix_drop, `c(a, b)` gives 0 for payloads that
 * count as equal; both may be NULL. */
struct radixtree *radix_new(void (*f)(void *, void *), int (*c)(void *, void *));

/* Adds `d` for the first `m` bits of `*a`; the other bits of `*a` are cleared. NULL, or the other
 * payload that this prefix has already. */
void *radix_add(struct radixtree *rt, struct in6_addr *a, int m, void *d);

/* The same for a text as in v6_ptoh(). 0, 1 for a duplicate, -1 if it cannot be read. */
int radix_add_str(struct radixtree *rt, char *cidr, void *payload);

/* The payload of the longest prefix that holds the address, or NULL. If `arr` is not NULL, all
 * payloads are stored there, shortest prefix first, without an end mark. */
void *radix_lookup(struct radixtree *rt, struct in6_addr *a, void **arr);
void *radix_lookup_str(struct radixtree *rt, char *addr, void **arr);

/* Calls `f(address, length, payload, data)` for every prefix. */
void radix_walk(struct radixtree *rt, void (*f)(struct in6_addr *, int, void *, void *), void *data);

/* Frees the tree, hands `data` to the freeing function, NULLs the pointer. */
void radix_drop(struct radixtree **rt, void *data);

MAVIS_END_DECLS

#endif

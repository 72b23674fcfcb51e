/* Addresses and sockets. Functions v6_* and those on struct in6_addr take addresses whose four words
 * are in HOST byte order, IPv4 as ::ffff:a.b.c.d; sockaddr_union is in network order as usual. */
#ifndef MISC_NET_H
#define MISC_NET_H

#include <misc/cdefs.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

MAVIS_BEGIN_DECLS

typedef union {
    struct sockaddr sa;
    struct sockaddr_un sun;
    struct sockaddr_in sin;
    struct sockaddr_in6 sin6;
} sockaddr_union;

MAVIS_SIZE(sockaddr_union, sockaddr_union, 112);

/* socket(2), made non-blocking. */
int su_socket(int domain, int type, int protocol);

/* bind(2), with SO_REUSEADDR and SO_KEEPALIVE set before. */
int su_bind(int s, sockaddr_union *sa);

/* The length that belongs to the family. */
socklen_t su_len(sockaddr_union *sa);

/* The port in host order, 0 if the family has none; setting gives 0 or -1. */
uint16_t su_get_port(sockaddr_union *sa);
int su_set_port(sockaddr_union *sa, uint16_t port);

/* Reads an address: `unix:`, `inet:` or `inet6:` may stand before it; a path is an AF_UNIX one. 0 or
 * -1. The second form sets the port too, and takes `a.b.c.d:port` and `[v6]:port`. */
int su_pton(sockaddr_union *su, char *src);
int su_pton_p(sockaddr_union *su, char *src, uint16_t port);

/* The address as text, without port, in `dst`; NULL if it does not fit into `cnt` bytes. */
char *su_ntoa(sockaddr_union *sa, char *dst, size_t cnt);

/* Calls `func(address, data)` for what a name and a port stand for: once for a literal or a path, else
 * for up to `count` answers (0: all) of getaddrinfo(3), until `func` gives 0. NULL is the wildcard. 0,
 * or -1 if name or port cannot be resolved. */
int su_addrinfo(char *address, char *port, int protocol, int family, int count, void *data,
                int (*func)(sockaddr_union *, void *));

/* Port of a number or service name. -1 if the number is too large; an unknown name gives 0 and leaves
 * `*p` alone. `proto` is a socket type. */
int service_to_port(uint16_t *p, char *service, int proto);

/* getnameinfo(3), with the path for AF_UNIX. */
int su_nameinfo(sockaddr_union *su, char *host, size_t hostlen, char *serv, size_t servlen, int flags);

/* Not 0 if equal, with and without port; an IPv4 address equals its mapped form. */
int su_equal(sockaddr_union *dst, sockaddr_union *src);
int su_equal_addr(sockaddr_union *dst, sockaddr_union *src);

/* Order: less than, equal to or more than 0, with and without port. */
int su_cmp(sockaddr_union *dst, sockaddr_union *src);
int su_cmp_addr(sockaddr_union *dst, sockaddr_union *src);

/* Turns IPv4 into mapped IPv6 or back. 0 if it is of family `af` now, else -1. */
int su_convert(sockaddr_union *sa, unsigned int af);

/* Copies the address and leaves the port. 0 or -1. */
int su_copy_addr(sockaddr_union *dst, sockaddr_union *src);

/* To and from an address in host order. 0 or -1. */
int su_ptoh(sockaddr_union *su, struct in6_addr *a);
int su_htop(sockaddr_union *su, struct in6_addr *a, int sa_family);

/* Reads `address`, `address/length` or `address/netmask`; `*cm` becomes the length in terms of 128 bits
 * and may be NULL. 0 or -1. The second form gives a mask. */
int v6_ptoh(struct in6_addr *a, int *cm, char *s);
int v6_ptoh_ext(struct in6_addr *addr, struct in6_addr *mask, char *s);

/* Network order to host order, or back: `*a` becomes `*b` turned round. */
void v6_ntoh(struct in6_addr *a, struct in6_addr *b);

/* -1, 0 or 1. */
int v6_cmp(struct in6_addr *a, struct in6_addr *b);

/* First and last address of the network of `m` bits that holds `*a`. */
void v6_network(struct in6_addr *n, struct in6_addr *a, int m);
void v6_broadcast(struct in6_addr *b, struct in6_addr *a, int m);

/* Length of the common prefix, `min` at most. */
int v6_common_cidr(struct in6_addr *a, struct in6_addr *b, int min);

/* -1 if `*a` is in the network, else 0. */
int v6_contains(struct in6_addr *n, int m, struct in6_addr *a);

/* -1 if this system has IPv6, else 0; the wildcard address as text, and the same with `/0`. */
int have_inet6(void);
char *inet_wildcard(void);
char *inet_any(void);

MAVIS_END_DECLS

#endif

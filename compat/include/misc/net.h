/* Addresses and sockets. In a struct in6_addr, for the functions v6_* and others, the four words
 * are in HOST byte order, and IPv4 is ::ffff:a.b.c.d. A sockaddr_union is in network byte order as
 * usual. */
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

/* bind(2), after setting SO_REUSEADDR and SO_KEEPALIVE. */
int su_bind(int s, sockaddr_union *sa);

/* The size of an address of its family. */
socklen_t su_len(sockaddr_union *sa);

/* Gets or sets the port, in host byte order. A family without ports has port 0; setting it returns
 * -1, otherwise 0. */
uint16_t su_get_port(sockaddr_union *sa);
int su_set_port(sockaddr_union *sa, uint16_t port);

/* Reads an address, which may start with `unix:`, `inet:` or `inet6:`; a path is an AF_UNIX
 * address. Returns 0 or -1. The second function also sets the port, unless the text has one:
 * `a.b.c.d:port`, `[v6]:port`. */
int su_pton(sockaddr_union *su, char *src);
int su_pton_p(sockaddr_union *su, char *src, uint16_t port);

/* The address as text, without port, in `dst`; NULL if it does not fit into `cnt` bytes. */
char *su_ntoa(sockaddr_union *sa, char *dst, size_t cnt);

/* Resolves a name and a port, and calls `func(address, data)`: once for a literal address or a
 * path, otherwise for up to `count` results (0: all) of getaddrinfo(3), until `func` returns 0. A
 * NULL address is the wildcard. Returns 0, or -1 if name or port cannot be resolved. */
int su_addrinfo(char *address, char *port, int protocol, int family, int count, void *data,
                int (*func)(sockaddr_union *, void *));

/* Reads a port number or service name. -1 if the number is not a port; an unknown name returns 0
 * and leaves `*p` unchanged. `proto` is a socket type. */
int service_to_port(uint16_t *p, char *service, int proto);

/* getnameinfo(3), with the path for AF_UNIX. */
int su_nameinfo(sockaddr_union *su, char *host, size_t hostlen, char *serv, size_t servlen, int flags);

/* Not 0 if equal, with and without regard to the port; an IPv4 address equals its mapped form. */
int su_equal(sockaddr_union *dst, sockaddr_union *src);
int su_equal_addr(sockaddr_union *dst, sockaddr_union *src);

/* Compare, with and without regard to the port: -1, 0 or 1; -1 also if a family is unknown. */
int su_cmp(sockaddr_union *dst, sockaddr_union *src);
int su_cmp_addr(sockaddr_union *dst, sockaddr_union *src);

/* Converts IPv4 to mapped IPv6 or back. 0 if the address is of family `af` now, otherwise -1. */
int su_convert(sockaddr_union *sa, unsigned int af);

/* Copies the address but not the port. 0 or -1. */
int su_copy_addr(sockaddr_union *dst, sockaddr_union *src);

/* Convert to and from an address in host byte order. 0 or -1. */
int su_ptoh(sockaddr_union *su, struct in6_addr *a);
int su_htop(sockaddr_union *su, struct in6_addr *a, int sa_family);

/* Reads `address`, `address/length` or `address/netmask`. `*cm` becomes the prefix length, of 128
 * bits; `cm` may be NULL. Returns 0 or -1. The second function gives a mask, and leaves `*mask`
 * unchanged for an IPv6 address without one. */
int v6_ptoh(struct in6_addr *a, int *cm, char *s);
int v6_ptoh_ext(struct in6_addr *addr, struct in6_addr *mask, char *s);

/* Network to host byte order, or back: `*a` becomes `*b` with each word converted. */
void v6_ntoh(struct in6_addr *a, struct in6_addr *b);

/* Compares: -1, 0 or 1. */
int v6_cmp(struct in6_addr *a, struct in6_addr *b);

/* First and last address of the network with prefix length `m` that contains `*a`. */
void v6_network(struct in6_addr *n, struct in6_addr *a, int m);
void v6_broadcast(struct in6_addr *b, struct in6_addr *a, int m);

/* Length of the common prefix, at most `min`. */
int v6_common_cidr(struct in6_addr *a, struct in6_addr *b, int min);

/* -1 if `*a` is in the network, otherwise 0. */
int v6_contains(struct in6_addr *n, int m, struct in6_addr *a);

/* -1 if this system has IPv6, otherwise 0; the wildcard address as text, and the same with `/0`. */
int have_inet6(void);
char *inet_wildcard(void);
char *inet_any(void);

MAVIS_END_DECLS

#endif

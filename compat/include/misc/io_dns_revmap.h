/* Reverse DNS look-ups that do not block. */
#ifndef MISC_IO_DNS_REVMAP_H
#define MISC_IO_DNS_REVMAP_H

#include <misc/net.h>

MAVIS_BEGIN_DECLS

struct io_context;
struct io_dns_ctx;

/* A resolver, whose descriptors and timers are in the loop `io`. */
struct io_dns_ctx *io_dns_init(struct io_context *io);

/* Drops all questions, and closes and frees the resolver. */
void io_dns_destroy(struct io_dns_ctx *idc);

/* Asks for the name of an address. `app_cb` is a void (*)(void *app_ctx, char *name, int ttl).
 * `name` is valid during the call; if the address has no name, it is NULL and `ttl` is -1. The
 * second function takes an address in host byte order. */
void io_dns_add(struct io_dns_ctx *idc, sockaddr_union *su, void *app_cb, void *app_ctx);
void io_dns_add_addr(struct io_dns_ctx *idc, struct in6_addr *a, void *app_cb, void *app_ctx);

/* Drops the questions of `app_ctx`: their callbacks will not be called. */
void io_dns_cancel(struct io_dns_ctx *idc, void *app_ctx);

/* Asks these servers, a list `address[:port],...`, instead of the system's. Returns 0, or a status
 * of ares.h. */
int io_dns_set_servers(struct io_dns_ctx *idc, char *servers);

/* Sends the questions through a VRF, or through none for NULL; the text is copied. */
void io_dns_set_vrf(struct io_dns_ctx *idc, char *vrf);

MAVIS_END_DECLS

#endif

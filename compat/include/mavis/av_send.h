/* Sends attributes in a datagram. */
#ifndef MAVIS_AV_SEND_H
#define MAVIS_AV_SEND_H

#include <mavis/blowfish.h>
#include <mavis/mavis.h>
#include <misc/net.h>

MAVIS_BEGIN_DECLS

/* Sends the set as text to an address, encrypted if `blowfish` is not NULL. MAVIS_DEFERRED if it
 * was sent, otherwise MAVIS_IGNORE. */
int av_send(av_ctx *ac, int sock, sockaddr_union *sa, struct blowfish_ctx *blowfish);

MAVIS_END_DECLS

#endif

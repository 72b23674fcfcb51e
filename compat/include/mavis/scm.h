/* The messages between a broker and its workers, over a socket and with descriptors attached. */
#ifndef MAVIS_SCM_H
#define MAVIS_SCM_H

#include <misc/cdefs.h>

MAVIS_BEGIN_DECLS

enum scm_token {
    SCM_DONE = 0,      /* from a worker: a session has ended */
    SCM_KEEPALIVE = 1, /* from a worker: it is alive */
    SCM_MAY_DIE = 2,   /* from the broker: exit when idle */
    SCM_DYING = 3,     /* from a worker: send no more clients */
    SCM_BAD_CFG = 4,   /* from a worker: the configuration is bad */
    SCM_MAX = 5,       /* from a worker: how many clients it takes */
    SCM_ACCEPT = 6,    /* from the broker: a client, with its descriptor */
    SCM_UDPDATA = 7    /* from the broker: a datagram, with its socket */
};

#define SCM_REALM_SIZE 16

/* Bits of `flags`. */
#define SCM_FLAG_HAPROXY 1
#define SCM_FLAG_RADACCT 2
#define SCM_FLAG_TLSPSK 4
#define SCM_FLAG_TLSAUTO 8

/* All messages except the two below. */
struct scm_data {
    enum scm_token type;
    int count;
};

/* SCM_ACCEPT */
struct scm_data_accept {
    enum scm_token type;
    unsigned int tls_versions;
    int aaa_protocol;
    unsigned int flags;
    char realm[SCM_REALM_SIZE];
    int socktype;
    int protocol;
};

/* SCM_UDPDATA, followed by the datagram, which is aligned for any type. */
struct scm_data_udp {
    enum scm_token type;
    unsigned int tls_versions;
    int aaa_protocol;
    unsigned int flags;
    char realm[SCM_REALM_SIZE];
    short data_len;
#ifdef __cplusplus
    /* C++ has no flexible array members: use scm_udp_payload(). */
} __attribute__((aligned(8)));
#else
    unsigned char data[] __attribute__((aligned(8)));
};
#endif

MAVIS_INLINE unsigned char *scm_udp_payload(struct scm_data_udp *message)
{
    return (unsigned char *)(message + 1);
}

MAVIS_SIZE(struct scm_data, scm_data, 8);
MAVIS_SIZE(struct scm_data_accept, scm_data_accept, 40);
MAVIS_OFFSET(struct scm_data_accept, scm_data_accept, tls_versions, 4);
MAVIS_OFFSET(struct scm_data_accept, scm_data_accept, aaa_protocol, 8);
MAVIS_OFFSET(struct scm_data_accept, scm_data_accept, flags, 12);
MAVIS_OFFSET(struct scm_data_accept, scm_data_accept, realm, 16);
MAVIS_OFFSET(struct scm_data_accept, scm_data_accept, socktype, 32);
MAVIS_OFFSET(struct scm_data_accept, scm_data_accept, protocol, 36);
MAVIS_SIZE(struct scm_data_udp, scm_data_udp, 40);
MAVIS_OFFSET(struct scm_data_udp, scm_data_udp, data_len, 32);
#ifndef __cplusplus
MAVIS_OFFSET(struct scm_data_udp, scm_data_udp, data, 40);
#endif

/* The main() of a program with a broker and workers. Returns in a worker, with the location of its
 * configuration in common_data; and in single-process mode. */
void scm_main(int argc, char **argv, char **envp);

/* Sends a message, with a descriptor unless `fd` is negative. Returns 0; on failure, which is
 * logged, something else. */
int scm_send_msg(int sock, struct scm_data *sd, int fd);

/* Receives a message into `sd_len` bytes. `*fd` becomes its descriptor, which the caller must
 * close, or -1. Returns 0; -1 at the end, on failure, or if there is too little room. */
int scm_recv_msg(int sock, struct scm_data_accept *sd, size_t sd_len, int *fd);

/* The same for single-process mode: sending calls common_data.scm_accept or scm_udpdata, receiving
 * does nothing. Return 0. */
int fakescm_send_msg(int sock, struct scm_data *sd, int fd);
int fakescm_recv_msg(int sock, struct scm_data_accept *sd, size_t sd_len, int *fd);

/* Tells the broker that the configuration is bad, and exits with status 78. */
void scm_fatal(void) MAVIS_NORETURN;

MAVIS_END_DECLS

#endif

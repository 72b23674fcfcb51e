/* Messages between broker and workers. */
#include "check.h"
#include <mavis/scm.h>
#include <sys/socket.h>

static int sockets[2];

static union {
    struct scm_data_accept accept;
    struct scm_data_udp udp;
    char room[1024];
} message;

static void plain(void)
{
    struct scm_data data = { SCM_MAX, 42 };
    int fd = 77;
    CHECK_INT(scm_send_msg(sockets[0], &data, -1), 0);
    CHECK_INT(recv(sockets[1], &message, sizeof message, MSG_PEEK | MSG_DONTWAIT), 8);
    memset(&message, 'x', sizeof message);
    CHECK_INT(scm_recv_msg(sockets[1], &message.accept, sizeof message.accept, &fd), 0);
    CHECK_INT(fd, -1);
    CHECK_INT(message.accept.type, SCM_MAX);
    CHECK_INT(((struct scm_data *)&message)->count, 42);
    static const enum scm_token types[] = { SCM_DONE, SCM_KEEPALIVE, SCM_MAY_DIE, SCM_DYING, SCM_BAD_CFG, SCM_MAX };
    for (int i = 0; i < 6; i++) {
        data.type = types[i];
        data.count = i;
        CHECK_INT(scm_send_msg(sockets[0], &data, -1), 0);
        CHECK_INT(scm_recv_msg(sockets[1], &message.accept, sizeof message.accept, NULL), 0);
        CHECK_INT(message.accept.type, types[i]);
        CHECK_INT(((struct scm_data *)&message)->count, i);
    }
}

static void with_descriptor(void)
{
    struct scm_data_accept sent;
    int pipes[2], fd = -1;
    char byte = 0;
    memset(&sent, 0, sizeof sent);
    sent.type = SCM_ACCEPT;
    sent.tls_versions = 0x0304;
    sent.aaa_protocol = 3;
    sent.flags = SCM_FLAG_HAPROXY | SCM_FLAG_TLSAUTO;
    strcpy(sent.realm, "fifteen letters");
    sent.protocol = 6;
    sent.socktype = SOCK_STREAM;
    if (pipe(pipes))
        exit(2);
    CHECK_INT(scm_send_msg(sockets[0], (struct scm_data *)&sent, pipes[1]), 0);
    close(pipes[1]);
    CHECK_INT(scm_recv_msg(sockets[1], &message.accept, sizeof message.accept, &fd), 0);
    CHECK_INT(message.accept.type, SCM_ACCEPT);
    CHECK_INT(message.accept.tls_versions, 0x0304);
    CHECK_INT(message.accept.flags, SCM_FLAG_HAPROXY | SCM_FLAG_TLSAUTO);
    CHECK_TEXT(message.accept.realm, "fifteen letters");
    CHECK_INT(message.accept.protocol, 6);
    CHECK(fd >= 0 && fd != pipes[1] + 1000);
    CHECK_INT(write(fd, "x", 1), 1);
    CHECK_INT(read(pipes[0], &byte, 1), 1);
    CHECK_INT(byte, 'x');
    close(fd);
    CHECK_INT(read(pipes[0], &byte, 1), 0);

    struct scm_data_udp *udp = (struct scm_data_udp *)calloc(1, sizeof *udp + 100);
    udp->type = SCM_UDPDATA;
    udp->data_len = 100;
    memset(scm_udp_payload(udp), 'd', 100);
    CHECK(scm_udp_payload(udp) == udp->data);
    CHECK_INT(scm_send_msg(sockets[0], (struct scm_data *)udp, pipes[0]), 0);
    fd = -1;
    CHECK_INT(scm_recv_msg(sockets[1], &message.accept, sizeof message, &fd), 0);
    CHECK_INT(message.udp.type, SCM_UDPDATA);
    CHECK_INT(message.udp.data_len, 100);
    CHECK(fd >= 0);
    for (int i = 0; i < 100; i++)
        CHECK_INT(message.room[40 + i], 'd');
    close(fd);
    close(pipes[0]);

    /* Too little room. */
    CHECK_INT(scm_send_msg(sockets[0], (struct scm_data *)udp, sockets[1]), 0);
    fd = -1;
    CHECK_INT(scm_recv_msg(sockets[1], &message.accept, 8, &fd), -1);
    if (fd >= 0)
        close(fd);
    free(udp);
}

static void failures(void)
{
    struct scm_data data = { SCM_DONE, 1 };
    char *text;
    int pair[2], fd = -1;
    capture_begin();
    CHECK(scm_send_msg(-1, &data, -1) != 0);
    text = capture_end();
    CHECK_HAS(text, "scm_send_msg: sendmsg: Bad file descriptor");
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        exit(2);
    close(pair[0]);
    capture_begin();
    CHECK_INT(scm_recv_msg(pair[1], &message.accept, sizeof message.accept, &fd), -1);
    text = capture_end();
    CHECK_HAS(text, "scm_recv_msg: recvmsg: EoF");
    /* No signal: it would end the process. */
    capture_begin();
    CHECK(scm_send_msg(pair[1], &data, -1) != 0);
    text = capture_end();
    CHECK_HAS(text, "Broken pipe");
    close(pair[1]);
}

static int accepted_fd, udp_fd;
static void on_accept(int fd, struct scm_data_accept *data)
{
    accepted_fd = fd;
    CHECK_INT(data->type, SCM_ACCEPT);
}

static void on_udp(int fd, struct scm_data_udp *data)
{
    udp_fd = fd;
    CHECK_INT(data->type, SCM_UDPDATA);
}

static void one_process(void)
{
    struct scm_data data = { SCM_MAX, 33 };
    memset(&message, 0, sizeof message);
    common_data.scm_accept = on_accept;
    common_data.scm_udpdata = NULL;
    CHECK_INT(fakescm_send_msg(-1, &data, -1), 0);
    CHECK_INT(common_data.users_max, 33);
    CHECK_INT(common_data.users_max_total, 33);
    message.accept.type = SCM_ACCEPT;
    CHECK_INT(fakescm_send_msg(-1, (struct scm_data *)&message, 17), 0);
    CHECK_INT(accepted_fd, 17);
    message.udp.type = SCM_UDPDATA;
    CHECK_INT(fakescm_send_msg(-1, (struct scm_data *)&message, 18), 0);
    common_data.scm_udpdata = on_udp;
    CHECK_INT(fakescm_send_msg(-1, (struct scm_data *)&message, 19), 0);
    CHECK_INT(udp_fd, 19);
    data.type = SCM_DONE;
    CHECK_INT(fakescm_send_msg(-1, &data, -1), 0);
    CHECK_INT(fakescm_recv_msg(-1, &message.accept, sizeof message.accept, &accepted_fd), 0);
}

static void fatal(void *arg)
{
    (void)arg;
    dup2(sockets[0], 0);
    scm_fatal();
}

int main(void)
{
    struct scm_data data;
    init_common_data();
    CHECK(common_data.scm_send_msg == scm_send_msg && common_data.scm_recv_msg == scm_recv_msg);
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets))
        return 2;
    plain();
    with_descriptor();
    failures();
    one_process();
    CHECK_INT(in_child(fatal, NULL, NULL), 78);
    CHECK_INT(recv(sockets[1], &data, sizeof data, MSG_DONTWAIT), 8);
    CHECK_INT(data.type, SCM_BAD_CFG);
    return check_result();
}

/* TLS over the event loop: a client and a server in one process. */
#include "check.h"
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>

static struct io_context *io;
static SSL *ends[2];
static int sockets[2], calls;

static void on_event(void *ctx, int fd)
{
    (void)ctx, (void)fd;
    calls++;
}

static void on_retry(void *ctx, int fd)
{
    (void)ctx, (void)fd;
    calls += 1000;
}

/* Makes a certificate for this run only. */
static void certify(SSL_CTX *ctx)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -1000);
    X509_gmtime_adj(X509_getm_notAfter(x), 100000);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_sign(x, key, EVP_sha256());
    SSL_CTX_use_certificate(ctx, x);
    SSL_CTX_use_PrivateKey(ctx, key);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void register_both(void)
{
    for (int i = 0; i < 2; i++) {
        io_register(io, sockets[i], &ends[i]);
        io_set_cb_i(io, sockets[i], (void *)on_event);
        io_set_cb_o(io, sockets[i], (void *)on_event);
        io_set_cb_e(io, sockets[i], (void *)on_event);
        io_set_cb_h(io, sockets[i], (void *)on_event);
        io_set_i(io, sockets[i]);
    }
}

static void connect_both(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    certify(ctx);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
        exit(2);
    for (int i = 0; i < 2; i++) {
        fcntl(sockets[i], F_SETFL, O_NONBLOCK);
        ends[i] = SSL_new(ctx);
        SSL_set_fd(ends[i], sockets[i]);
    }
    SSL_set_connect_state(ends[0]);
    SSL_set_accept_state(ends[1]);
    for (int i = 0; i < 20; i++) {
        SSL_do_handshake(ends[0]);
        SSL_do_handshake(ends[1]);
    }
    CHECK(SSL_is_init_finished(ends[0]) && SSL_is_init_finished(ends[1]));
    ERR_clear_error();
    SSL_CTX_free(ctx);
    register_both();
}

static void close_both(void)
{
    for (int i = 0; i < 2; i++) {
        SSL_free(ends[i]);
        io_close(io, sockets[i]);
    }
}

static void transfer(void)
{
    char buffer[100];
    enum io_status status = io_status_error;
    connect_both();
    errno = 0;
    CHECK_INT(io_SSL_read(ends[1], buffer, sizeof buffer, io, sockets[1], (void *)on_retry), 0);
    CHECK_INT(errno, EAGAIN);
    CHECK_INT(io_SSL_read_ex(ends[1], buffer, sizeof buffer, io, sockets[1], (void *)on_retry, &status), 0);
    CHECK_INT(status, io_status_retry);
    CHECK_INT(io_SSL_write(ends[0], T("hello"), 5, io, sockets[0], (void *)on_retry), 5);
    CHECK(io_poll(io, 1000) >= 1);
    CHECK_INT(io_SSL_read(ends[1], buffer, sizeof buffer, io, sockets[1], (void *)on_retry), 5);
    CHECK(!strncmp(buffer, "hello", 5));
    status = io_status_error;
    CHECK_INT(io_SSL_write_ex(ends[1], T("back"), 4, io, sockets[1], (void *)on_retry, &status), 4);
    CHECK_INT(status, io_status_ok);
    status = io_status_error;
    CHECK_INT(io_SSL_read_ex(ends[0], buffer, sizeof buffer, io, sockets[0], (void *)on_retry, &status), 4);
    CHECK_INT(status, io_status_ok);
    CHECK(!strncmp(buffer, "back", 4));

    /* A writer whose socket is full. */
    static char large[1 << 16];
    ssize_t n, total = 0, got = 0;
    while ((n = io_SSL_write(ends[0], large, sizeof large, io, sockets[0], (void *)on_retry)) > 0)
        total += n;
    CHECK_INT(n, 0);
    CHECK(total > 0);
    while ((n = io_SSL_read(ends[1], large, sizeof large, io, sockets[1], (void *)on_retry)) > 0)
        got += n;
    CHECK_INT(n, 0);
    n = io_SSL_write(ends[0], large, sizeof large, io, sockets[0], (void *)on_retry);
    CHECK_INT(n, sizeof large);
    total += n;
    while ((n = io_SSL_read(ends[1], large, sizeof large, io, sockets[1], (void *)on_retry)) > 0)
        got += n;
    CHECK_INT(got, total);
    close_both();
}

static void endings(void)
{
    char buffer[100];
    enum io_status status = io_status_ok;
    connect_both();
    /* The peer has ended the session properly. */
    io_SSL_shutdown(ends[0], io, sockets[0], (void *)on_retry);
    errno = 0;
    CHECK_INT(io_SSL_read(ends[1], buffer, sizeof buffer, io, sockets[1], (void *)on_retry), -1);
    CHECK_INT(errno, EIO);
    CHECK(io_SSL_read_ex(ends[1], buffer, sizeof buffer, io, sockets[1], (void *)on_retry, &status) <= 0);
    CHECK_INT(status, io_status_close);
    close_both();

    /* The peer has closed without that. */
    connect_both();
    io_close(io, sockets[0]);
    errno = 0;
    CHECK_INT(io_SSL_read(ends[1], buffer, sizeof buffer, io, sockets[1], (void *)on_retry), -1);
    if (!original) /* the original leaves EAGAIN there */
        CHECK_INT(errno, EIO);
    CHECK(io_SSL_read_ex(ends[1], buffer, sizeof buffer, io, sockets[1], (void *)on_retry, &status) <= 0);
    CHECK_INT(status, io_status_error);
    ERR_clear_error();
    SSL_free(ends[0]);
    SSL_free(ends[1]);
    io_close(io, sockets[1]);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    init_common_data();
    io = io_init();
    transfer();
    endings();
    io_destroy(io, NULL);
    return check_result();
}

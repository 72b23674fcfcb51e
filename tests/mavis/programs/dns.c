/* Looks up names of addresses, from a name server that this program plays itself. */
#include "check.h"
#include <arpa/inet.h>
#include <misc/io_dns_revmap.h>

static struct io_context *io;

struct answer {
    int count, ttl;
    char name[256];
    int is_null;
};

static void on_name(void *app_ctx, char *name, int ttl)
{
    struct answer *answer = (struct answer *)app_ctx;
    answer->count++;
    answer->ttl = ttl;
    answer->is_null = !name;
    snprintf(answer->name, sizeof answer->name, "%s", name ? name : "");
}

/* Serves PTR questions only: answers `host.example.com`, or "no such name" for 192.0.2.9, and prints the questions to
 * its file. */
static void serve(int fd, int log)
{
    unsigned char q[1024];
    struct sockaddr_in from;
    for (;;) {
        socklen_t length = sizeof from;
        ssize_t n = recvfrom(fd, q, 512, 0, (struct sockaddr *)&from, &length);
        if (n < 17)
            continue;
        char name[300] = "";
        ssize_t at = 12;
        while (at < n && q[at] && at + q[at] < n) {
            strncat(name, (char *)q + at + 1, q[at]);
            strcat(name, ".");
            at += q[at] + 1;
        }
        dprintf(log, "%s\n", name);
        at += 5;
        q[2] = 0x84;
        q[3] = 0x80;
        if (!strncmp(name, "9.2.0.192.", 10)) {
            q[3] = 0x83;
            n = at;
            memset(q + 6, 0, 6);
        } else {
            static const unsigned char record[] = { 0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 99, 0, 18, 4, 'h', 'o', 's', 't', 7, 'e', 'x', 'a',
                                                    'm',  'p', 'l', 'e', 3, 'c', 'o', 'm', 0 };
            memset(q + 6, 0, 6);
            q[7] = 1;
            memcpy(q + at, record, sizeof record);
            n = at + (ssize_t)sizeof record;
        }
        sendto(fd, q, (size_t)n, 0, (struct sockaddr *)&from, length);
    }
}

static void wait_for(int *count, int expected)
{
    for (int i = 0; i < 1000 && *count < expected; i++) {
        int wait = io_sched_exec(io);
        if (*count < expected)
            io_poll(io, wait < 0 || wait > 10 ? 10 : wait);
    }
    CHECK_INT(*count, expected);
}

int main(void)
{
    struct sockaddr_in own;
    socklen_t length = sizeof own;
    char servers[64], *path = test_path("questions");
    int fd = socket(AF_INET, SOCK_DGRAM, 0), log = open(path, O_CREAT | O_RDWR | O_APPEND, 0600);
    memset(&own, 0, sizeof own);
    own.sin_family = AF_INET;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&own, sizeof own) || getsockname(fd, (struct sockaddr *)&own, &length))
        return 2;
    pid_t pid = fork();
    if (!pid) {
        alarm(30);
        serve(fd, log);
    }
    init_common_data();
    io = io_init();
    struct io_dns_ctx *dns = io_dns_init(io);
    CHECK(dns != NULL);
    snprintf(servers, sizeof servers, "127.0.0.1:%d", ntohs(own.sin_port));
    CHECK_INT(io_dns_set_servers(dns, servers), 0);
    /* The server is on this interface. */
    io_dns_set_vrf(dns, T("lo"));

    sockaddr_union su;
    struct in6_addr a;
    struct answer one, two, three, gone;
    memset(&one, 0, sizeof one);
    two = three = gone = one;
    su_pton(&su, T("192.0.2.1"));
    io_dns_add(dns, &su, (void *)on_name, &one);
    wait_for(&one.count, 1);
    CHECK_TEXT(one.name, "host.example.com");
    CHECK_INT(one.ttl, 99);
    v6_ptoh(&a, NULL, T("192.0.2.5"));
    io_dns_add_addr(dns, &a, (void *)on_name, &two);
    su_pton(&su, T("192.0.2.9"));
    io_dns_add(dns, &su, (void *)on_name, &three);
    su_pton(&su, T("192.0.2.7"));
    io_dns_add(dns, &su, (void *)on_name, &gone);
    io_dns_cancel(dns, &gone);
    io_dns_cancel(dns, &su);
    wait_for(&two.count, 1);
    wait_for(&three.count, 1);
    CHECK_TEXT(two.name, "host.example.com");
    CHECK(three.is_null);
    CHECK_INT(three.ttl, -1);
    CHECK_INT(gone.count, 0);

    struct answer six;
    memset(&six, 0, sizeof six);
    su_pton(&su, T("2001:db8::1"));
    io_dns_add(dns, &su, (void *)on_name, &six);
    wait_for(&six.count, 1);
    char *asked = file_text(path);
    CHECK_HAS(asked, "1.2.0.192.in-addr.arpa.\n");
    CHECK_HAS(asked, "5.2.0.192.in-addr.arpa.\n");
    if (!original)
        CHECK_HAS(asked, "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.\n");

    /* The resolver may be dropped while a question is pending. */
    su_pton(&su, T("192.0.2.8"));
    if (!original) /* the original crashes */
        io_dns_add(dns, &su, (void *)on_name, &gone);
    io_dns_destroy(dns);
    io_destroy(io, NULL);
    CHECK_INT(gone.count, 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return check_result();
}

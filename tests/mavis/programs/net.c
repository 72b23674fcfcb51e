/* Addresses and sockets. */
#include "check.h"
#include <arpa/inet.h>
#include <misc/net.h>
#include <netdb.h>

static sockaddr_union of(const char *text, int port)
{
    sockaddr_union su;
    CHECK_INT(su_pton(&su, T(text)), 0);
    if (port >= 0)
        su_set_port(&su, (uint16_t)port);
    return su;
}

static const char *text_of(sockaddr_union *su)
{
    static char text[128];
    return su_ntoa(su, text, sizeof text);
}

static void reading(void)
{
    static const struct {
        const char *text;
        int family;
        const char *shown;
    } cases[] = { { "192.0.2.1", AF_INET, "192.0.2.1" },         { "2001:db8::1", AF_INET6, "2001:db8::1" },
                  { "::", AF_INET6, "::" },                      { "/run/sock", AF_UNIX, "/run/sock" },
                  { "unix:/run/sock", AF_UNIX, "/run/sock" },    { "UNIX:relative", AF_UNIX, "relative" },
                  { "inet:192.0.2.1", AF_INET, "192.0.2.1" },    { "inet6:2001:db8::1", AF_INET6, "2001:db8::1" },
                  { "INET6:::1", AF_INET6, "::1" },              { "10.1", AF_INET, "10.0.0.1" } };
    sockaddr_union su;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(&su, 'x', sizeof su);
        CHECK_INT(su_pton(&su, T(cases[i].text)), 0);
        CHECK_INT(su.sa.sa_family, cases[i].family);
        CHECK_TEXT(text_of(&su), cases[i].shown);
        CHECK_INT(su_len(&su), cases[i].family == AF_UNIX ? 110 : cases[i].family == AF_INET ? 16 : 28);
        CHECK_INT(su_get_port(&su), 0);
        CHECK_INT(su_set_port(&su, 8080), cases[i].family == AF_UNIX ? -1 : 0);
        CHECK_INT(su_get_port(&su), cases[i].family == AF_UNIX ? 0 : 8080);
    }
    CHECK_INT(su_pton(&su, T("nonsense")), -1);
    CHECK_INT(su_pton(&su, T("2001:zz::")), -1);
    su = of("192.0.2.1", 1);
    char small[9];
    CHECK(!su_ntoa(&su, small, sizeof small));

    static const struct {
        const char *text, *shown;
        int port;
    } with_port[] = { { "192.0.2.1", "192.0.2.1", 7 },       { "192.0.2.1:99", "192.0.2.1", 99 }, { "[2001:db8::1]:99", "2001:db8::1", 99 },
                      { "[2001:db8::1]", "2001:db8::1", 7 }, { "2001:db8::1", "2001:db8::1", 7 } };
    for (size_t i = 0; i < sizeof with_port / sizeof *with_port; i++) {
        CHECK_INT(su_pton_p(&su, T(with_port[i].text), 7), 0);
        CHECK_TEXT(text_of(&su), with_port[i].shown);
        CHECK_INT(su_get_port(&su), with_port[i].port);
    }
    CHECK_INT(su_pton_p(&su, T("[nonsense]:1"), 7), -1);
}

static void comparing(void)
{
    sockaddr_union a = of("192.0.2.1", 1), b = of("192.0.2.1", 2), c = of("::ffff:192.0.2.1", 1), d = of("192.0.2.2", 1),
                   e = of("2001:db8::1", 1), f = of("2001:db8::2", 1);
    CHECK(su_equal(&a, &a) && !su_equal(&a, &b) && su_equal(&a, &c) && !su_equal(&a, &d) && !su_equal(&a, &e));
    CHECK(su_equal_addr(&a, &b) && su_equal_addr(&a, &c) && su_equal_addr(&b, &c) && !su_equal_addr(&a, &d));
    CHECK_INT(su_cmp(&a, &a), 0);
    CHECK(su_cmp(&a, &b) && su_cmp(&a, &d) && su_cmp(&e, &f));
    CHECK((su_cmp(&a, &d) < 0) == (su_cmp(&d, &a) > 0));
    CHECK((su_cmp(&e, &f) < 0) == (su_cmp(&f, &e) > 0));
    CHECK_INT(su_cmp_addr(&a, &b), 0);
    CHECK(su_cmp_addr(&a, &d) && su_cmp_addr(&e, &f));

    sockaddr_union copy = of("2001:db8::1", 4000);
    CHECK_INT(su_copy_addr(&copy, &f), 0);
    CHECK_TEXT(text_of(&copy), "2001:db8::2");
    CHECK_INT(su_get_port(&copy), 4000);
}

static void converting(void)
{
    sockaddr_union su = of("192.0.2.1", 80);
    struct in6_addr a;
    CHECK_INT(su_convert(&su, AF_INET), 0);
    CHECK_INT(su_convert(&su, AF_INET6), 0);
    CHECK_INT(su.sa.sa_family, AF_INET6);
    CHECK_INT(su_get_port(&su), 80);
    CHECK(IN6_IS_ADDR_V4MAPPED(&su.sin6.sin6_addr));
    CHECK_INT(su_convert(&su, AF_INET6), 0);
    CHECK_INT(su_convert(&su, AF_INET), 0);
    CHECK_INT(su.sa.sa_family, AF_INET);
    CHECK_TEXT(text_of(&su), "192.0.2.1");
    CHECK_INT(su_get_port(&su), 80);
    su = of("2001:db8::1", 80);
    CHECK_INT(su_convert(&su, AF_INET), -1);

    CHECK_INT(su_ptoh(&su, &a), 0);
    CHECK_INT(a.s6_addr32[0], 0x20010db8);
    CHECK_INT(a.s6_addr32[3], 1);
    memset(&su, 0, sizeof su);
    CHECK_INT(su_htop(&su, &a, AF_INET6), 0);
    CHECK_INT(su.sa.sa_family, AF_INET6);
    CHECK_TEXT(text_of(&su), "2001:db8::1");
    su = of("192.0.2.1", 80);
    CHECK_INT(su_ptoh(&su, &a), 0);
    CHECK_INT(a.s6_addr32[0], 0);
    CHECK_INT(a.s6_addr32[2], 0xffff);
    CHECK_INT(a.s6_addr32[3], 0xc0000201U);
    memset(&su, 0, sizeof su);
    CHECK_INT(su_htop(&su, &a, AF_INET), 0);
    CHECK_TEXT(text_of(&su), "192.0.2.1");
}

static struct in6_addr v6(const char *text)
{
    struct in6_addr a;
    CHECK_INT(v6_ptoh(&a, NULL, T(text)), 0);
    return a;
}

#define SAME(a, b) CHECK_INT(v6_cmp(&(a), &(b)), 0)

static void prefixes(void)
{
    static const struct {
        const char *text;
        int length;
    } cases[] = { { "10.0.0.0/8", 104 },  { "192.0.2.1", 128 },          { "192.0.2.0/255.255.255.0", 120 }, { "0.0.0.0/0", 96 },
                  { "2001:db8::/32", 32 }, { "::/0", 0 },                { "2001:db8::1", 128 },           { "10.0.0.0/32", 128 } },
      bad[] = { { "nonsense", 0 }, { "10.0.0.0/255.0.255.0", 0 }, { "2001:zz::/32", 0 } };
    struct in6_addr a, b, mask;
    int length;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        length = -5;
        CHECK_INT(v6_ptoh(&a, &length, T(cases[i].text)), 0);
        CHECK_INT(length, cases[i].length);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_INT(v6_ptoh(&a, &length, T(bad[i].text)), -1);
    CHECK_INT(v6_ptoh(&a, &length, T("2001:db8::/x")), 0);
    CHECK_INT(length, 0);

    CHECK_INT(v6_ptoh_ext(&a, &mask, T("10.0.0.0/8")), 0);
    CHECK_INT(a.s6_addr32[3], 0x0a000000);
    CHECK_INT(mask.s6_addr32[0], 0xffffffffU);
    CHECK_INT(mask.s6_addr32[3], 0xff000000U);
    memset(&mask, 'x', sizeof mask);
    b = mask;
    CHECK_INT(v6_ptoh_ext(&a, &mask, T("2001:db8::1")), 0);
    CHECK(!memcmp(&mask, &b, sizeof mask));
    CHECK(v6_ptoh_ext(&a, &mask, T("nonsense")) != 0);

    inet_pton(AF_INET6, "2001:db8::1", &b);
    v6_ntoh(&a, &b);
    CHECK_INT(a.s6_addr32[0], 0x20010db8);
    v6_ntoh(&a, &a);
    CHECK(!memcmp(&a, &b, sizeof a));

    struct in6_addr one = v6("10.1.2.3"), two = v6("10.1.200.3"), net = v6("10.1.0.0"), last = v6("10.1.255.255"),
                    first6 = v6("2001:db8::"), in6 = v6("2001:db8:5::7"), last6 = v6("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff");
    CHECK_INT(v6_cmp(&one, &two), -1);
    CHECK_INT(v6_cmp(&two, &one), 1);
    SAME(one, one);
    v6_network(&a, &one, 112);
    SAME(a, net);
    v6_broadcast(&a, &one, 112);
    SAME(a, last);
    v6_network(&a, &in6, 32);
    SAME(a, first6);
    v6_broadcast(&a, &in6, 32);
    SAME(a, last6);
    v6_network(&a, &one, 128);
    SAME(a, one);
    v6_broadcast(&a, &one, 128);
    SAME(a, one);
    CHECK_INT(v6_common_cidr(&one, &two, 128), 112);
    CHECK_INT(v6_common_cidr(&one, &two, 100), 100);
    CHECK_INT(v6_common_cidr(&one, &one, 128), 128);
    CHECK_INT(v6_contains(&net, 112, &one), -1);
    CHECK_INT(v6_contains(&net, 128, &one), 0);
    CHECK_INT(v6_contains(&first6, 32, &in6), -1);
    CHECK_INT(v6_contains(&first6, 32, &one), 0);
    if (!original)
        CHECK_INT(v6_contains(&first6, 0, &one), -1);
}

static int collected;
static sockaddr_union collected_su;
static int collect(sockaddr_union *su, void *data)
{
    collected++;
    collected_su = *su;
    CHECK(data == &collected);
    return -1;
}

/* The first one works, so no more are wanted. */
static int collect_one(sockaddr_union *su, void *data)
{
    collect(su, data);
    return 0;
}

static void resolving(void)
{
    uint16_t port = 7;
    char host[128], service[64];
    CHECK_INT(su_addrinfo(T("192.0.2.1"), T("80"), SOCK_STREAM, PF_UNSPEC, 0, &collected, collect), 0);
    CHECK_INT(collected, 1);
    CHECK_TEXT(text_of(&collected_su), "192.0.2.1");
    CHECK_INT(su_get_port(&collected_su), 80);
    CHECK_INT(su_addrinfo(T("/run/sock"), NULL, SOCK_STREAM, PF_UNSPEC, 0, &collected, collect), 0);
    CHECK_TEXT(text_of(&collected_su), "/run/sock");
    collected = 0;
    CHECK_INT(su_addrinfo(NULL, T("80"), SOCK_STREAM, PF_UNSPEC, 0, &collected, collect), 0);
    CHECK_INT(collected, 1);
    CHECK_TEXT(text_of(&collected_su), inet_wildcard());
    CHECK_INT(su_addrinfo(T("192.0.2.1"), T("70000"), SOCK_STREAM, PF_UNSPEC, 0, &collected, collect), -1);
    CHECK_INT(su_addrinfo(T("no-such-host.invalid"), T("80"), SOCK_STREAM, PF_UNSPEC, 0, &collected, collect), -1);
    collected = 0;
    CHECK_INT(su_addrinfo(T("localhost"), T("80"), 0, PF_INET, 0, &collected, collect_one), 0);
    CHECK_INT(collected, 1);
    CHECK_TEXT(text_of(&collected_su), "127.0.0.1");
    CHECK_INT(su_get_port(&collected_su), 80);
    collected = 0;
    CHECK_INT(su_addrinfo(T("localhost"), T("80"), 0, PF_INET, 1, &collected, collect), 0);
    CHECK_INT(collected, 1);

    CHECK_INT(service_to_port(&port, T("8080"), SOCK_STREAM), 0);
    CHECK_INT(port, 8080);
    CHECK_INT(service_to_port(&port, T("70000"), SOCK_STREAM), -1);
    port = 7;
    CHECK_INT(service_to_port(&port, T("no-such-service"), SOCK_STREAM), 0);
    CHECK_INT(port, 7);
    if (getservbyname("http", "tcp")) {
        CHECK_INT(service_to_port(&port, T("http"), SOCK_STREAM), 0);
        CHECK_INT(port, 80);
    }

    sockaddr_union su = of("192.0.2.1", 8080);
    CHECK_INT(su_nameinfo(&su, host, sizeof host, service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV), 0);
    CHECK_TEXT(host, "192.0.2.1");
    CHECK_TEXT(service, "8080");
    su = of("/run/sock", -1);
    CHECK_INT(su_nameinfo(&su, host, sizeof host, NULL, 0, NI_NUMERICHOST), 0);
    CHECK_TEXT(host, "/run/sock");
}

static void sockets(void)
{
    int value = 0;
    socklen_t length = sizeof value;
    sockaddr_union su = of("127.0.0.1", 0);
    int fd = su_socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK));
    CHECK_INT(su_bind(fd, &su), 0);
    CHECK(!getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, &length) && value);
    CHECK(!getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &length) && value);
    length = sizeof su;
    CHECK(!getsockname(fd, &su.sa, &length) && su_get_port(&su));
    int other = su_socket(AF_INET, SOCK_STREAM, 0);
    listen(fd, 1);
    CHECK_INT(su_bind(other, &su), -1);
    CHECK_INT(errno, EADDRINUSE);
    close(fd);
    close(other);
    CHECK_INT(su_socket(-1, SOCK_STREAM, 0), -1);

    char wildcard[8], any[16];
    CHECK(have_inet6() == 0 || have_inet6() == -1);
    strcpy(wildcard, have_inet6() ? "::" : "0.0.0.0");
    CHECK_TEXT(inet_wildcard(), wildcard);
    sprintf(any, "%s/0", wildcard);
    CHECK_TEXT(inet_any(), any);
}

int main(void)
{
    init_common_data();
    reading();
    comparing();
    converting();
    prefixes();
    resolving();
    sockets();
    return check_result();
}

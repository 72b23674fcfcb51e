/* Attributes as text, in datagrams, with serial numbers, and encrypted. */
#include "check.h"
#include <arpa/inet.h>
#include <mavis/av_send.h>

static av_ctx *set_of(const char *type, const char *user, const char *realm, const char *tactype)
{
    av_ctx *ac = av_new(NULL, NULL);
    av_set(ac, AV_A_TYPE, T(type));
    av_set(ac, AV_A_USER, T(user));
    av_set(ac, AV_A_REALM, T(realm));
    av_set(ac, AV_A_TACTYPE, T(tactype));
    return ac;
}

static void text(void)
{
    char buffer[256];
    av_ctx *ac = set_of("TACPLUS", "joe", NULL, "HOST");
    const char *expected = "0 TACPLUS\n4 joe\n49 HOST\n";
    int length = (int)strlen(expected);
    memset(buffer, 'x', sizeof buffer);
    CHECK_INT(av_array_to_char(ac, buffer, sizeof buffer, NULL), length);
    CHECK_TEXT(buffer, expected);
    /* The NUL must fit as well. */
    for (int room = 0; room <= length + 2; room++) {
        memset(buffer, 'x', sizeof buffer);
        CHECK_INT(av_array_to_char(ac, buffer, (size_t)room, NULL), room > length ? length : -1);
        CHECK_INT(buffer[room > 0 ? room : 1], 'x');
    }

    fd_set set;
    FD_ZERO(&set);
    FD_SET(AV_A_USER, &set);
    FD_SET(AV_A_REALM, &set);
    CHECK_INT(av_array_to_char(ac, buffer, sizeof buffer, &set), 6);
    CHECK_TEXT(buffer, "4 joe\n");
    FD_ZERO(&set);
    CHECK_INT(av_array_to_char(ac, buffer, sizeof buffer, &set), 0);

    av_clear(ac);
    CHECK_INT(av_array_to_char(ac, buffer, sizeof buffer, NULL), 0);
    av_set(ac, AV_A_COMMENT, T("two\nlines\n"));
    av_set(ac, AV_A_USER, T(""));
    CHECK_INT(av_array_to_char(ac, buffer, sizeof buffer, NULL), 17);
    CHECK_TEXT(buffer, "4 \n17 two\rlines\r\n");
    CHECK_TEXT(av_get(ac, AV_A_COMMENT), "two\nlines\n");
    av_free(ac);
}

static void needed_size(void)
{
    char buffer[4096];
    av_ctx *ac = av_new(NULL, NULL);
    CHECK_INT(av_array_to_char_len(ac), 1);
    av_set(ac, AV_A_TYPE, T("FTP"));
    CHECK(av_array_to_char_len(ac) >= 7);
    for (int i = 0; i < AV_A_ARRAYSIZE; i++)
        av_setf(ac, i, T("value %d"), i);
    size_t size = av_array_to_char_len(ac);
    CHECK(size < 4096 && av_array_to_char(ac, buffer, size, NULL) > 0);
    if (!original) {
        /* The same if the first attribute's index has two digits. */
        for (int i = 10; i < AV_A_ARRAYSIZE; i++) {
            av_clear(ac);
            av_set(ac, i, T("x"));
            size = av_array_to_char_len(ac);
            CHECK(size < 4096 && av_array_to_char(ac, buffer, size, NULL) == 5);
        }
    }
    av_free(ac);
}

static void reading(void)
{
    av_ctx *ac = set_of("FTP", "old", "kept", NULL);
    char input[] = "4 joe\n"
                   "17 two\rlines\n"
                   "no number\n"
                   "nospace\n"
                   "+ x\n"
                   "- x\n"
                   "\t x\n"
                   "4294967311 x\n" /* out of range; the original takes it for 15 */
                   "99999999999999999999 x\n"
                   "\303\251t\303\251 x\n"
                   "\377 x\n"
                   "\t\v11 tab\n"
                   "+12 plus\n"
                   " 8 leading\n"
                   "7abc path\n"
                   "-1 x\n"
                   "57 x\n"
                   "1000 x\n"
                   "19 \n"
                   "10 first\n"
                   "10 second\n"
                   "9  two blanks\n"
                   "20 not ended";
    char copy[sizeof input];
    memcpy(copy, input, sizeof input);
    CHECK_INT(av_char_to_array(ac, input, NULL), 0);
    CHECK(!memcmp(copy, input, sizeof input));
    /* Text without a number in front is something that a script printed by mistake. */
    CHECK_TEXT(av_get(ac, AV_A_TYPE), "FTP");
    CHECK_TEXT(av_get(ac, AV_A_USER), "joe");
    CHECK_TEXT(av_get(ac, AV_A_REALM), "kept");
    CHECK_TEXT(av_get(ac, 11), "tab");
    CHECK_TEXT(av_get(ac, 12), "plus");
    CHECK_TEXT(av_get(ac, 15), original ? "x" : NULL);
    CHECK_TEXT(av_get(ac, AV_A_COMMENT), "two\nlines");
    CHECK_TEXT(av_get(ac, AV_A_PASSWORD), NULL);
    CHECK_TEXT(av_get(ac, AV_A_PATH), "path");
    CHECK_TEXT(av_get(ac, AV_A_HOME), "");
    CHECK_TEXT(av_get(ac, AV_A_GID), "second");
    CHECK_TEXT(av_get(ac, AV_A_UID), " two blanks");
    CHECK_TEXT(av_get(ac, AV_A_ROOT), NULL);
    CHECK(!ac->app_cb && !ac->app_ctx);

    char empty[] = "";
    CHECK_INT(av_char_to_array(ac, empty, NULL), 0);
    char newlines[] = "\n\n\n";
    CHECK_INT(av_char_to_array(ac, newlines, NULL), 0);
    CHECK_TEXT(av_get(ac, AV_A_USER), "joe");

    fd_set set;
    FD_ZERO(&set);
    FD_SET(AV_A_USER, &set);
    char two[] = "4 kim\n6 ACK\n";
    CHECK_INT(av_char_to_array(ac, two, &set), 0);
    CHECK_TEXT(av_get(ac, AV_A_USER), "kim");

    if (!original) {
        /* There is no attribute 56: that place holds the callback. */
        char beyond[] = "56 x\r\n";
        av_setcb(ac, T("callback"), NULL);
        CHECK_INT(av_char_to_array(ac, beyond, NULL), 0);
        CHECK_TEXT((char *)ac->app_cb, "callback");
    }
    av_free(ac);
}

static void serials(void)
{
    static const struct {
        const char *user, *realm, *serial;
    } vectors[] = { { "192.0.2.10", "default", "tVTicCAiZKoBOkXDUP0ckg=" },
                    { "198.51.100.7", "default", "8YuKL+b+MOy3oHqJKl9Ncw=" },
                    { "2001:db8::1", "default", "X7HIe1IDVeyQq1GYfGouqA=" },
                    { "joe", NULL, "hQVI+m6BYyXh95QmOHk2Zw=" } };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        av_ctx *ac = set_of("TACPLUS", vectors[i].user, vectors[i].realm, "HOST");
        char *serial = av_addserial(ac);
        CHECK_TEXT(serial, vectors[i].serial);
        CHECK(serial == av_get(ac, AV_A_SERIAL));
        /* It stays the same, whatever else changes. */
        av_set(ac, AV_A_COMMENT, T("more"));
        CHECK_TEXT(av_addserial(ac), vectors[i].serial);
        av_set(ac, AV_A_SERIAL, T("mine"));
        CHECK_TEXT(av_addserial(ac), "mine");
        av_free(ac);
    }
}

static int udp(sockaddr_union *su)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t length = sizeof *su;
    memset(su, 0, sizeof *su);
    su->sin.sin_family = AF_INET;
    su->sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, &su->sa, sizeof su->sin) || getsockname(fd, &su->sa, &length))
        exit(2);
    return fd;
}

static void datagrams(void)
{
    static union {
        char c[70000];
        a_char a[1];
    } buffer;
    sockaddr_union from, to;
    int sender = udp(&from), receiver = udp(&to);
    struct timeval patience = { 10, 0 };
    setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    av_ctx *ac = set_of("TACPLUS", "joe", NULL, NULL);

    CHECK_INT(av_send(ac, sender, &to, NULL), MAVIS_DEFERRED);
    CHECK_INT(recv(receiver, buffer.c, sizeof buffer, 0), 16);
    CHECK(!memcmp(buffer.c, "0 TACPLUS\n4 joe\n", 16));

    /* Encrypted, with its NUL: 17 bytes, padded to 24. */
    struct blowfish_ctx *key = blowfish_init(T("secret"), 6);
    CHECK_INT(av_send(ac, sender, &to, key), MAVIS_DEFERRED);
    CHECK_INT(recv(receiver, buffer.c, sizeof buffer, 0), 24);
    CHECK_INT(blowfish_dec(key, buffer.a, 24), 6);
    CHECK_TEXT(buffer.c, "0 TACPLUS\n4 joe\n");
    free(key);

    /* Too long for a datagram; and something that is not a socket. */
    char *longer = (char *)malloc(65536);
    memset(longer, 'a', 65535);
    longer[65535] = 0;
    av_set(ac, AV_A_COMMENT, longer);
    CHECK_INT(av_send(ac, sender, &to, NULL), MAVIS_IGNORE);
    av_unset(ac, AV_A_COMMENT);
    CHECK_INT(av_send(ac, -1, &to, NULL), MAVIS_IGNORE);
    free(longer);
    close(sender);
    close(receiver);
    av_free(ac);
}

static void blowfish(void)
{
    union {
        char c[128];
        a_char a[32];
    } data;
    struct blowfish_ctx *key = blowfish_init(T("secret"), 6);
    memset(&data, 0, sizeof data);
    CHECK_INT(blowfish_enc(key, data.a, 8), 8);
    CHECK_HEX(data.c, "5c042d85205406e2");
    CHECK_INT(blowfish_dec(key, data.a, 8), 2);
    CHECK_HEX(data.c, "0000000000000000");

    memcpy(data.c, "0 TACPLUS\n4 joe\n\0\0\0\0\0\0\0\0", 24);
    CHECK_INT(blowfish_enc(key, data.a, 17), 24);
    CHECK_HEX(data.c, "da80599545b836558ca74b8887f9ab425c042d85205406e2");
    for (size_t n = 0; n <= 40; n++) {
        size_t expected = n % 8 == 0 ? n : (n + 8) / 4 * 4;
        memset(&data, 0, sizeof data);
        CHECK_INT(blowfish_enc(key, data.a, n), expected);
    }
    free(key);

    key = blowfish_init(T("0123456789abcdef"), 16);
    memcpy(data.c, "ABCDEFGH", 8);
    CHECK_INT(blowfish_enc(key, data.a, 8), 8);
    CHECK_HEX(data.c, "c80891815de50806");
    free(key);

    key = blowfish_init(T("\0\0\0\0\0\0\0\0"), 8);
    memset(&data, 0, sizeof data);
    CHECK_INT(blowfish_enc(key, data.a, 8), 8);
    CHECK_HEX(data.c, "d3e6f7f19d8d151d");
    free(key);
}

int main(void)
{
    text();
    needed_size();
    reading();
    serials();
    datagrams();
    blowfish();
    return check_result();
}

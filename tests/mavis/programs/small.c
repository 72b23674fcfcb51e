/* Small functions: checksums, encodings, words, groups, files. */
#include "check.h"
#include <grp.h>
#include <mavis/groups.h>
#include <mavis/spawnd_headers.h>
#include <misc/base64.h>
#include <misc/crc32.h>
#include <misc/md5crypt.h>
#include <misc/mymd4.h>
#include <misc/mymd5.h>
#include <misc/ostype.h>
#include <misc/pid_write.h>
#include <misc/tokenize.h>
#include <misc/utf.h>
#include <pwd.h>
#include <sys/utsname.h>

static void checksums(void)
{
    CHECK_INT(crc32_update(0, (unsigned char *)T("123456789"), 9), 0x89a1897fU);
    CHECK_INT(crc32_final(0x89a1897fU, 9), 930766865U);
    CHECK_INT(crc32_update(crc32_update(0, (unsigned char *)T("1234"), 4), (unsigned char *)T("56789"), 5), 0x89a1897fU);
    CHECK_INT(crc32_final(crc32_update(0, NULL, 0), 0), 4294967295U);

    static const struct {
        const char *text, *md5, *md4;
    } vectors[] = { { "", "d41d8cd98f00b204e9800998ecf8427e", "31d6cfe0d16ae931b73c59d7e0c089c0" },
                    { "abc", "900150983cd24fb0d6963f7d28e17f72", "a448017aaf21d8525fc10ae87aa6729d" },
                    { "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                      "57edf4a22be3c955ac49da2e2107b67a", "e33b4ddc9c38f2199c3e7b164fcc0536" } };
    unsigned char digest[16];
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        /* The memory is the caller's: nothing beyond its end may be touched. */
        struct {
            myMD5_CTX five;
            char after_five[16];
            myMD4_CTX four;
            char after_four[16];
        } ctx;
        size_t length = strlen(vectors[i].text), half = length / 2;
        memset(&ctx, 'x', sizeof ctx);
        myMD5Init(&ctx.five);
        myMD5Update(&ctx.five, T(vectors[i].text), half);
        myMD5Update(&ctx.five, T(vectors[i].text) + half, length - half);
        myMD5Final(digest, &ctx.five);
        CHECK_HEX(digest, vectors[i].md5);
        MD4Init(&ctx.four);
        MD4Update(&ctx.four, (unsigned char *)T(vectors[i].text), (unsigned int)half);
        MD4Update(&ctx.four, (unsigned char *)T(vectors[i].text) + half, (unsigned int)(length - half));
        MD4Final(digest, &ctx.four);
        CHECK_HEX(digest, vectors[i].md4);
        for (int k = 0; k < 16; k++)
            CHECK(ctx.after_five[k] == 'x' && ctx.after_four[k] == 'x');

        struct iovec pieces[2] = { { T(vectors[i].text), half }, { T(vectors[i].text) + half, length - half } };
        memset(digest, 0, sizeof digest);
        CHECK_INT(md5v(digest, 16, pieces, 2), 0);
        CHECK_HEX(digest, vectors[i].md5);
        CHECK_INT(md5v(NULL, 16, pieces, 2), -1);
        CHECK_INT(md5v(digest, 15, pieces, 2), -1);
        CHECK_INT(md5v(digest, 17, pieces, 2), -1);
    }
    CHECK_TEXT(md5crypt("secret", "$1$abcdefgh$"), "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1");
    CHECK_TEXT(md5crypt("secret", "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1"), "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1");
}

static void encodings(void)
{
    static const struct {
        const char *text, *encoded;
    } vectors[] = { { "a", "YQ=" }, { "ab", "YWI==" }, { "abc", "YWJj" }, { "abcd", "YWJjZA=" }, { "abcdef", "YWJjZGVm" } };
    char out[64];
    size_t length;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        size_t n = strlen(vectors[i].text);
        length = sizeof out;
        memset(out, 'x', sizeof out);
        CHECK_INT(base64enc(T(vectors[i].text), n, out, &length), 0);
        CHECK_TEXT(out, vectors[i].encoded);
        CHECK_INT(length, strlen(vectors[i].encoded));
        length = (8 * n + 5) / 6;
        CHECK_INT(base64enc(T(vectors[i].text), n, out, &length), -1);
        length = original ? (8 * n + 5) / 6 + 1 : strlen(vectors[i].encoded) + 1; /* it forgets the padding */
        CHECK_INT(base64enc(T(vectors[i].text), n, out, &length), 0);
        length = sizeof out;
        memset(out, 'x', sizeof out);
        CHECK_INT(base64dec(T(vectors[i].encoded), strlen(vectors[i].encoded), out, &length), 0);
        CHECK_TEXT(out, vectors[i].text);
        CHECK_INT(length, n);
    }
    length = sizeof out;
    CHECK_INT(base64enc(T("\xff\xfe\xfd 16 bytes !!"), 16, out, &length), 0);
    CHECK_INT(length, 23);
    length = sizeof out;
    CHECK_INT(base64dec(T("YW*j"), 4, out, &length), -1);
    length = 3;
    CHECK_INT(base64dec(T("YWJj"), 4, out, &length), -1);
    length = 4;
    CHECK_INT(base64dec(T("YWJj"), 4, out, &length), 0);

    char *wide = NULL;
    length = 0;
    CHECK_INT(utf8_to_utf16le(T("a\303\274\342\202\254"), 6, &wide, &length), 0);
    CHECK_INT(length, 6);
    CHECK_HEX(wide, "6100fc00ac20");
    free(wide);
    CHECK_INT(utf8_to_utf16le(T("\360\237\230\200"), 4, &wide, &length), 0);
    CHECK_INT(length, 4);
    if (!original)
        CHECK_HEX(wide, "3dd800de");
    free(wide);
    if (!original) /* the original never comes back */
        CHECK_INT(utf8_to_utf16le(T("a\377b"), 3, &wide, &length), -1);

    length = sizeof out;
    CHECK_TEXT(escape_string(T("a\\b\a\b\v\f\n\r\t\001z"), 12, out, &length), "a\\\\b\\a\\b\\v\\f\\n\\r\\t\\001z");
    CHECK_INT(length, strlen(out));
    length = sizeof out;
    if (!original) /* the original makes it 777 */
        CHECK_TEXT(escape_string(T("\377"), 1, out, &length), "\\377");
    memset(out, 'x', sizeof out);
    length = 10;
    escape_string(T("abcdefghijklmnopqrstuvwxyz"), 26, out, &length);
    CHECK(length <= 9 && strlen(out) == length && !strncmp(out, "abcdef", 6));
    CHECK_INT(out[10], 'x');
}

static void words(void)
{
    char line[] = "one  two\t\"three four\" fi\\\\ve", *words[8];
    memset(words, 0, sizeof words);
    int n = tokenize(line, words, 8);
    CHECK_INT(n, 4);
    CHECK_TEXT(words[0], "one");
    CHECK_TEXT(words[1], "two");
    CHECK_TEXT(words[2], "three four");
    if (!original)
        CHECK_TEXT(words[3], "fi\\ve");
    char more[] = "a b c d e f g h i j k";
    CHECK_INT(tokenize(more, words, 4), -1);
    char none[] = "";
    CHECK_INT(tokenize(none, words, 8), 0);

    struct utsname name;
    char expected[1024], out[1024];
    uname(&name);
    snprintf(expected, sizeof expected, "%s-%s-%s", name.sysname, name.release, name.machine);
    for (char *p = expected; *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p + 'a' - 'A');
    CHECK_TEXT(ostype(), expected);
    memmove(expected + 2, expected, strlen(expected) + 1);
    memcpy(expected, "a-", 2);
    strcat(expected, "-%-b");
    CHECK(ostypef(T("a-%o-%%-%xb"), out, sizeof out) == out);
    CHECK_TEXT(out, expected);
    CHECK_TEXT(ostypef(T("/plain/path"), out, sizeof out), "/plain/path");
    CHECK(strlen(ostypef(T("%O"), out, sizeof out)) > 0);
}

static void groups(void)
{
    char buffer[8192], expected[8192] = "";
    gid_t list[4] = { 1, 22, 333, 4000000000U }, ids[100];
    int size = 4;
    CHECK_TEXT(groups_list2ascii(4, list, buffer, sizeof buffer), "1,22,333,4000000000");
    CHECK_TEXT(groups_list2ascii(1, list, buffer, sizeof buffer), "1");
    memset(list, 0, sizeof list);
    char text[] = "5,x,66,7";
    groups_ascii2list(text, &size, list);
    CHECK_INT(size, 3);
    CHECK_INT(list[0], 5);
    CHECK_INT(list[1], 66);
    CHECK_INT(list[2], 7);

    struct passwd *pw = getpwnam("root");
    if (pw) {
        int n = 100;
        getgrouplist("root", pw->pw_gid, ids, &n);
        for (int i = 0; i < n; i++)
            sprintf(expected + strlen(expected), "%s%u", i ? "," : "", (unsigned)ids[i]);
        CHECK_TEXT(groups_getlist(T("root"), pw->pw_gid, buffer, sizeof buffer), expected);
    }
}

static void take_the_lock(void *path)
{
    struct pidfile *file = pid_write((char *)path);
    CHECK(!file);
}

static void files(void)
{
    char *path = test_path("pid"), expected[32], *text;
    struct stat st;
    struct pidfile *file = pid_write(path);
    CHECK(file != NULL);
    snprintf(expected, sizeof expected, "%d", (int)getpid());
    text = file_text(path);
    CHECK_TEXT(text, expected);
    CHECK(!stat(path, &st) && (st.st_mode & 07777) == 0644);
    /* pid_unlink() removes the file. That nobody else can lock it is tested below, as the original then removes it. */
    pid_unlink(&file);
    CHECK(!file);
    CHECK_INT(access(path, F_OK), -1);

    file = pid_write(path);
    unlink(path);
    free(test_file("pid", "somebody else's"));
    pid_unlink(&file);
    CHECK_INT(access(path, F_OK), 0);
    unlink(path);

    file = pid_write(path);
    CHECK_INT(in_child(take_the_lock, path, NULL), RETURNED);
    pid_unlink(&file);

    char *link = test_path("link");
    if (symlink(path, link))
        exit(2);
    CHECK(!pid_write(link));
    CHECK(!pid_write(T("/no/such/directory/pid")));

    char *exec = NULL, here[4096];
    get_exec_path(&exec, T("name"));
    ssize_t length = readlink("/proc/self/exe", here, sizeof here - 1);
    here[length > 0 ? length : 0] = 0;
    CHECK_TEXT(exec, here);
    free(exec);
    exec = NULL;
    get_exec_path(&exec, T("/some/where/name"));
    CHECK_TEXT(exec, "/some/where/name");
    free(exec);
}

int main(void)
{
    umask(022);
    init_common_data();
    checksums();
    encodings();
    words();
    groups();
    files();
    return check_result();
}

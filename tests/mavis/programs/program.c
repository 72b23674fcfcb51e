/* For whole programs: their configuration, common data, exit statuses, titles. */
#include "check.h"
#include <mavis/log.h>
#include <mavis/scm.h>
#include <mavis/set_proctitle.h>
#include <misc/setproctitle.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <syslog.h>

static char seen[4096];

static void section(struct sym *sym)
{
    while (sym->code != S_closebra && sym->code != S_eof) {
        strcat(strcat(seen, sym->buf), " ");
        sym_get(sym);
    }
}

static void common_section(struct sym *sym)
{
    while (sym->code != S_closebra)
        parse_common(sym);
}

struct job {
    const char *path, *id;
};

static void read_config(void *arg)
{
    struct job *job = (struct job *)arg;
    cfg_read_config(T(job->path), section, T(job->id));
    dprintf(2, "seen: %s\n", seen);
}

static void configurations(void)
{
    char *path = test_file("a.cfg",
                           "# comment\n"
                           "syslog facility = LOCAL1\n"
                           "setenv MAVIS_TEST_TOP = yes\n"
                           "alias = pair { one \"two 2\" }\n"
                           "id = other { a { b \"}\" } c }\n"
                           "id = mine { x pair y }\n"
                           "this { is never read \"");
    char *text;
    seen[0] = 0;
    capture_begin();
    cfg_read_config(path, section, T("mine"));
    text = capture_end();
    CHECK_TEXT(seen, "x one two 2 y ");
    CHECK_TEXT(text, "");
    CHECK_INT(common_data.syslog_facility, LOG_LOCAL1);
    CHECK_TEXT(getenv("MAVIS_TEST_TOP"), "yes");
    common_data.syslog_facility = LOG_UUCP;
    /* Again, with nothing left over from the first time. */
    char *second = test_file("b.cfg", "id mine { pair } id = mine { second }");
    seen[0] = 0;
    cfg_read_config(second, section, T("mine"));
    CHECK_TEXT(seen, "pair ");
    char *third = test_file("c.cfg", "id = mine { debug = PACKET proctitle = \"title\" cleanup interval = 5 }");
    cfg_read_config(third, common_section, T("mine"));
    CHECK_INT(common_data.debug, 0x20);
    CHECK_TEXT(common_data.proctitle, "title");
    CHECK_INT(common_data.cleanup_interval, 5);
    common_data.debug = 0;

    struct job none = { path, "none" };
    CHECK_INT(in_child(read_config, &none, &text), 78);
    CHECK_HAS(text, "but got 'this'"); /* which other sections do not get to see */
    none.path = second;
    CHECK_INT(in_child(read_config, &none, &text), 78);
    CHECK_HAS(text, with_lines("b.cfg:@0: FATAL: No configuration for id 'none' found."));
    struct job missing = { "/no/such/file.cfg", "mine" };
    CHECK_INT(in_child(read_config, &missing, &text), 66);
    CHECK_HAS(text, "Couldn't open /no/such/file.cfg: No such file or directory");
    CHECK_HAS(text, "Exiting.");
    struct job bad = { test_file("d.cfg", "id = mine { x }\n bogus { }"), "other" };
    CHECK_INT(in_child(read_config, &bad, &text), 78);
    CHECK_HAS(text, with_lines("d.cfg:@1: Expected "));
    CHECK_HAS(text, "but got 'bogus'");
}

static void opening(void)
{
    char *path = test_file("file.cfg", "contents of the file"), *buffer = NULL;
    int length = 0;
    CHECK_INT(cfg_open_and_read(path, &buffer, &length), 0);
    CHECK_INT(length, 20);
    CHECK(buffer && !strncmp(buffer, "contents of the file", 20));
    CHECK_INT(cfg_close(path, buffer, length), 0);
    errno = 0;
    CHECK(cfg_open_and_read(T("/no/such/file"), &buffer, &length) != 0);
    CHECK_INT(errno, ENOENT);
    CHECK(cfg_open_and_read(T("/"), &buffer, &length) != 0);
    CHECK_INT(errno, ENOENT);
    /* A URL. */
    char url[4096];
    snprintf(url, sizeof url, "file://%s", path);
    buffer = NULL;
    length = 0;
    if (!cfg_open_and_read(url, &buffer, &length)) {
        CHECK_INT(length, 20);
        CHECK(!strncmp(buffer, "contents", 8));
        CHECK_INT(cfg_close(url, buffer, length), 0);
    }
}

static void shared_memory(void)
{
    char *buffer = NULL;
    int length = 0;
    common_data.ipc_key = 0x4d000000 + (int)getpid();
    CHECK_INT(ipc_create(T("id = mine { shared }"), 20), 0);
    CHECK(common_data.ipc_url && !strncmp(common_data.ipc_url, "ipc://", 6));
    if (common_data.ipc_url) {
        CHECK_INT(cfg_open_and_read(common_data.ipc_url, &buffer, &length), 0);
        CHECK_INT(length, 20);
        CHECK(buffer && !strncmp(buffer, "id = mine { shared }", 20));
        struct shmid_ds ds;
        int id = shmget((key_t)strtol(common_data.ipc_url + 6, NULL, 0), 0, 0);
        if (id >= 0 && !shmctl(id, IPC_STAT, &ds))
            CHECK_INT(ds.shm_perm.mode & 0777, 0600);
        CHECK_INT(cfg_close(common_data.ipc_url, buffer, length), 0);
        seen[0] = 0;
        cfg_read_config(common_data.ipc_url, section, T("mine"));
        CHECK_TEXT(seen, "shared ");
        CHECK_INT(ipc_create(T("id = mine { more shared }"), 25), 0);
        seen[0] = 0;
        cfg_read_config(common_data.ipc_url, section, T("mine"));
        CHECK_TEXT(seen, "more shared ");
        ipc_delete();
        CHECK(!common_data.ipc_url || cfg_open_and_read(common_data.ipc_url, &buffer, &length));
    }
    common_data.ipc_key = 0;
}

static void defaults(void *arg)
{
    (void)arg;
    memset(&common_data, 0, sizeof common_data);
    common_data.users_max = 99;
    init_common_data();
    CHECK_INT(common_data.syslog_facility, LOG_UUCP);
    CHECK_INT(common_data.syslog_level, LOG_INFO);
    CHECK_INT(common_data.syslog_dflt, 1);
    CHECK_INT(common_data.syslog_filter, 0xffff);
    CHECK_INT(common_data.debugtty, isatty(2));
    CHECK_TEXT(common_data.font_black, isatty(2) ? common_data.font_black : "");
    CHECK(common_data.font_red && common_data.font_plain && common_data.font_bold && common_data.font_white);
    CHECK_INT(common_data.pid, getpid());
    CHECK(common_data.scm_send_msg == scm_send_msg && common_data.scm_recv_msg == scm_recv_msg);
    CHECK_INT(common_data.regex_pcre_flags, 0x00080008);
    CHECK_INT(common_data.regex_posix_flags, 2);
    CHECK_INT(common_data.cleanup_interval, 2);
    CHECK_INT(common_data.users_max, 99);
    const char *gcore = !access("/usr/bin/gcore", X_OK) ? "/usr/bin/gcore" : !access("/usr/local/bin/gcore", X_OK) ? "/usr/local/bin/gcore" : NULL;
    CHECK_TEXT(common_data.gcorepath, gcore);
}

static void usage(void *arg)
{
    (void)arg;
    common_data.progname = T("prog");
    common_usage();
}

static void detach(void *arg)
{
    struct stat out, null;
    (void)arg;
    dup2(2, 0);
    fcntl(0, F_SETFD, 0);
    mavis_detach();
    CHECK_INT(getsid(0), getpid());
    CHECK(!fstat(1, &out) && !stat("/dev/null", &null) && out.st_rdev == null.st_rdev);
    CHECK(fcntl(0, F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(1, F_GETFD) & FD_CLOEXEC);
    /* stdout goes nowhere from here on. */
    if (check_failures)
        dprintf(2, "%d checks after mavis_detach failed\n", check_failures);
}

static char *title(void)
{
    int fd = open("/proc/self/cmdline", O_RDONLY);
    char *text = read_all(fd);
    close(fd);
    return text;
}

static void titles(char **argv, char **envp)
{
    setenv("MAVIS_TEST_LATE", "value", 1);
    setproctitle_init(argv, envp);
    CHECK_TEXT(getenv("MAVIS_TEST_LATE"), "value");
    CHECK(getenv("TEST_DIR") != NULL);
    common_data.proctitle = NULL;
    common_data.singleprocess = 0;
    common_data.progname = T("prog");
    setproctitle("text %d", 5);
    CHECK_HAS(title(), ": text 5");
    if (!original) /* the original moves the strings of main's environment, and no others */
        CHECK(getenv("TEST_DIR") != NULL);
    common_data.users_cur = 1;
    common_data.users_max = common_data.users_max_total = 10;
    set_proctitle(ACCEPT_YES);
    CHECK_HAS(title(), ": 1 connection");
    CHECK(!strstr(title(), "connections"));
    common_data.users_cur = 3;
    set_proctitle(ACCEPT_YES);
    CHECK_HAS(title(), ": 3 connections");
    set_proctitle(ACCEPT);
    CHECK_HAS(title(), "3 connections, accepting up to 7 more");
    set_proctitle(ACCEPT_NEVER);
    CHECK_HAS(title(), "3 connections left, dying when idle");
    set_proctitle(ACCEPT_NO);
    CHECK_HAS(title(), "3 connections");
    /* Longer than the room there is. */
    static char longer[100001];
    memset(longer, 'a', 100000);
    setproctitle("%s", longer);
    CHECK_HAS(title(), ": aaaaaaaa");
}

static char *worker_argv[] = { T("/path/prog"), T("-v"), NULL };

static void worker(void *arg)
{
    int pair[2], argc = 0;
    char **argv = (char **)arg;
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
        _exit(2);
    dup2(pair[0], 0);
    dup2(2, 1);
    optind = 1;
    while (argv[argc])
        argc++;
    scm_main(argc, argv, environ);
    dprintf(2, "conffile=%s confdir=%s id=%s progname=%s parse_only=%d debug=%d\n", common_data.conffile, common_data.confdir,
            common_data.id ? common_data.id : "NULL", common_data.progname, common_data.parse_only, common_data.debug);
}

static void workers(void)
{
    char *text, *with_id[] = { T("/path/prog"), T("-P"), T("-d"), T("32"), T("/etc/some.cfg"), T("name"), NULL },
               *plain[] = { T("prog"), T("some.cfg"), NULL };
    CHECK_INT(in_child(worker, worker_argv, &text), 0);
    CHECK_HAS(text, "prog version ");
    CHECK_INT(in_child(worker, with_id, &text), RETURNED);
    CHECK_HAS(text, "conffile=/etc/some.cfg confdir=/etc");
    CHECK_HAS(text, " id=name progname=prog parse_only=1 debug=32");
    CHECK_INT(in_child(worker, plain, &text), RETURNED);
    CHECK_HAS(text, "conffile=some.cfg confdir=./ id=NULL progname=prog parse_only=0 debug=0");
}

int main(int argc, char **argv, char **envp)
{
    char *text;
    (void)argc;
    init_common_data();
    configurations();
    opening();
    shared_memory();
    CHECK_INT(in_child(defaults, NULL, NULL), RETURNED);
    CHECK_INT(in_child(usage, NULL, &text), 64);
    CHECK_HAS(text, "prog");
    CHECK_INT(in_child(detach, NULL, &text), RETURNED);
    CHECK_TEXT(text, "");
    workers();
    titles(argv, envp);
    return check_result();
}

/* What happens on a crash. */
#include "check.h"
#include <mavis/internal.h>
#include <misc/sig_segv.h>
#include <sys/resource.h>

static void crash(void *arg)
{
    struct rlimit none = { 0, 0 };
    setrlimit(RLIMIT_CORE, &none);
    setup_sig_segv(NULL, NULL, (char *)arg);
    raise(SIGSEGV);
}

static void bus_error(void *arg)
{
    struct rlimit none = { 0, 0 };
    (void)arg;
    setrlimit(RLIMIT_CORE, &none);
    setup_sig_segv(NULL, NULL, NULL);
    raise(SIGBUS);
}

static void directly(void *arg)
{
    siginfo_t info;
    struct rlimit none = { 0, 0 };
    (void)arg;
    setrlimit(RLIMIT_CORE, &none);
    memset(&info, 0, sizeof info);
    setup_sig_segv(NULL, NULL, NULL);
    catchsegv(SIGSEGV, &info, NULL);
}

static void installed(void *arg)
{
    struct sigaction action;
    (void)arg;
    setup_sig_segv(NULL, NULL, NULL);
    sigaction(SIGSEGV, NULL, &action);
    CHECK(action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
    sigaction(SIGBUS, NULL, &action);
    CHECK(action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
}

/* Requires that it ends with status 69 or by SIGABRT, with a message. */
static void check_end(int line, void (*fn)(void *), char *command)
{
    char *text;
    int status = in_child(fn, command, &text);
    if (status != 69 && status != 256 + SIGABRT) {
        check_failures++;
        printf("%s:%d: expected status 69 or SIGABRT, got %d\n", __FILE__, line, status);
    }
    check_has(__FILE__, line, "log", text, "[syslog ");
    free(text);
}

int main(void)
{
    init_common_data();
    CHECK(!coredump_handler);
    check_end(__LINE__, crash, NULL);
    check_end(__LINE__, bus_error, NULL);
    check_end(__LINE__, directly, NULL);
    CHECK_INT(in_child(installed, NULL, NULL), RETURNED);
    char command[4096], *mark = test_path("ran");
    snprintf(command, sizeof command, "echo yes > %s; true", mark);
    check_end(__LINE__, crash, command);
    CHECK_INT(access(mark, F_OK), 0);
    return check_result();
}

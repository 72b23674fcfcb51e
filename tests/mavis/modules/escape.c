/* A module that tries, on its first query, what a worker must not do, and logs the result: `tried WHAT: ERRNO`, with
 * 0 for what worked. What would do harm is tried with arguments that the system refuses with another errno. Admits
 * everybody. */
#define MAVIS_NAME "escape"
#define MAVIS_CTX_PRIVATE int has_tried;

#define HAVE_mavis_parse_in
#define HAVE_mavis_send_in
#include <mavis/module.h>

#include <errno.h>
#include <fcntl.h>
#include <mavis/log.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int mavis_parse_in(mavis_ctx *mcx, struct sym *sym)
{
    while (sym->code != S_closebra && sym->code != S_eof)
        if (!mavis_parse_directive(mcx, sym))
            parse_error_expect(sym, S_script, S_action, S_closebra, S_unknown);
    return MAVIS_CONF_OK;
}

static void tried(const char *what, long result)
{
    logmsg("tried %s: %d", what, result < 0 ? errno : 0);
}

static void tried_to_open(const char *what, int fd)
{
    tried(what, fd);
    if (fd >= 0)
        close(fd);
}

static void try_all(void)
{
    char *none[] = {NULL};
    const char *nowhere = "/nowhere/at/all";
    struct {
        unsigned long flags, mode, resolve;
    } how = {O_WRONLY, 0, 0};

    tried("execve", execve(nowhere, none, none));
    tried("execveat", syscall(SYS_execveat, AT_FDCWD, nowhere, none, none, 0));
    pid_t child = fork();
    if (!child)
        _exit(0);
    tried("fork", child);

    tried_to_open("to read", open("/etc/passwd", O_RDONLY));
    tried_to_open("to write", open("/dev/null", O_WRONLY));
    tried_to_open("to read and write", open("/dev/null", O_RDWR));
    tried_to_open("to create", open(nowhere, O_RDONLY | O_CREAT, 0600));
    tried_to_open("to truncate", open("/dev/null", O_RDONLY | O_TRUNC));
    tried_to_open("openat2", syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, sizeof how));
#ifdef SYS_open
    tried_to_open("open", syscall(SYS_open, "/dev/null", O_WRONLY));
#endif
    tried("unlink", unlink(nowhere));
    tried("rename", rename(nowhere, nowhere));
    tried("truncate", truncate(nowhere, 0));

    tried("ptrace", ptrace(PTRACE_ATTACH, -1, NULL, NULL));
    tried("process_vm_readv", process_vm_readv(getppid(), NULL, 0, NULL, 0, 0));
    tried("kill broker", kill(getppid(), 0));
    tried("to signal broker", fcntl(0, F_SETOWN, getppid()));
    tried("kill self", kill(getpid(), 0));

    int server = socket(AF_INET, SOCK_STREAM, 0);
    tried("socket", server);
    tried("listen", listen(server, 1));
    close(server);
    tried_to_open("packets", socket(AF_PACKET, SOCK_STREAM, 0));
    tried_to_open("raw packets", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    tried_to_open("ping", socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
    char memory[32];
    snprintf(memory, sizeof memory, "/proc/%d/mem", (int)getppid());
    tried_to_open("memory of broker", open(memory, O_RDONLY));
    tried("to type", ioctl(0, TIOCSTI, "x"));
    tried("io_uring", syscall(SYS_io_uring_setup, 1, NULL));
    tried("beyond", syscall(10000));
}

static int mavis_send_in(mavis_ctx *mcx, av_ctx **ac)
{
    if (!mcx->has_tried++)
        try_all();
    av_set(*ac, AV_A_RESULT, AV_V_RESULT_OK);
    return MAVIS_FINAL;
}

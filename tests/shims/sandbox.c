/*
 * The calls by which a process gives up rights on FreeBSD, OpenBSD and
 * illumos, emulated on Linux, for tests only. Calls that these systems
 * would refuse end the process with a message, so that a test notices them,
 * even where the real call would only fail (pledge's "error").
 *
 * FreeBSD: cap_rights_init(3), cap_rights_limit(2), procctl(2).
 *  - A right is a word: bits 0 to 56 are rights, one of bits 57 to 61 is the
 *    index of the element they are in, and bits 62 and 63 are the version in
 *    element 0 and zero in any other word.
 *  - The C library takes rights one by one, up to a zero.  It asserts that the
 *    version is 0 and that exactly one index bit is set, which is 0 or 1, in
 *    the word and in the element it is added to: else abort(3).
 *  - cap_rights_limit(2) fails with EINVAL for what is not valid, EBADF, and
 *    ENOTCAPABLE (93) for more rights than there were.
 *  - procctl(2): PROC_NO_NEW_PRIVS_CTL (19) takes an int that is 1; id 0 is the
 *    caller with P_PID (0).
 *
 * OpenBSD: pledge(2), unveil(2).
 *  - An unknown promise is EINVAL; more than before is EPERM.
 *  - unveil(2) knows "rwxc".  After pledge(2) without "unveil" it is EPERM.
 *  - socket(2), connect(2), bind(2), getsockname(2): inet, unix or dns; AF_UNIX
 *    needs unix.  listen(2), accept(2), getpeername(2): inet or unix.
 *  - To open needs rpath for reading, wpath for writing, and cpath for O_CREAT
 *    and changing directories.  chmod(2) needs fattr, chown(2) chown.
 *  - fork(2), setsid(2), setrlimit(2) and signals to others need proc, exec(2)
 *    exec, setuid(2) and its kin id.
 *  - SCM_RIGHTS needs sendfd and recvfd.  SO_RTABLE, which is SO_BINDTODEVICE
 *    on Linux, needs wroute.
 *
 * illumos: priv_set(3C), privileges(7).
 *  - Operations PRIV_ON, PRIV_OFF, PRIV_SET are 0 to 2; a set that is NULL is
 *    all of them; names up to a NULL, an unknown one is EINVAL.
 *  - proc_fork, proc_exec; file_write: opening for writing, and connect(2) to a
 *    UNIX-domain socket (which is not checked here).
 *
 * How it works: seccomp(2), with a SIGSYS handler that prints the message.
 */
#include "shims.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* ---- what ends the process ---------------------------------------------- */

static const char *refusing; /* which system */

static void
refused(const char *what, long number)
{
	char text[128];
	int length = snprintf(text, sizeof(text),
	    "shim: %s refuses %s (%ld)\n", refusing, what, number);

	if (write(2, text, (size_t)length) < 0)
		_exit(135);
	_exit(134);
}

static void
on_sigsys(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	refused("system call", info->si_syscall);
}

#define MOST_INSTRUCTIONS 512
static struct sock_filter code[MOST_INSTRUCTIONS];
static unsigned short length;

static void
emit(unsigned op, unsigned k, unsigned char yes, unsigned char no)
{
	if (length == MOST_INSTRUCTIONS)
		abort();
	code[length++] =
	    (struct sock_filter){ (unsigned short)op, yes, no, k };
}

#define LOAD(offset) emit(BPF_LD | BPF_W | BPF_ABS, (unsigned)(offset), 0, 0)
#define ARGUMENT(n) LOAD(offsetof(struct seccomp_data, args) + 8 * (n))
#define NUMBER() LOAD(offsetof(struct seccomp_data, nr))
#define TRAP() emit(BPF_RET | BPF_K, SECCOMP_RET_TRAP, 0, 0)

/* Refuses a system call, unless `granted`. */
static void
refuse(bool granted, long number)
{
	if (granted)
		return;
	emit(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1);
	TRAP();
}

/* Refuses a call whose argument has any of these bits (JSET) or is equal
 * (JEQ). */
static void
refuse_if(bool granted, long number, int argument, unsigned test,
    unsigned value)
{
	if (granted)
		return;
	emit(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 4);
	ARGUMENT(argument);
	emit(BPF_JMP | test | BPF_K, value, 0, 1);
	TRAP();
	NUMBER();
}

/* As refuse_if, for values that differ. */
static void
refuse_unless(bool granted, long number, int argument, unsigned value)
{
	if (granted)
		return;
	emit(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 4);
	ARGUMENT(argument);
	emit(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0);
	TRAP();
	NUMBER();
}

static void
begin(const char *system)
{
	refusing = system;
	length = 0;
	NUMBER();
}

static int
install(void)
{
	struct sock_fprog program = { length, code };
	struct sigaction action = { .sa_sigaction = on_sigsys,
		.sa_flags = SA_SIGINFO };

	emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	program.len = length;
	if (sigaction(SIGSYS, &action, NULL) == -1 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1 ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
	    SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
		return -1;
	return 0;
}

/* Refuses these system calls when they open for writing. */
static void
refuse_writing(bool writing, bool creating)
{
	refuse_if(writing, SYS_openat, 2, BPF_JSET, O_WRONLY | O_RDWR | O_TRUNC);
	refuse_if(creating, SYS_openat, 2, BPF_JSET, O_CREAT);
#ifdef SYS_open
	refuse_if(writing, SYS_open, 1, BPF_JSET, O_WRONLY | O_RDWR | O_TRUNC);
	refuse_if(creating, SYS_open, 1, BPF_JSET, O_CREAT);
#endif
}

static void
refuse_processes(bool fork, bool exec)
{
	if (!fork) { /* threads may start, and the C library knows clone(2) */
		emit(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
		emit(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS, 0, 0);
		emit(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4);
		ARGUMENT(0);
		emit(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0);
		TRAP();
		NUMBER();
	}
#ifdef SYS_fork
	refuse(fork, SYS_fork);
	refuse(fork, SYS_vfork);
#endif
	refuse(exec, SYS_execve);
	refuse(exec, SYS_execveat);
}

/* ---- FreeBSD ------------------------------------------------------------- */

/* The index of the only bit set; -1 for none or several. */
static int
index_of(uint64_t word)
{
	switch (word >> 57 & 0x1f) {
	case 1: return 0;
	case 2: return 1;
	case 4: return 2;
	case 8: return 3;
	case 16: return 4;
	}
	return -1;
}

static void
must(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "Assertion failed: (%s), function cap_rights_vset\n",
	    what);
	abort();
}

static void
set(struct cap_rights *rights, va_list list)
{
	uint64_t right;

	must(rights->element[0] >> 62 == 0, "CAPVER(rights) == 0");
	while ((right = va_arg(list, unsigned long long)) != 0) {
		int i = index_of(right);

		must(right >> 62 == 0, "CAPRVER(right) == 0");
		must(i >= 0, "i >= 0");
		must(i < 2, "i < n");
		must(index_of(rights->element[i]) == i, "CAPIDXBIT");
		rights->element[i] |= right;
	}
}

struct cap_rights *
shim_cap_rights_init(int version, struct cap_rights *rights, ...)
{
	va_list list;

	must(version == 0, "version == CAP_RIGHTS_VERSION_00");
	rights->element[0] = UINT64_C(1) << 57;
	rights->element[1] = UINT64_C(1) << 58;
	va_start(list, rights);
	set(rights, list);
	va_end(list);
	return rights;
}

struct cap_rights *
shim_cap_rights_set(struct cap_rights *rights, ...)
{
	va_list list;

	va_start(list, rights);
	set(rights, list);
	va_end(list);
	return rights;
}

int
shim_cap_rights_limit(int fd, const struct cap_rights *rights)
{
	static struct cap_rights limits[3];
	static bool limited[3];

	if (rights->element[0] >> 62 != 0 || index_of(rights->element[0]) != 0 ||
	    rights->element[1] >> 62 != 0 || index_of(rights->element[1]) != 1) {
		errno = EINVAL;
		return -1;
	}
	if (fcntl(fd, F_GETFD) == -1)
		return -1;
	if (fd > 2)
		return 0;
	if (limited[fd] && ((rights->element[0] & ~limits[fd].element[0]) != 0 ||
	    (rights->element[1] & ~limits[fd].element[1]) != 0)) {
		errno = 93;
		return -1;
	}
	limited[fd] = true;
	limits[fd] = *rights;
	return 0;
}

int
shim_procctl(int type, int64_t id, int command, void *data)
{
	if (type != 0 || (id != 0 && id != getpid()) || command != 19 ||
	    data == NULL || *(int *)data != 1) {
		errno = EINVAL;
		return -1;
	}
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* ---- OpenBSD ------------------------------------------------------------- */

/* The promises of OpenBSD 7.6. */
static const char *const promises[] = { "audio", "bpf", "chown", "cpath",
	"disklabel", "dns", "dpath", "drm", "error", "exec", "fattr", "flock",
	"getpw", "id", "inet", "mcast", "pf", "proc", "prot_exec", "ps", "recvfd",
	"route", "rpath", "sendfd", "settime", "stdio", "tape", "tmppath", "tty",
	"unix", "unveil", "video", "vminfo", "vmm", "wpath", "wroute" };
#define PROMISES (sizeof(promises) / sizeof(promises[0]))
static uint64_t promised; /* by their places there */
static bool pledged, has_veil;

static int
place_of(const char *word, size_t size)
{
	for (size_t i = 0; i < PROMISES; i++)
		if (strlen(promises[i]) == size &&
		    memcmp(promises[i], word, size) == 0)
			return (int)i;
	return -1;
}

static bool
may(const char *promise)
{
	return promised >> place_of(promise, strlen(promise)) & 1;
}

int
shim_unveil(const char *path, const char *permissions)
{
	char *folder, *end;
	bool there;

	if (pledged && !may("unveil")) {
		errno = EPERM;
		return -1;
	}
	if (path == NULL || permissions == NULL ||
	    strspn(permissions, "rwxc") != strlen(permissions)) {
		errno = EINVAL;
		return -1;
	}
	folder = strdup(path);
	end = strrchr(folder, '/');
	if (end != NULL)
		end[end == folder] = '\0';
	there = end == NULL || access(folder, F_OK) == 0;
	free(folder);
	if (!there) {
		errno = ENOENT;
		return -1;
	}
	has_veil = true;
	return 0;
}

int
shim_pledge(const char *wanted, const char *of_programs)
{
	static const long ids[] = { SYS_setuid, SYS_setgid, SYS_setgroups,
		SYS_setresuid, SYS_setresgid, SYS_setreuid, SYS_setregid };
	static const long changing[] = { SYS_renameat2, SYS_unlinkat,
		SYS_mkdirat, SYS_linkat, SYS_symlinkat };
	uint64_t all = 0;
	bool net;
	size_t i;

	if (of_programs != NULL) {
		errno = EINVAL;
		return -1;
	}
	for (const char *p = wanted; *p != '\0';) {
		size_t size = strcspn(p, " ");
		int place = place_of(p, size);

		if (place == -1) {
			errno = EINVAL;
			return -1;
		}
		all |= UINT64_C(1) << place;
		p += size;
		p += strspn(p, " ");
	}
	if (pledged && (all & ~promised) != 0) {
		errno = EPERM;
		return -1;
	}
	pledged = true;
	promised = all;
	begin("pledge");
	if (!may("stdio"))
		refused("to live without stdio", 0);
	net = may("inet") || may("unix") || may("dns");
	refuse(net, SYS_socket);
	refuse(net, SYS_connect);
	refuse(net, SYS_bind);
	refuse(net, SYS_getsockname);
	refuse_if(may("unix"), SYS_socket, 0, BPF_JEQ, AF_UNIX);
	refuse_if(may("inet") || may("dns"), SYS_socket, 0, BPF_JEQ, AF_INET);
	refuse_if(may("inet") || may("dns"), SYS_socket, 0, BPF_JEQ, AF_INET6);
	net = may("inet") || may("unix");
	refuse(net, SYS_listen);
	refuse(net, SYS_accept4);
#ifdef SYS_accept
	refuse(net, SYS_accept);
#endif
	refuse(net, SYS_getpeername);
	refuse_if(may("wroute"), SYS_setsockopt, 2, BPF_JEQ, SO_BINDTODEVICE);
	refuse(may("rpath") || may("wpath"), SYS_openat);
	refuse_writing(may("wpath"), may("cpath"));
	for (i = 0; i < sizeof(changing) / sizeof(changing[0]); i++)
		refuse(may("cpath"), changing[i]);
	refuse(may("wpath"), SYS_truncate);
	refuse(may("fattr"), SYS_fchmodat);
	refuse(may("fattr"), SYS_fchmod);
	refuse(may("chown"), SYS_fchownat);
	refuse(may("chown"), SYS_fchown);
	refuse_processes(may("proc"), may("exec"));
	refuse(may("proc"), SYS_setpgid);
	refuse(may("proc"), SYS_setsid);
	refuse_unless(may("proc"), SYS_kill, 0, (unsigned)getpid());
	refuse(may("proc") || may("id"), SYS_setpriority);
	refuse(may("proc") || may("id"), SYS_setrlimit);
	for (i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		refuse(may("id"), ids[i]);
	return install();
}

/* For the channel: called before descriptors are sent or could be received. */
void
shim_pledge_rights(bool sending)
{
	if (!pledged || may(sending ? "sendfd" : "recvfd"))
		return;
	refused(sending ? "to send descriptors" : "to receive descriptors", 0);
}

/* ---- illumos ------------------------------------------------------------- */

/* The privileges that every process has, and some that only root has. */
static const char *const privileges[] = { "file_link_any", "file_read",
	"file_write", "net_access", "proc_exec", "proc_fork", "proc_info",
	"proc_secflags", "proc_session", "file_chown", "file_dac_read",
	"net_privaddr", "proc_setid", "sys_resource" };

int
shim_priv_set(int operation, const char *set_name, ...)
{
	static bool lost[sizeof(privileges) / sizeof(privileges[0])];
	const size_t count = sizeof(privileges) / sizeof(privileges[0]);
	const char *name;
	va_list list;

	if (operation != 1 || set_name != NULL) { /* all that is needed here */
		errno = EINVAL;
		return -1;
	}
	va_start(list, set_name);
	while ((name = va_arg(list, const char *)) != NULL) {
		size_t i = 0;

		while (i < count && strcmp(privileges[i], name) != 0)
			i++;
		if (i == count) {
			va_end(list);
			errno = EINVAL;
			return -1;
		}
		lost[i] = true;
	}
	va_end(list);
	begin("priv_set");
	refuse_processes(!lost[5], !lost[4]);
	refuse_writing(!lost[2], !lost[2]);
	return install();
}

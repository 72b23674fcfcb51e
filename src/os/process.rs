//! Processes: starting, replacing, reaping, identity and limits.

use super::secret::Secret;
use super::{check, descriptor, entry, signals};
use nix::unistd::{self, ForkResult, Gid, Uid};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Exit statuses of sysexits.h, as the C program uses them.
pub mod exit {
    /// Wrong command line.
    pub const USAGE: i32 = 64;
    /// The configuration source cannot be opened.
    pub const NO_INPUT: i32 = 66;
    /// A worker's TLS set-up failed, or the program crashed.
    pub const UNAVAILABLE: i32 = 69;
    /// An internal inconsistency.
    pub const SOFTWARE: i32 = 70;
    /// A system call that must work did not.
    pub const OS_ERROR: i32 = 71;
    /// Nothing could be bound, or workers do not start.
    pub const TEMPORARY: i32 = 75;
    /// The identity asked for could not be taken.
    pub const NO_PERMISSION: i32 = 77;
    /// The configuration is wrong.
    pub const CONFIGURATION: i32 = 78;
}

/// A process id.
pub type Pid = i32;

/// This process.
pub fn id() -> Pid {
    unistd::getpid().as_raw()
}

/// True if a process with this id exists, including one that has ended but was not waited for.
pub fn exists(pid: Pid) -> bool {
    // SAFETY: kill(2) with signal 0 only looks.
    unsafe { libc::kill(pid, 0) == 0 }
}

/// Makes sure that descriptors 0 to 2 are open, so that no socket takes their numbers, and marks
/// all others close-on-exec: with close_range(2) on Linux and FreeBSD, one by one elsewhere. Not
/// with closefrom(3): descriptors handed over to this process stay in use.
pub fn sanitize_descriptors() {
    for fd in 0..=2 {
        // SAFETY: fcntl(F_GETFD) and open(2) of a constant path take no memory of ours.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                // The lowest free number is `fd`, as those below it are open.
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
    // Called by number, because not every C library on Linux has the function.
    #[cfg(target_os = "linux")]
    let marked = {
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        // SAFETY: close_range(2) with this flag only marks descriptors.
        unsafe {
            libc::syscall(libc::SYS_close_range, 3u32, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) == 0
        }
    };
    // FreeBSD versions that do not know the flag return EINVAL.
    #[cfg(target_os = "freebsd")]
    let marked = {
        let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
        // SAFETY: close_range(2) with this flag only marks descriptors.
        unsafe { libc::close_range(3, libc::c_uint::MAX, flags) == 0 }
    };
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    let marked = false;
    if marked {
        return;
    }
    for fd in open_descriptors().into_iter().filter(|&fd| fd > 2) {
        let _ = descriptor::close_on_exec(&fd);
    }
}

/// Descriptor numbers that include all open ones: the entries of /dev/fd, or every number that may
/// be open.
fn open_descriptors() -> Vec<RawFd> {
    // Without fdescfs, /dev/fd on the BSDs holds a fixed set of nodes (3 or 64), whatever is open.
    let listed = !cfg!(any(
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly"
    ));
    match std::fs::read_dir("/dev/fd") {
        Ok(entries) if listed => {
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        }
        // The limit may be so high that trying every number would take seconds.
        _ => (3..descriptor_limit().clamp(1024, 65_536) as RawFd).collect(),
    }
}

/// Raises the soft limit of open descriptors to the hard limit, or to `cap` if that is lower, and
/// returns the limit in effect. The hard limit stays: the next image may use another mechanism.
pub fn raise_descriptor_limit(cap: Option<u64>) -> u64 {
    // Not through nix, which has no limits for Solaris and illumos.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes into `limit`, which outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } < 0 {
        return 1024;
    }
    let (soft, hard) = (limit.rlim_cur, limit.rlim_max);
    // macOS reports an infinite hard limit but refuses an infinite soft one; it always accepts
    // OPEN_MAX of sys/syslimits.h (setrlimit(2), section COMPATIBILITY).
    let most = if cfg!(target_vendor = "apple") && hard == libc::RLIM_INFINITY {
        soft.max(10240)
    } else {
        hard
    };
    let cap = cap.map_or(libc::RLIM_INFINITY, |cap| cap as libc::rlim_t);
    let wanted = libc::rlimit { rlim_cur: most.min(cap), rlim_max: hard };
    // SAFETY: setrlimit(2) reads `wanted`, which outlives the call.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) };
    // rlim_t is signed on FreeBSD, but a limit is never negative.
    let in_effect = if result == 0 { wanted.rlim_cur } else { soft };
    in_effect as u64
}

/// The soft limit of open descriptors.
pub fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes into `limit`, which outlives the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
        0 => limit.rlim_cur as u64,
        _ => 1024,
    }
}

/// Sets errno, for C code that looks at it.
pub fn set_errno(number: i32) {
    #[cfg(any(target_os = "solaris", target_os = "illumos"))]
    use libc::___errno as location;
    #[cfg(any(target_os = "netbsd", target_os = "openbsd", target_os = "android"))]
    use libc::__errno as location;
    #[cfg(any(target_os = "linux", target_os = "dragonfly"))]
    use libc::__errno_location as location;
    #[cfg(any(target_os = "freebsd", target_vendor = "apple"))]
    use libc::__error as location;
    // SAFETY: the function returns the address of this thread's errno.
    unsafe { *location() = number };
}

/// umask(2).
pub fn set_umask(mask: u32) {
    // SAFETY: umask(2) takes a plain number and cannot fail.
    unsafe { libc::umask(mask as libc::mode_t) };
}

/// Keeps everybody but root from looking into this process's memory, including processes of the
/// same user: its broker, other workers, other programs. Does nothing on systems that offer no way
/// to forbid it, such as NetBSD.
pub fn forbid_inspection() {
    inspection(false);
}

/// Undoes [`forbid_inspection`], so that a core file can be written.
pub fn permit_inspection() {
    inspection(true);
}

fn inspection(permitted: bool) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: prctl(PR_SET_DUMPABLE) takes plain numbers.
    unsafe {
        let none: libc::c_ulong = 0;
        libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(permitted), none, none, none);
    }
    #[cfg(target_os = "freebsd")]
    {
        let mut wanted = match permitted {
            true => libc::PROC_TRACE_CTL_ENABLE,
            false => libc::PROC_TRACE_CTL_DISABLE,
        };
        // SAFETY: PROC_TRACE_CTL reads one int, which `wanted` is; 0 is this process.
        unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_TRACE_CTL, (&raw mut wanted).cast()) };
    }
    #[cfg(any(target_os = "solaris", target_os = "illumos"))]
    {
        /// sys/priv.h: makes root the owner of its files in /proc and of its core files.
        const PROTECT: libc::c_uint = 0x10;
        extern "C" {
            fn setpflags(flag: libc::c_uint, value: libc::c_uint) -> libc::c_int;
        }
        // SAFETY: setpflags(2) takes plain numbers.
        unsafe { setpflags(PROTECT, libc::c_uint::from(!permitted)) };
    }
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_os = "solaris",
        target_os = "illumos"
    )))]
    let _ = permitted;
}

/// Runs `work` with another umask. Threads of modules get that umask too while it runs.
pub fn with_umask<R>(mask: u32, work: impl FnOnce() -> R) -> R {
    // SAFETY: umask(2) takes a plain number and cannot fail.
    let former = unsafe { libc::umask(mask as libc::mode_t) };
    let result = work();
    // SAFETY: as above.
    unsafe { libc::umask(former) };
    result
}

/// True if `path` is a file that this process may execute.
pub fn is_executable(path: &Path) -> bool {
    unistd::access(path, unistd::AccessFlags::X_OK).is_ok() && path.is_file()
}

/// The path of the running executable, as found by the first call. If the file is replaced later,
/// the path leads to the new one.
pub fn executable() -> io::Result<PathBuf> {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PATH.get() {
        return Ok(path.clone());
    }
    let path = std::env::current_exe()?;
    // OpenBSD only knows argv[0], which is a bare name if the shell found it in PATH.
    let path = found_in(&path, std::env::var_os("PATH").as_deref()).unwrap_or(path);
    Ok(PATH.get_or_init(|| path).clone())
}

/// Searches `path` for a program that was called by a name without a slash; `None` if the name has
/// one.
fn found_in(name: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.as_os_str().as_bytes().contains(&b'/') {
        return None;
    }
    let mut folders = std::env::split_paths(path?);
    let found = folders.find_map(|folder| {
        // An empty entry means the current directory.
        let file = Path::new(".").join(folder).join(name);
        is_executable(&file).then_some(file)
    })?;
    std::path::absolute(found).ok()
}

/// Starts a new session, so that the terminal's signals reach only the broker.
pub fn new_session() {
    let _ = unistd::setsid();
}

/// The path of a program that was called as `name`: `name` itself if it has a slash, otherwise the
/// path of this executable, if known.
pub fn program_path(name: &[u8]) -> Vec<u8> {
    match executable() {
        Ok(path) if !name.contains(&b'/') => path.into_os_string().into_vec(),
        _ => name.to_vec(),
    }
}

/// The program that writes core files of running processes, if it is in one of the usual places.
pub fn core_dumper() -> Option<&'static str> {
    let tools = ["/usr/bin/gcore", "/usr/local/bin/gcore"];
    tools.into_iter().find(|tool| is_executable(Path::new(tool)))
}

/// Starts a new session, points standard output to /dev/null, and marks descriptors 0 and 1
/// close-on-exec, so that executed programs do not inherit them.
pub fn detach() {
    new_session();
    let _ = redirect_to_null(1);
    for fd in [0, 1] {
        let _ = descriptor::close_on_exec(&fd);
    }
}

/// Connects a standard descriptor to /dev/null.
pub fn redirect_to_null(fd: RawFd) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: dup2(2) takes plain numbers; nothing in this program owns descriptors 0 to 2.
    check(unsafe { libc::dup2(null.as_raw_fd(), fd) }).map(drop)
}

/// Moves standard input to another descriptor and points descriptor 0 to /dev/null, so that nobody
/// can mistake it for the original.
pub fn take_standard_input() -> io::Result<OwnedFd> {
    let moved = io::stdin().as_fd().try_clone_to_owned()?;
    redirect_to_null(0)?;
    Ok(moved)
}

/// Reopens standard error on a file (`debug redirect`), which is truncated, or on a device.
pub fn redirect_stderr(path: &Path) -> io::Result<()> {
    let file = entry::open_log(path)?;
    // SAFETY: dup2(2) takes plain numbers; nothing in this program owns descriptor 2.
    check(unsafe { libc::dup2(file.as_raw_fd(), 2) })?;
    super::log::stderr_changed();
    Ok(())
}

/// True if standard error is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}

/// The user and group that a worker runs as. `None` keeps the broker's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
}

/// A program to execute, with everything resolved before the fork.
#[derive(Clone, Debug)]
pub struct Program {
    /// The path of the file; also argv\[0].
    pub path: PathBuf,
    /// The arguments after argv\[0].
    pub arguments: Vec<OsString>,
    /// Identity to take before the execution.
    pub identity: Identity,
    /// Directory to change to.
    pub directory: Option<PathBuf>,
    /// The environment; `None` for this process's own.
    pub environment: Option<Vec<(OsString, OsString)>>,
    /// Leads its own process group, which [`kill_group`] kills.
    pub group: bool,
}

/// The descriptors that a new process starts with.
#[derive(Debug)]
pub struct Descriptors {
    /// Becomes descriptor 0.
    pub stdin: OwnedFd,
    /// Becomes descriptor 2, if given.
    pub stderr: Option<OwnedFd>,
    /// This descriptor stays open, under its number.
    pub kept: Option<RawFd>,
}

/// The effective user and group of this process.
pub fn identity() -> (u32, u32) {
    (unistd::geteuid().as_raw(), unistd::getegid().as_raw())
}

/// Takes an identity: supplementary groups dropped, then group, then user.
fn take_identity(identity: Identity) -> Result<(), String> {
    if identity.uid.is_some() {
        // Only root can do this, and only root must: for anybody else, changing the user fails
        // anyway.
        // SAFETY: setgroups(2) with a count of zero reads no memory.
        let result = unsafe { libc::setgroups(0, std::ptr::null()) };
        if result < 0 && unistd::geteuid().is_root() {
            return Err(format!(
                "Can't drop groups: {}",
                super::reason(&io::Error::last_os_error())
            ));
        }
    }
    if let Some(gid) = identity.gid {
        if gid != unistd::getgid().as_raw() || gid != unistd::getegid().as_raw() {
            unistd::setgid(Gid::from_raw(gid))
                .map_err(|error| format!("Can't set group id to {gid}: {}", error.desc()))?;
        }
    }
    if let Some(uid) = identity.uid {
        if uid != unistd::getuid().as_raw() || uid != unistd::geteuid().as_raw() {
            unistd::setuid(Uid::from_raw(uid))
                .map_err(|error| format!("Can't set user id to {uid}: {}", error.desc()))?;
        }
    }
    Ok(())
}

/// Forks and executes `program`. If a step fails in the child before the new program runs, the
/// child passes the message to `complain` and exits with a status of sysexits.h.
pub fn spawn(
    program: &Program,
    descriptors: Descriptors,
    complain: impl Fn(&str),
) -> io::Result<Pid> {
    let first = program.path.as_os_str();
    let argv = c_strings(std::iter::once(first).chain(program.arguments.iter().map(|a| &**a)))?;
    let envp = program.environment.as_deref().map(c_environment).transpose()?;
    let directory =
        program.directory.as_ref().map(|path| CString::new(path.as_os_str().as_bytes()));
    let directory = directory.transpose()?;
    let (arguments, variables) = (pointers(&argv), envp.as_deref().map(pointers));
    // The child must not catch a signal with our handlers: nobody would look at what they note.
    let mask = signals::block_for_fork();
    // SAFETY: threads that modules have started are not in the child, and what they had locked
    // stays locked there. The child makes system calls only, with arguments prepared above. If one
    // fails, it puts a message together: the C library makes malloc(3) usable in a child, and the
    // log does not wait for its lock.
    let forked = unsafe { unistd::fork() };
    if !matches!(forked, Ok(ForkResult::Child)) {
        signals::restore(&mask);
    }
    match forked? {
        ForkResult::Parent { child } => Ok(child.as_raw()),
        ForkResult::Child => {
            let status = match prepare(program, &descriptors, directory.as_deref()) {
                Ok(()) => {
                    signals::reset_for_exec();
                    // SAFETY: the path is NUL-terminated; both arrays end with a null pointer, and
                    // point to strings that outlive the call.
                    unsafe {
                        match &variables {
                            Some(list) => {
                                libc::execve(argv[0].as_ptr(), arguments.as_ptr(), list.as_ptr())
                            }
                            None => libc::execv(argv[0].as_ptr(), arguments.as_ptr()),
                        };
                    }
                    let error = super::reason(&io::Error::last_os_error());
                    complain(&format!("execl ({}, ...): {error}", program.path.display()));
                    exit::OS_ERROR
                }
                Err((status, text)) => {
                    complain(&text);
                    status
                }
            };
            super::log::farewell();
            // SAFETY: _exit(2) runs none of the destructors that the child copied from its parent.
            unsafe { libc::_exit(status) }
        }
    }
}

fn prepare(
    program: &Program,
    descriptors: &Descriptors,
    directory: Option<&CStr>,
) -> Result<(), (i32, String)> {
    let os = |error: io::Error| (exit::OS_ERROR, format!("dup2: {}", super::reason(&error)));
    // SAFETY: dup2(2) takes plain numbers. If a descriptor were its own target it would stay
    // close-on-exec, but 0 to 2 are always open here, so `stdin` and `stderr` have higher numbers.
    check(unsafe { libc::dup2(descriptors.stdin.as_raw_fd(), 0) }).map_err(os)?;
    if let Some(stderr) = &descriptors.stderr {
        // SAFETY: as above.
        check(unsafe { libc::dup2(stderr.as_raw_fd(), 2) }).map_err(os)?;
    }
    if let Some(fd) = descriptors.kept {
        descriptor::keep_on_exec(&fd).map_err(os)?;
    }
    if program.group {
        let _ = unistd::setpgid(unistd::Pid::from_raw(0), unistd::Pid::from_raw(0));
    }
    take_identity(program.identity).map_err(|text| (exit::NO_PERMISSION, text))?;
    if let Some(directory) = directory {
        // SAFETY: the path is NUL-terminated.
        check(unsafe { libc::chdir(directory.as_ptr()) }).map_err(|error| {
            let directory = directory.to_string_lossy();
            (exit::OS_ERROR, format!("Can't chdir to {directory}: {}", super::reason(&error)))
        })?;
    }
    Ok(())
}

fn c_strings<'a>(strings: impl Iterator<Item = &'a OsStr>) -> io::Result<Vec<CString>> {
    strings.map(|string| Ok(CString::new(string.as_bytes())?)).collect()
}

/// The addresses of these strings, with a null pointer at the end.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

fn c_environment(environment: &[(OsString, OsString)]) -> io::Result<Vec<CString>> {
    environment
        .iter()
        .map(|(name, value)| Ok(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?))
        .collect()
}

/// Replaces this process with `path`; returns only on failure. Descriptors in `keep` stay open.
pub fn execute(
    path: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
    keep: &[BorrowedFd<'_>],
) -> io::Error {
    let attempt = || -> io::Result<()> {
        let argv = c_strings(arguments.iter().map(|argument| &**argument))?;
        let log = super::log::hand_over();
        let envp = c_environment(&[environment, log.as_slice()].concat())?;
        let path = CString::new(path.as_os_str().as_bytes())?;
        for fd in keep {
            descriptor::keep_on_exec(fd)?;
        }
        // From here on signals stay pending until the next image catches them.
        signals::block_all();
        unistd::execve(&path, &argv, &envp)?;
        Ok(())
    };
    let error = attempt().err().unwrap_or_else(io::Error::last_os_error);
    signals::unblock_all();
    for fd in keep {
        let _ = descriptor::close_on_exec(fd);
    }
    error
}

/// The two sides after [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// In the parent, with the child's id.
    Parent(Pid),
    /// In the child.
    Child,
}

/// fork(2). Threads that modules have started are not in the child.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: what those threads had locked stays locked in the child, which therefore must not
    // wait for a lock that they take. Ours are the one of the log, which is only tried, and those
    // of values that are set once and were set before; the C library makes malloc(3) usable in a
    // child. Modules that go on in the child (`Keepers`, io_child_fork()) did so with the C library
    // too.
    Ok(match unsafe { unistd::fork() }? {
        ForkResult::Parent { child } => Fork::Parent(child.as_raw()),
        ForkResult::Child => Fork::Child,
    })
}

/// The reading end of a pipe that holds `data`, which must fit into a pipe.
pub fn pipe_with(data: &[u8]) -> io::Result<PipeReader> {
    let (read, mut write) = io::pipe()?;
    write.write_all(data)?;
    Ok(read)
}

/// Holds back a child that [`fork_at_gate`] made.
#[derive(Debug)]
pub struct Gate(GateEnd);

#[derive(Debug)]
enum GateEnd {
    Parent(PipeWriter),
    Child(PipeReader),
}

impl Gate {
    /// In the child: waits for the parent's decision. True if the parent executed another image,
    /// false if it continues as it is.
    pub fn passed(self) -> bool {
        match self.0 {
            GateEnd::Child(mut pipe) => matches!(pipe.read(&mut [0]), Ok(0)),
            GateEnd::Parent(_) => false,
        }
    }

    /// In the parent: no image was executed.
    pub fn cancel(self) {
        if let GateEnd::Parent(mut pipe) = self.0 {
            let _ = pipe.write_all(&[0]);
        }
    }
}

/// Like [`fork`], for a child that is needed only if this process executes another image.
pub fn fork_at_gate() -> io::Result<(Fork, Gate)> {
    // A successful execve(2) closes the writing end.
    let (read, write) = io::pipe()?;
    Ok(match fork()? {
        Fork::Child => (Fork::Child, Gate(GateEnd::Child(read))),
        parent => (parent, Gate(GateEnd::Parent(write))),
    })
}

/// Ends the process at once, without running destructors or exit handlers copied from its parent.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) takes a plain number.
    unsafe { libc::_exit(status) }
}

/// Starts a child that writes `data` into a pipe, and returns the reading end. It passes data that
/// is too secret for a file to the next image of this process. The child ends when everything is
/// read, or when nobody can read it any more.
pub fn feed(data: &Secret) -> io::Result<(PipeReader, Pid)> {
    let (read, mut write) = io::pipe()?;
    match fork()? {
        Fork::Child => {
            drop(read);
            let written = write.write_all(data);
            // SAFETY: _exit(2) runs none of the destructors that the child copied from its parent.
            unsafe { libc::_exit(i32::from(written.is_err())) }
        }
        Fork::Parent(pid) => Ok((read, pid)),
    }
}

/// Reads everything that [`feed`] or somebody else has written.
pub fn eat(mut pipe: PipeReader) -> io::Result<Secret> {
    let mut data = Secret::zeroed(64 * 1024)?;
    let mut length = 0;
    loop {
        match pipe.read(&mut data[length..])? {
            0 => break,
            count => length += count,
        }
        if length == data.len() {
            let mut larger = Secret::zeroed(2 * length)?;
            larger[..length].copy_from_slice(&data);
            data = larger;
        }
    }
    Secret::copy(&data[..length])
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// exit(2) with this status.
    Status(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// waitpid(2) until a child has ended. Not nix's version, which loses children killed by a signal
/// that it has no name for.
fn wait(pid: Pid, flags: libc::c_int) -> io::Result<Option<(Pid, Ended)>> {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        match check(unsafe { libc::waitpid(pid, &mut status, flags) }) {
            Ok(0) => return Ok(None),
            Ok(pid) if libc::WIFEXITED(status) => {
                return Ok(Some((pid, Ended::Status(libc::WEXITSTATUS(status)))));
            }
            Ok(pid) if libc::WIFSIGNALED(status) => {
                return Ok(Some((pid, Ended::Signal(libc::WTERMSIG(status)))));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reaps the next child that has ended, without blocking.
pub fn reap() -> Option<(Pid, Ended)> {
    wait(-1, libc::WNOHANG).ok().flatten()
}

/// Like [`reap`], with the raw status of waitpid(2).
pub fn reap_status() -> Option<(Pid, i32)> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Kills a child (SIGKILL).
pub fn kill(pid: Pid) {
    let _ = nix::sys::signal::kill(unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

/// Kills a child that leads a process group, and the rest of the group (SIGKILL).
pub fn kill_group(pid: Pid) {
    let group = unistd::Pid::from_raw(pid);
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
}

/// Waits for one child to end.
pub fn wait_for(pid: Pid) -> io::Result<Ended> {
    match wait(pid, 0)? {
        Some((_, ended)) => Ok(ended),
        None => Err(io::Error::from_raw_os_error(libc::ECHILD)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_start_and_fail_whatever_other_threads_are_doing() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        drop(std::hint::black_box(vec![0u8; 3000]));
                    }
                });
            }
            for (path, status) in [("/bin/true", 0), ("/nowhere", exit::OS_ERROR)].repeat(20) {
                let program = Program {
                    path: path.into(),
                    arguments: Vec::new(),
                    identity: Identity::default(),
                    directory: Some("/".into()),
                    environment: None,
                    group: false,
                };
                let stdin = File::open("/dev/null").unwrap().into();
                let descriptors = Descriptors { stdin, stderr: None, kept: None };
                let pid = spawn(&program, descriptors, |text| drop(text.repeat(100))).unwrap();
                assert_eq!(wait_for(pid).unwrap(), Ended::Status(status), "{path}");
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_program_that_the_shell_has_found_is_found_again() {
        let path = OsStr::new("/nowhere:/dev:/bin");
        let found = |name: &str| found_in(Path::new(name), Some(path));
        assert_eq!(found("sh"), Some("/bin/sh".into()));
        // Not executable, not there, or no search at all.
        for name in ["null", "no-such-program", "/bin/sh", "./sh"] {
            assert_eq!(found(name), None, "{name}");
        }
        assert_eq!(found_in(Path::new("sh"), None), None);
        let relative = found_in(Path::new("build.rs"), Some(OsStr::new("")));
        assert_eq!(relative, None, "a file that cannot be executed");
    }
}

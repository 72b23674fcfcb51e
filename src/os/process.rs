//! Processes: starting, replacing, reaping, identity and limits.

use super::secret::Secret;
use super::{check, entry, signals, socket};
use nix::unistd::{self, ForkResult, Gid, Uid};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
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

/// True if there is a process with this id that is not yet waited for.
pub fn exists(pid: Pid) -> bool {
    // SAFETY: kill(2) with signal 0 only looks.
    unsafe { libc::kill(pid, 0) == 0 }
}

/// Makes sure that descriptors 0 to 2 are open, so that no socket takes their place, and that
/// everything above is closed when another program is executed: with close_range(2) of Linux and
/// FreeBSD, elsewhere one by one. Not with closefrom(3), as what was handed over stays in use here.
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
    // By its number, as not every C library of Linux has the function.
    #[cfg(target_os = "linux")]
    let marked = {
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        // SAFETY: close_range(2) with this flag only marks descriptors.
        unsafe {
            libc::syscall(libc::SYS_close_range, 3u32, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) == 0
        }
    };
    // A FreeBSD that does not know the flag says EINVAL.
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
        // SAFETY: fcntl(F_SETFD) takes plain numbers.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Numbers that the open descriptors of this process are among: those of /dev/fd, or all that there
/// may be.
fn open_descriptors() -> Vec<RawFd> {
    // The BSDs have fixed nodes in /dev/fd (three or 64) as long as fdescfs is not mounted there:
    // what is listed is not what is open.
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
        // A limit may be so high that trying all of them takes seconds.
        _ => (3..descriptor_limit().clamp(1024, 65_536) as RawFd).collect(),
    }
}

/// Sets the soft limit of open descriptors to the hard one, or to `cap` if that is lower, and
/// returns it. The hard limit stays: the next image may use another mechanism.
pub fn raise_descriptor_limit(cap: Option<u64>) -> u64 {
    // Not through nix, which has no limits for Solaris and illumos.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes into `limit`, which outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } < 0 {
        return 1024;
    }
    let (soft, hard) = (limit.rlim_cur, limit.rlim_max);
    // macOS gives an infinite hard limit and takes no infinite soft one: OPEN_MAX of
    // sys/syslimits.h is what it takes always (setrlimit(2), section COMPATIBILITY).
    let most = if cfg!(target_vendor = "apple") && hard == libc::RLIM_INFINITY {
        soft.max(10240)
    } else {
        hard
    };
    let cap = cap.map_or(libc::RLIM_INFINITY, |cap| cap as libc::rlim_t);
    let wanted = libc::rlimit { rlim_cur: most.min(cap), rlim_max: hard };
    // SAFETY: setrlimit(2) reads `wanted`, which outlives the call.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) };
    // rlim_t is signed on FreeBSD, but a limit never negative.
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
    // SAFETY: the function gives the place of this thread's errno.
    unsafe { *location() = number };
}

/// Marks a descriptor to be closed when another program is executed.
pub fn close_on_exec(fd: RawFd) {
    // SAFETY: fcntl(F_SETFD) takes plain numbers.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// umask(2).
pub fn set_umask(mask: u32) {
    // SAFETY: umask(2) takes a plain number and cannot fail.
    unsafe { libc::umask(mask as libc::mode_t) };
}

/// Lets nobody but root look into the memory of this process, whoever its user is: its broker's, other
/// workers' or another program's. Where the system lets that be seen, as NetBSD does, it does nothing.
pub fn forbid_inspection() {
    inspection(false);
}

/// Takes that back, for a core file.
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
        /// sys/priv.h: its files in /proc and its core files are root's.
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

/// Lets `work` make files with another mask. Threads of modules have the same one meanwhile.
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

/// The path of the running executable, as it was when this was asked first: a file that is replaced
/// later is still to be found there.
pub fn executable() -> io::Result<PathBuf> {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PATH.get() {
        return Ok(path.clone());
    }
    let path = std::env::current_exe()?;
    // OpenBSD knows no more than argv[0], which is a bare name if the shell found it in PATH.
    let path = found_in(&path, std::env::var_os("PATH").as_deref()).unwrap_or(path);
    Ok(PATH.get_or_init(|| path).clone())
}

/// Where a program is that was called by a name without a slash; `None` if it has one.
fn found_in(name: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.as_os_str().as_bytes().contains(&b'/') {
        return None;
    }
    let mut folders = std::env::split_paths(path?);
    let found = folders.find_map(|folder| {
        // An empty one is the current folder.
        let file = Path::new(".").join(folder).join(name);
        is_executable(&file).then_some(file)
    })?;
    std::path::absolute(found).ok()
}

/// Starts a new session, so that signals of the terminal go to the broker alone.
pub fn new_session() {
    let _ = unistd::setsid();
}

/// The path of a program that was called by `name`: that, if it is a path, otherwise that of this
/// process's executable, if it is known.
pub fn program_path(name: &[u8]) -> Vec<u8> {
    match executable() {
        Ok(path) if !name.contains(&b'/') => path.into_os_string().into_vec(),
        _ => name.to_vec(),
    }
}

/// The program that writes a core file of a running process, where it usually is.
pub fn core_dumper() -> Option<&'static str> {
    let tools = ["/usr/bin/gcore", "/usr/local/bin/gcore"];
    tools.into_iter().find(|tool| is_executable(Path::new(tool)))
}

/// A session of its own, nowhere to write to, and no standard descriptor that programs could
/// inherit.
pub fn detach() {
    new_session();
    let _ = redirect_to_null(1);
    close_on_exec(0);
    close_on_exec(1);
}

/// Connects a standard descriptor to /dev/null.
pub fn redirect_to_null(fd: RawFd) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: dup2(2) takes plain numbers; 0 to 2 belong to nobody in this program.
    check(unsafe { libc::dup2(null.as_raw_fd(), fd) }).map(drop)
}

/// Moves standard input to a descriptor of its own; its number is /dev/null from then on, so
/// that it can never be taken for what it was.
pub fn take_standard_input() -> io::Result<OwnedFd> {
    let moved = io::stdin().as_fd().try_clone_to_owned()?;
    redirect_to_null(0)?;
    Ok(moved)
}

/// Reopens standard error on a file (`debug redirect`), which is emptied, or on a device.
pub fn redirect_stderr(path: &Path) -> io::Result<()> {
    let file = entry::open_log(path)?;
    // SAFETY: dup2(2) takes plain numbers; 2 belongs to nobody in this program.
    check(unsafe { libc::dup2(file.as_raw_fd(), 2) })?;
    super::log::stderr_changed();
    Ok(())
}

/// True if standard error is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}

/// Whom a worker runs as. `None` leaves what the broker has.
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
    /// The file, which is argv\[0] as well.
    pub path: PathBuf,
    /// The arguments after argv\[0].
    pub arguments: Vec<OsString>,
    /// Identity to take before the execution.
    pub identity: Identity,
    /// Directory to change to.
    pub directory: Option<PathBuf>,
    /// The environment; that of this process if `None`.
    pub environment: Option<Vec<(OsString, OsString)>>,
    /// It leads a process group of its own, which [`kill_group`] ends.
    pub group: bool,
}

/// What descriptor 0 and 2 of a new process are.
#[derive(Debug)]
pub struct Descriptors {
    /// Becomes descriptor 0.
    pub stdin: OwnedFd,
    /// Becomes descriptor 2, if given.
    pub stderr: Option<OwnedFd>,
    /// Stays open under its number.
    pub kept: Option<RawFd>,
}

/// The effective user and group of this process.
pub fn identity() -> (u32, u32) {
    (unistd::geteuid().as_raw(), unistd::getegid().as_raw())
}

/// Takes an identity: supplementary groups dropped, then group, then user.
fn take_identity(identity: Identity) -> Result<(), String> {
    if identity.uid.is_some() {
        // Only root can, and only root needs to: for anyone else the change of the user fails.
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

/// Forks and executes `program`. Whatever fails in the child before the new program runs is
/// reported through `complain` there and ends the child with a status of sysexits.h.
pub fn spawn(
    program: &Program,
    descriptors: Descriptors,
    complain: impl Fn(&str),
) -> io::Result<Pid> {
    let first = program.path.as_os_str();
    let argv = c_strings(std::iter::once(first).chain(program.arguments.iter().map(|a| &**a)))?;
    let envp = program.environment.as_deref().map(c_environment).transpose()?;
    // A signal to the child must not be noted by our handlers there, where nobody would look.
    let mask = signals::block_for_fork();
    // SAFETY: the process has one thread, so the child may run any code.
    let forked = unsafe { unistd::fork() };
    if !matches!(forked, Ok(ForkResult::Child)) {
        signals::restore(&mask);
    }
    match forked? {
        ForkResult::Parent { child } => Ok(child.as_raw()),
        ForkResult::Child => {
            let status = match prepare(program, &descriptors) {
                Ok(()) => {
                    signals::reset_for_exec();
                    let error = match &envp {
                        Some(envp) => unistd::execve(&argv[0], &argv, envp).unwrap_err(),
                        None => unistd::execv(&argv[0], &argv).unwrap_err(),
                    };
                    complain(&format!("execl ({}, ...): {}", program.path.display(), error.desc()));
                    exit::OS_ERROR
                }
                Err((status, text)) => {
                    complain(&text);
                    status
                }
            };
            super::log::farewell();
            // SAFETY: _exit(2) runs no destructors of the parent's copies.
            unsafe { libc::_exit(status) }
        }
    }
}

fn prepare(program: &Program, descriptors: &Descriptors) -> Result<(), (i32, String)> {
    let os = |error: io::Error| (exit::OS_ERROR, format!("dup2: {}", super::reason(&error)));
    // SAFETY: dup2(2) takes plain numbers. A descriptor that is its own target would keep
    // close-on-exec, but 0 to 2 are always open here and so never are.
    check(unsafe { libc::dup2(descriptors.stdin.as_raw_fd(), 0) }).map_err(os)?;
    if let Some(stderr) = &descriptors.stderr {
        // SAFETY: as above.
        check(unsafe { libc::dup2(stderr.as_raw_fd(), 2) }).map_err(os)?;
    }
    if let Some(fd) = descriptors.kept {
        // SAFETY: fcntl(F_SETFD) takes plain numbers.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map_err(os)?;
    }
    if program.group {
        let _ = unistd::setpgid(unistd::Pid::from_raw(0), unistd::Pid::from_raw(0));
    }
    take_identity(program.identity).map_err(|text| (exit::NO_PERMISSION, text))?;
    if let Some(directory) = &program.directory {
        std::env::set_current_dir(directory).map_err(|error| {
            let text = format!("Can't chdir to {}: {}", directory.display(), super::reason(&error));
            (exit::OS_ERROR, text)
        })?;
    }
    Ok(())
}

fn c_strings<'a>(strings: impl Iterator<Item = &'a OsStr>) -> io::Result<Vec<CString>> {
    strings.map(|string| Ok(CString::new(string.as_bytes())?)).collect()
}

fn c_environment(environment: &[(OsString, OsString)]) -> io::Result<Vec<CString>> {
    environment
        .iter()
        .map(|(name, value)| Ok(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?))
        .collect()
}

/// Replaces this process by `path`; returns only on failure. Descriptors in `keep` stay open.
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
            socket::set_close_on_exec(fd, false)?;
        }
        // A signal that arrives from here on waits until the next image catches it.
        signals::block_all();
        unistd::execve(&path, &argv, &envp)?;
        Ok(())
    };
    let error = attempt().err().unwrap_or_else(io::Error::last_os_error);
    signals::unblock_all();
    for fd in keep {
        let _ = socket::set_close_on_exec(fd, true);
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

/// fork(2).
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the process has one thread, so the child may run any code.
    Ok(match unsafe { unistd::fork() }? {
        ForkResult::Parent { child } => Fork::Parent(child.as_raw()),
        ForkResult::Child => Fork::Child,
    })
}

/// A pipe, both ends close-on-exec: (read, write). pipe2(2), or pipe(2) where the standard library
/// does without that as well.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    #[cfg(not(any(target_vendor = "apple", target_os = "solaris")))]
    // SAFETY: `fds` has room for the two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    #[cfg(any(target_vendor = "apple", target_os = "solaris"))]
    // SAFETY: `fds` has room for the two descriptors.
    check(unsafe { libc::pipe(fds.as_mut_ptr()) })?;
    let (read, write) = (socket::own(fds[0]), socket::own(fds[1]));
    #[cfg(any(target_vendor = "apple", target_os = "solaris"))]
    for end in [&read, &write] {
        socket::set_close_on_exec(end, true)?;
    }
    Ok((read, write))
}

/// The reading end of a pipe that holds `data`, which must fit into a pipe.
pub fn pipe_with(data: &[u8]) -> io::Result<OwnedFd> {
    let (read, write) = pipe()?;
    File::from(write).write_all(data)?;
    Ok(read)
}

/// What a child waits at that [`fork_at_gate`] has made.
#[derive(Debug)]
pub struct Gate(OwnedFd);

impl Gate {
    /// In the child: waits until the parent has executed another image; false if it goes on as it
    /// is.
    pub fn passed(self) -> bool {
        matches!(File::from(self.0).read(&mut [0]), Ok(0))
    }

    /// In the parent: nothing was executed.
    pub fn cancel(self) {
        let _ = File::from(self.0).write_all(&[0]);
    }
}

/// As [`fork`], for a child that is of use only if this process executes another image.
pub fn fork_at_gate() -> io::Result<(Fork, Gate)> {
    // Closed by a successful execve(2).
    let (read, write) = pipe()?;
    Ok(match fork()? {
        Fork::Child => (Fork::Child, Gate(read)),
        parent => (parent, Gate(write)),
    })
}

/// Ends the process without running anything that its parent has a copy of.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) takes a plain number.
    unsafe { libc::_exit(status) }
}

/// The reading end of a pipe, and the child that writes `data` into it: what must reach another image
/// of this process, and is too secret for a file. The child ends when all is read, or nobody can.
pub fn feed(data: &Secret) -> io::Result<(OwnedFd, Pid)> {
    let (read, write) = pipe()?;
    match fork()? {
        Fork::Child => {
            drop(read);
            let written = File::from(write).write_all(data);
            // SAFETY: _exit(2) runs no destructors of the parent's copies.
            unsafe { libc::_exit(i32::from(written.is_err())) }
        }
        Fork::Parent(pid) => Ok((read, pid)),
    }
}

/// Reads all that [`feed`] has written, and waits for its child, if there is one.
pub fn eat(pipe: OwnedFd, feeder: Pid) -> io::Result<Secret> {
    let mut pipe = File::from(pipe);
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
    if feeder > 0 {
        let _ = wait_for(feeder);
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

/// waitpid(2) until a child has ended. Not nix's, which loses children that were killed by a
/// signal it has no name for.
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

/// The next child that has ended, without waiting.
pub fn reap() -> Option<(Pid, Ended)> {
    wait(-1, libc::WNOHANG).ok().flatten()
}

/// As [`reap`], with the status as waitpid(2) gives it.
pub fn reap_status() -> Option<(Pid, i32)> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Ends a child at once (SIGKILL).
pub fn kill(pid: Pid) {
    let _ = nix::sys::signal::kill(unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

/// Ends a child that leads a process group, and the rest of the group, at once (SIGKILL).
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

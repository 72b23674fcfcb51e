//! Processes: what this one is, its descriptors, the programs that it starts and its children.

mod children;
mod descriptors;
mod program;

pub use children::*;
pub use descriptors::*;
pub use program::*;

use super::descriptor;
use nix::sys::signal;
use nix::unistd;
use std::ffi::OsStr;
use std::io;
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
    // Without a signal it only looks.
    signal::kill(unistd::Pid::from_raw(pid), None).is_ok()
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

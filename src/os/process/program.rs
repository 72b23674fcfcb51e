//! Starting programs, and replacing this one.

use super::{exit, Pid};
use crate::os::signals::{self, Signal};
use crate::os::{self, check, descriptor, log};
use nix::unistd::{self, ForkResult, Gid, Uid};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The user and group that a worker runs as. `None` keeps the broker's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
    /// What it may still do as another user.
    pub rights: Rights,
}

/// A right of root's that another user keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rights {
    /// None of them.
    #[default]
    None,
    /// To connect from addresses that are not this host's, where that is a right of its own (Linux).
    ForeignAddresses,
}

impl Rights {
    /// Before the change of user. What fails is missed by the program, which says so.
    fn hold(self) {
        #[cfg(target_os = "linux")]
        if self == Rights::ForeignAddresses {
            let _ = crate::os::capabilities::outlive_root();
        }
    }

    /// After it: the user has this right and no other, and so has the program that is executed.
    fn pass_on(self) {
        #[cfg(target_os = "linux")]
        if self == Rights::ForeignAddresses {
            use crate::os::capabilities::Capabilities;
            let kept = Capabilities::for_transparent_sockets();
            let _ = kept.and_then(Capabilities::apply_and_pass_on);
        }
    }
}

/// Keeps what this program was given as [`Rights`] from the programs that it executes.
pub fn keep_rights_from_programs() {
    #[cfg(target_os = "linux")]
    let _ = crate::os::capabilities::pass_nothing_on();
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
    /// Leads its own process group, which [`kill_group`](super::kill_group) kills.
    pub group: bool,
    /// A signal that stays pending until the program unblocks it (see
    /// [`catch_held`](signals::catch_held)). Others than us would not.
    pub held: Option<Signal>,
}

/// The descriptors that a new process starts with.
#[derive(Debug)]
pub struct Descriptors {
    /// Becomes descriptor 0.
    pub stdin: OwnedFd,
    /// Becomes descriptor 2, if given.
    pub stderr: Option<OwnedFd>,
    /// These descriptors stay open, under their numbers.
    pub kept: Vec<RawFd>,
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
            return Err(format!("Can't drop groups: {}", os::reason(&io::Error::last_os_error())));
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
            identity.rights.hold();
            unistd::setuid(Uid::from_raw(uid))
                .map_err(|error| format!("Can't set user id to {uid}: {}", error.desc()))?;
            identity.rights.pass_on();
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
    // Threads that modules have started are not in the child; what they had locked stays locked.
    // SAFETY: the child makes system calls only, with arguments prepared above. If one fails, it
    // puts a message together: the C library makes malloc(3) usable in a child, and the log does not
    // wait for its lock.
    let forked = unsafe { unistd::fork() };
    if !matches!(forked, Ok(ForkResult::Child)) {
        signals::restore(&mask);
    }
    match forked? {
        ForkResult::Parent { child } => Ok(child.as_raw()),
        ForkResult::Child => {
            let status = match prepare(program, &descriptors, directory.as_deref()) {
                Ok(()) => {
                    signals::reset_for_exec(program.held);
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
                    let error = os::reason(&io::Error::last_os_error());
                    complain(&format!("execl ({}, ...): {error}", program.path.display()));
                    exit::OS_ERROR
                }
                Err((status, text)) => {
                    complain(&text);
                    status
                }
            };
            log::farewell();
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
    let failed = |error: io::Error| (exit::OS_ERROR, format!("dup2: {}", os::reason(&error)));
    // SAFETY: dup2(2) takes plain numbers. If a descriptor were its own target it would stay
    // close-on-exec, but 0 to 2 are always open here, so `stdin` and `stderr` have higher numbers.
    check(unsafe { libc::dup2(descriptors.stdin.as_raw_fd(), 0) }).map_err(failed)?;
    if let Some(stderr) = &descriptors.stderr {
        // SAFETY: as above.
        check(unsafe { libc::dup2(stderr.as_raw_fd(), 2) }).map_err(failed)?;
    }
    for fd in &descriptors.kept {
        descriptor::keep_on_exec(fd).map_err(failed)?;
    }
    if program.group {
        let _ = unistd::setpgid(unistd::Pid::from_raw(0), unistd::Pid::from_raw(0));
    }
    take_identity(program.identity).map_err(|text| (exit::NO_PERMISSION, text))?;
    if let Some(directory) = directory {
        // SAFETY: the path is NUL-terminated.
        check(unsafe { libc::chdir(directory.as_ptr()) }).map_err(|error| {
            let directory = directory.to_string_lossy();
            (exit::OS_ERROR, format!("Can't chdir to {directory}: {}", os::reason(&error)))
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
        let log = log::hand_over();
        let envp = c_environment(&[environment, &log].concat())?;
        let path = CString::new(path.as_os_str().as_bytes())?;
        for fd in keep {
            descriptor::keep_on_exec(fd)?;
        }
        if let Some(fd) = log::descriptor() {
            descriptor::keep_on_exec(&fd)?;
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
    if let Some(fd) = log::descriptor() {
        let _ = descriptor::close_on_exec(&fd);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::super::{wait_for, Ended};
    use super::*;
    use std::fs::File;

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
                    held: None,
                };
                let stdin = File::open("/dev/null").unwrap().into();
                let descriptors = Descriptors { stdin, stderr: None, kept: Vec::new() };
                let pid = spawn(&program, descriptors, |text| drop(text.repeat(100))).unwrap();
                assert_eq!(wait_for(pid).unwrap(), Ended::Status(status), "{path}");
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

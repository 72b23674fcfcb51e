//! Children: forking, feeding, reaping, killing.

use super::Pid;
use crate::os::secret::Secret;
use crate::os::{check, interrupted};
use nix::unistd::{self, ForkResult};
use std::io::{self, PipeReader, PipeWriter, Read, Write};

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
    // What those threads had locked stays locked in the child. Modules that go on in the child
    // (`Keepers`, io_child_fork()) did so with the C library too.
    // SAFETY: the child waits for no lock that such a thread takes. Ours are that of the log, which
    // is only tried, and those of values that are set once and were set before; the C library makes
    // malloc(3) usable in a child.
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
            Err(error) if interrupted(&error) => {}
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

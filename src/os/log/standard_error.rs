//! Standard error, without waiting for who reads it.
//!
//! A terminal that is stopped, or a pipe that nobody reads, must not stop the sessions. O_NONBLOCK
//! belongs to the open file, though, which others have as well: the shell, and whoever else writes
//! there. So descriptor 2 gets an open file of its own, for this process and those that it starts,
//! where the system can open what is open once more: Linux by /proc/self/fd, which needs the
//! permission, others a terminal by its name. Otherwise each write is made so that it does not
//! wait: a socket is written to with MSG_DONTWAIT, and a pipe of Linux by way of another pipe, with
//! splice(2). What is left (pipes of other systems, terminals of others) is asked first, and given
//! no more than it has said to have room for; another process that writes at the same moment can
//! still make it wait.
//!
//! Programs that only answer on standard error, as with -P, wait as any program does.

use super::queue::Written;
use crate::os::{check_size, would_block};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

const STDERR: libc::c_int = 2;
/// As much as a pipe takes in one piece (PIPE_BUF; POSIX has 512 at least).
const PIECE: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };
/// As much as a terminal takes, if it takes anything.
const TERMINAL_PIECE: usize = 64;

static NEVER_WAITS: AtomicBool = AtomicBool::new(false);

/// From now on nobody is waited for.
pub(super) fn never_wait() {
    NEVER_WAITS.store(true, Ordering::Relaxed);
    open_again();
    #[cfg(target_os = "linux")]
    if matches!(what(), What::Pipe) {
        detour::prepare();
    }
}

/// True if writes go by [`write`].
pub(super) fn never_waits() -> bool {
    NEVER_WAITS.load(Ordering::Relaxed)
}

/// Writes all of it, however long that takes.
pub(super) fn write_all(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

/// What descriptor 2 is.
enum What {
    /// Its writes do not wait: O_NONBLOCK is set, or it is a file.
    Prompt,
    Pipe,
    Socket,
    Terminal,
}

fn what() -> What {
    // SAFETY: fcntl(F_GETFL) takes plain numbers.
    let flags = unsafe { libc::fcntl(STDERR, libc::F_GETFL) };
    if flags >= 0 && flags & libc::O_NONBLOCK != 0 {
        return What::Prompt;
    }
    // SAFETY: struct stat is plain data, for which all zeroes is a value; fstat(2) fills it.
    let mode = unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        if libc::fstat(STDERR, &mut status) < 0 {
            return What::Prompt;
        }
        status.st_mode & libc::S_IFMT
    };
    match mode {
        libc::S_IFIFO => What::Pipe,
        libc::S_IFSOCK => What::Socket,
        libc::S_IFCHR if crate::os::process::stderr_is_terminal() => What::Terminal,
        _ => What::Prompt,
    }
}

/// Gives descriptor 2 an open file of its own, which does not wait. Not if it is a file, whose
/// position others go on from.
pub(super) fn open_again() {
    if !matches!(what(), What::Pipe | What::Terminal) {
        return;
    }
    let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    #[cfg(target_os = "linux")]
    // SAFETY: open(2) reads a NUL-terminated text.
    let fd = unsafe { libc::open(c"/proc/self/fd/2".as_ptr(), flags) };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: ttyname(3) gives null or a NUL-terminated text, which stays until it is called
    // again; open(2) reads it.
    let fd = unsafe {
        let name = libc::ttyname(STDERR);
        if name.is_null() {
            -1
        } else {
            libc::open(name, flags)
        }
    };
    if fd >= 0 {
        // SAFETY: dup2(2) and close(2) take plain numbers; 2 belongs to nobody in this program,
        // and `fd` was opened above.
        unsafe {
            libc::dup2(fd, STDERR);
            libc::close(fd);
        }
    }
}

/// Writes what can be written now.
pub(super) fn write(bytes: &[u8]) -> Written {
    let mut written = 0;
    while written < bytes.len() {
        match write_piece(&bytes[written..]) {
            Ok(0) => return Written::Part(written),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if would_block(&error) => return Written::Part(written),
            // Nobody is there; nor will anybody ask what was missing.
            Err(_) => return Written::Whole,
        }
    }
    Written::Whole
}

fn write_piece(bytes: &[u8]) -> io::Result<usize> {
    let piece = &bytes[..bytes.len().min(PIECE)];
    match what() {
        What::Prompt => write_plainly(piece),
        What::Socket => {
            #[cfg(not(target_vendor = "apple"))]
            const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            #[cfg(target_vendor = "apple")]
            const FLAGS: libc::c_int = libc::MSG_DONTWAIT;
            // SAFETY: the pointer and the length describe `piece`, which outlives the call.
            check_size(unsafe { libc::send(STDERR, piece.as_ptr().cast(), piece.len(), FLAGS) })
        }
        What::Pipe => {
            #[cfg(target_os = "linux")]
            if let Some(result) = detour::write(piece) {
                return result;
            }
            write_if_ready(piece)
        }
        What::Terminal => write_if_ready(&piece[..piece.len().min(TERMINAL_PIECE)]),
    }
}

fn write_plainly(bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `bytes`, which outlives the call.
    check_size(unsafe { libc::write(STDERR, bytes.as_ptr().cast(), bytes.len()) })
}

fn write_if_ready(bytes: &[u8]) -> io::Result<usize> {
    let mut poll = libc::pollfd { fd: STDERR, events: libc::POLLOUT, revents: 0 };
    // SAFETY: poll(2) uses one pollfd, which outlives the call.
    if unsafe { libc::poll(&mut poll, 1, 0) } == 1 {
        write_plainly(bytes)
    } else {
        Ok(0)
    }
}

/// From one pipe to another splice(2) waits for nobody if it is told not to, whatever the flags of
/// the pipes are.
#[cfg(target_os = "linux")]
mod detour {
    use super::STDERR;
    use crate::os::{check, check_size, socket::own};
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::ptr;
    use std::sync::OnceLock;

    /// A pipe that is empty between two calls. Made once; a process without descriptors does
    /// without.
    fn pipe() -> Option<&'static (OwnedFd, OwnedFd)> {
        static PIPE: OnceLock<Option<(OwnedFd, OwnedFd)>> = OnceLock::new();
        PIPE.get_or_init(|| {
            let mut ends = [0; 2];
            // SAFETY: `ends` has room for the two descriptors.
            let made =
                unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
            check(made).ok().map(|_| (own(ends[0]), own(ends[1])))
        })
        .as_ref()
    }

    /// Makes the pipe ahead of the first line, while there are descriptors.
    pub(super) fn prepare() {
        pipe();
    }

    /// Writes a piece that fits into a pipe; `None` if this is no way.
    pub(super) fn write(piece: &[u8]) -> Option<io::Result<usize>> {
        let (out, into) = pipe()?;
        let (out, into) = (out.as_raw_fd(), into.as_raw_fd());
        // SAFETY: the pointer and the length describe `piece`, which outlives the call.
        let filled = unsafe { libc::write(into, piece.as_ptr().cast(), piece.len()) };
        let filled = usize::try_from(filled).ok()?;
        // SAFETY: splice(2) of two pipes takes null for the offsets.
        let moved = check_size(unsafe {
            let (none, flags) = (ptr::null_mut(), libc::SPLICE_F_NONBLOCK);
            libc::splice(out, none, STDERR, none, filled, flags)
        });
        let mut left = [0u8; super::PIECE];
        if !matches!(moved, Ok(count) if count == filled) {
            // SAFETY: the pointer and the length describe `left`, which outlives the call; the
            // pipe holds no more than that, and does not wait.
            unsafe { libc::read(out, left.as_mut_ptr().cast(), left.len()) };
        }
        match moved {
            // A pipe that is opened for appending.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
            moved => Some(moved),
        }
    }
}

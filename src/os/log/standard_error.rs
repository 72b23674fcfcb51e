//! Standard error, written without blocking.
//!
//! A stopped terminal or an unread pipe must not stop the sessions. We cannot just set O_NONBLOCK:
//! it belongs to the open file, which is shared with the shell and everybody else who writes there.
//! So, where the system can open the same file again, descriptor 2 gets an open file of its own,
//! for this process and its children: on Linux through /proc/self/fd, which needs the permission,
//! elsewhere a terminal by its name.
//!
//! Otherwise each single write is made non-blocking: a socket gets MSG_DONTWAIT, and a pipe on
//! Linux is written through another pipe with splice(2). What remains (pipes of other systems, and
//! terminals that cannot be opened) is polled first and given no more than it reported room for; if
//! another process writes at the same moment, it can still block us.
//!
//! Programs that just answer on standard error, as with -P, block like any other program.

use super::queue::Written;
use crate::os::{check_size, interrupted, would_block};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

const STDERR: libc::c_int = 2;
/// How much a pipe takes in one piece (PIPE_BUF; POSIX guarantees 512).
const PIECE: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };
/// How much a terminal takes if poll(2) reports it writable.
const TERMINAL_PIECE: usize = 64;

static NEVER_WAITS: AtomicBool = AtomicBool::new(false);

/// From now on, writes do not block.
pub(super) fn never_wait() {
    NEVER_WAITS.store(true, Ordering::Relaxed);
    open_again();
    #[cfg(target_os = "linux")]
    if matches!(what(), What::Pipe) {
        detour::prepare();
    }
}

/// True if writes must go through [`write`], which does not block.
pub(super) fn never_waits() -> bool {
    NEVER_WAITS.load(Ordering::Relaxed)
}

/// Writes all of it, and blocks as long as that takes.
pub(super) fn write_all(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

/// The kind of file that descriptor 2 is.
enum What {
    /// Writes to it do not block: O_NONBLOCK is set, or it is no pipe, socket or terminal.
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

/// Gives descriptor 2 a non-blocking open file of its own. Not if it is a regular file: its
/// position is shared with others who write there.
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
        // SAFETY: dup2(2) and close(2) take plain numbers; nothing in this program owns descriptor
        // 2, and `fd` was opened above.
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
            Err(error) if interrupted(&error) => {}
            Err(error) if would_block(&error) => return Written::Part(written),
            // Nobody reads it, so nobody will miss the rest.
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

/// With SPLICE_F_NONBLOCK, splice(2) between two pipes does not block, whatever the flags of the
/// pipes are.
#[cfg(target_os = "linux")]
mod detour {
    use super::STDERR;
    use crate::os::{check, check_size, descriptor::own};
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::ptr;
    use std::sync::OnceLock;

    /// A pipe that is empty between two calls. Made once; `None` if there are no descriptors for
    /// it.
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

    /// Makes the pipe before the first line, while there are still descriptors.
    pub(super) fn prepare() {
        pipe();
    }

    /// Writes a piece that fits into a pipe; `None` if splice(2) does not work here.
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
            // Standard error is open for appending.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
            moved => Some(moved),
        }
    }
}

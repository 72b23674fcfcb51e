//! The process title, as ps(1) shows it.

/// How a process treats new connections, as its title shows it.
#[derive(Clone, Copy, Debug)]
pub enum State<'a> {
    /// It accepts them.
    Accepting {
        /// How many more it can take.
        more: usize,
    },
    /// It takes those that its broker sends.
    Serving,
    /// It is at its limit.
    Full {
        /// What happens to new ones: "queueing".
        doing: &'a str,
    },
    /// It takes no more.
    Leaving,
}

/// A title under construction. It changes with every connection, so it is spelled into a fixed
/// buffer, without the formatting machinery.
#[derive(Debug)]
pub struct Title {
    /// Always one byte longer than what can be spelled, for a NUL.
    text: Box<[u8]>,
    /// How much of it is spelled, and how much of that is the prefix that all titles share.
    length: usize,
    name: usize,
}

/// What can follow the prefix: two numbers, and the words of [`State`].
const ROOM: usize = 128;

impl Title {
    /// Starts a title with the program's name.
    pub fn new(basename: &str) -> Title {
        Title::with_room(basename, ROOM)
    }

    /// As [`new`](Self::new), for a text of this length, or several that are no longer.
    pub fn with_room(basename: &str, room: usize) -> Title {
        // setproctitle(3) of NetBSD and OpenBSD always adds the program's name in front.
        let prefix = if cfg!(any(target_os = "netbsd", target_os = "openbsd")) {
            String::new()
        } else {
            format!("{basename}: ")
        };
        let length = prefix.len();
        let mut text = prefix.into_bytes();
        text.resize(length + room + 1, 0);
        Title { text: text.into(), length, name: length }
    }

    /// Appends some text; a text that is too long is left out.
    #[inline]
    pub fn text(&mut self, text: &str) -> &mut Title {
        self.bytes(text.as_bytes())
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) -> &mut Title {
        let end = self.length + bytes.len();
        // One byte is kept for the NUL.
        if end < self.text.len() {
            self.text[self.length..end].copy_from_slice(bytes);
            self.length = end;
        }
        self
    }

    /// Appends a number.
    #[inline]
    pub fn number(&mut self, number: usize) -> &mut Title {
        let digit = |unit: usize| b'0' + (number / unit % 10) as u8;
        match number {
            0..10 => self.bytes(&[digit(1)]),
            10..100 => self.bytes(&[digit(10), digit(1)]),
            100..1000 => self.bytes(&[digit(100), digit(10), digit(1)]),
            _ => self.large_number(number),
        }
    }

    fn large_number(&mut self, mut number: usize) -> &mut Title {
        let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
        let end = self.length + digits;
        if end < self.text.len() {
            for place in self.text[self.length..end].iter_mut().rev() {
                *place = b'0' + (number % 10) as u8;
                number /= 10;
            }
            self.length = end;
        }
        self
    }

    /// Appends a number of connections.
    #[inline]
    pub fn connections(&mut self, count: usize) -> &mut Title {
        match count {
            1 => self.text("1 connection"),
            _ => self.number(count).text(" connections"),
        }
    }

    /// Appends how new connections are treated.
    #[inline]
    pub fn state(&mut self, state: State<'_>) -> &mut Title {
        match state {
            State::Accepting { more } => self.text(", accepting up to ").number(more).text(" more"),
            State::Serving => self,
            State::Full { doing } => self.text(", ").text(doing).text(" new ones"),
            State::Leaving => self.text(" left, dying when idle"),
        }
    }

    /// Shows the title and starts the next one. Uses setproctitle(3) on FreeBSD, NetBSD and
    /// OpenBSD; on Linux and macOS it overwrites the arguments. Does nothing on Solaris and
    /// illumos, which always show the arguments that a program was started with.
    pub fn show(&mut self) {
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        arguments::set(&self.text[..self.length]);
        #[cfg(any(target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"))]
        {
            self.text[self.length] = 0;
            bsd::set(&self.text[..=self.length]);
        }
        self.length = self.name;
    }
}

/// Gets the memory for titles ready, which threads must not read meanwhile: call it before there
/// are any.
pub fn prepare() {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    arguments::prepare();
}

#[cfg(any(target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"))]
mod bsd {
    /// `title` ends in a NUL.
    pub(super) fn set(title: &[u8]) {
        // The minus suppresses the program's name; only FreeBSD knows it.
        let format = if cfg!(target_os = "freebsd") { c"-%s" } else { c"%s" };
        // SAFETY: setproctitle(3); a constant format and one string that ends in NUL.
        unsafe { libc::setproctitle(format.as_ptr(), title.as_ptr().cast::<libc::c_char>()) };
    }
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
mod arguments {
    use std::ffi::CStr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::OnceLock;

    /// The memory that the kernel shows as the command line: the arguments, and on Linux the
    /// environment after them.
    pub(super) struct Area {
        start: usize,
        length: usize,
    }

    static AREA: OnceLock<Option<Area>> = OnceLock::new();
    /// How much of the area may differ from NUL.
    static USED: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Our programs call it when they start, before modules can start threads. C programs show a
    /// title when they see fit; the C library moves the same strings then.
    pub(super) fn prepare() -> Option<&'static Area> {
        AREA.get_or_init(claim).as_ref()
    }

    pub(super) fn set(title: &[u8]) {
        let Some(area) = prepare() else {
            return;
        };
        let length = title.len().min(area.length - 1);
        let used = USED.swap(length, Ordering::Relaxed).clamp(length, area.length);
        // SAFETY: the area is this process's own arguments and environment, writable for as long as
        // it lives; `claim` has moved out of it everything that is still read (on Linux
        // std::env::args made its copies earlier, in main).
        unsafe {
            let start = area.start as *mut u8;
            std::ptr::copy_nonoverlapping(title.as_ptr(), start, length);
            std::ptr::write_bytes(start.add(length), 0, used - length);
        }
    }

    /// Finds the arguments (crt_externs.h), as far as they are contiguous, and moves them
    /// elsewhere, because std::env::args reads them on every call.
    #[cfg(target_vendor = "apple")]
    fn claim() -> Option<Area> {
        // SAFETY: the array has as many NUL-terminated strings as the count says, and is ours to
        // change; this runs before the first thread is started, so nobody reads it meanwhile. Each
        // string is replaced by a copy that is never freed.
        unsafe {
            let (arguments, count) = (*libc::_NSGetArgv(), *libc::_NSGetArgc());
            let start = if count > 0 { *arguments as usize } else { return None };
            let mut end = start;
            for index in 0..count as usize {
                let argument = arguments.add(index);
                if *argument as usize != end {
                    break;
                }
                let copy = CStr::from_ptr(*argument).to_owned();
                end += copy.as_bytes_with_nul().len();
                *argument = copy.into_raw();
            }
            (end > start + 1).then_some(Area { start, length: end - start })
        }
    }

    /// Finds the area through proc(5) (stat fields 48 to 51: arg_start, arg_end, env_start,
    /// env_end) and moves the environment strings out of it.
    #[cfg(target_os = "linux")]
    fn claim() -> Option<Area> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the command in parentheses and may contain anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<usize>().ok();
        let (start, arg_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
        let end = if env_start == arg_end { env_end } else { arg_end };
        if start == 0 || end <= start + 1 {
            return None;
        }
        // Under valgrind and other interpreters that area belongs to the interpreter, and our
        // arguments are elsewhere. C libraries keep a pointer to the first one in this variable.
        // SAFETY: the variable is set before main, and only read; its value is not followed.
        let own = unsafe { program_invocation_name } as usize;
        if !(start..end).contains(&own) {
            return None;
        }
        move_environment(start..end);
        Some(Area { start, length: end - start })
    }

    #[cfg(target_os = "linux")]
    extern "C" {
        static mut environ: *mut *mut libc::c_char;
        static mut program_invocation_name: *mut libc::c_char;
    }

    #[cfg(target_os = "linux")]
    fn move_environment(area: std::ops::Range<usize>) {
        // SAFETY: `environ` is a NULL-terminated array of NUL-terminated strings; `prepare` says
        // why no thread reads it meanwhile. Each string inside the area is
        // replaced by a copy that is never freed, as setenv(3) does.
        unsafe {
            let mut entry = environ;
            while !entry.is_null() && !(*entry).is_null() {
                if area.contains(&(*entry as usize)) {
                    let copy = CStr::from_ptr(*entry).to_owned();
                    *entry = copy.into_raw();
                }
                entry = entry.add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut title = Title::new("relay");
        title.number(7).text(&"x".repeat(ROOM)).text(" more");
        assert_eq!(title.text[title.name..title.length], *b"7 more");
        let doing = "immediately closing";
        title.connections(usize::MAX).state(State::Full { doing });
        assert!(title.text[..title.length].ends_with(b"immediately closing new ones"));
    }

    #[test]
    fn numbers_are_spelled_as_ever() {
        for number in [0, 1, 9, 10, 99, 100, 305, 999, 1000, 4096, usize::MAX] {
            let mut title = Title::new("relay");
            title.connections(number);
            let plural = if number == 1 { "" } else { "s" };
            let expected = format!("{number} connection{plural}");
            assert_eq!(title.text[title.name..title.length], *expected.as_bytes());
        }
    }
}

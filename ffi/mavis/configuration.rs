//! mavis/mavis.h: reading a configuration, and its copy in shared memory.

use super::reading;
use crate::config::token::S_closebra;
use crate::config::{self, Parser, ReadError, Sym};
use crate::ffi::entry::entry;
use crate::ffi::layout::common_data;
use crate::ffi::memory::slice;
use crate::ffi::scm;
use crate::os::log;
use crate::os::malloc::{self, Owned};
use crate::os::process::{self, exit};
use crate::os::shm::Segment;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The copy of the configuration in shared memory. Dropping it removes it.
static SEGMENT: Mutex<Option<Segment>> = Mutex::new(None);

fn segment() -> MutexGuard<'static, Option<Segment>> {
    SEGMENT.lock().unwrap_or_else(PoisonError::into_inner)
}

entry! {
    /// The first half of cfg_read_config: opens a configuration, and returns a reader at the first
    /// token in the section's braces. Ends the process if there is no such section.
    #[otherwise(ptr::null_mut())]
    pub(in crate::ffi) fn open_configuration(url: Option<String>, id: Option<String>) -> *mut Sym {
        config::on_abandon(scm::tell_bad_configuration);
        let (url, report, system) = (url.unwrap_or_default(), reading::report(), reading::system());
        let fail = |error: ReadError| -> ! {
            report.failure(&error);
            if let ReadError::Syntax(_) = error {
                config::abandon();
            }
            std::process::exit(error.exit_status())
        };
        let source = config::system::open(&url, &*system)
            .unwrap_or_else(|error| fail(ReadError::Open { name: url.clone(), error }));
        let mut parser = Parser::new(source, report.rules(), system);
        let found = parser.start().map_err(ReadError::from);
        let found = found.and_then(|()| config::find_section(&mut parser, &id.unwrap_or_default()));
        report.apply(parser.take_effects());
        found.unwrap_or_else(|error| fail(error));
        common_data::publish(&std::mem::take(&mut parser.common));
        Owned::new(parser.into_sym()).into_raw()
    }

    /// The second half: checks the closing brace, and frees the reader.
    pub(in crate::ffi) fn close_configuration(sym: *mut Sym) {
        // SAFETY: the reader came from the first half; nobody uses it any more.
        let Some(mut sym) = (unsafe { Owned::from_raw(sym) }) else {
            return;
        };
        let report = reading::report();
        // Nothing after the section is read, or even lexed.
        let parser = Parser::resume(&mut sym, &[], "", report.rules());
        if let Err(error) = parser.check(S_closebra) {
            report.failure(&ReadError::Syntax(error));
            config::abandon();
            std::process::exit(exit::CONFIGURATION);
        }
    }

    /// `int cfg_open_and_read(char *url, char **buffer, int *length)`: reads a whole source into
    /// memory. 0, or -1.
    #[otherwise(-1)]
    pub fn cfg_open_and_read(url: String, buffer: &mut *mut c_char, length: &mut c_int) -> c_int {
        match config::system::open(&url, &*reading::system()) {
            Ok(source) => {
                *buffer = malloc::copy(&[&*source.text, b"\0"].concat()).as_ptr().cast();
                *length = source.text.len() as c_int;
                0
            }
            Err(error) => {
                process::set_errno(error.raw_os_error().unwrap_or(libc::ENOENT));
                -1
            }
        }
    }

    /// `int cfg_close(char *url, char *buffer, int length)`: frees the memory of cfg_open_and_read.
    /// Returns 0.
    #[otherwise(0)]
    pub fn cfg_close(_url: *const c_char, buffer: *mut c_void, _length: c_int) -> c_int {
        // SAFETY: the buffer is null or came from cfg_open_and_read, and is not used afterwards.
        unsafe { libc::free(buffer) };
        0
    }

    /// `int ipc_create(char *buffer, int length)`: copies the buffer to shared memory with the key
    /// `common_data.ipc_key`, replacing an earlier copy, and sets `common_data.ipc_url` to its
    /// name. 0, or -1.
    #[otherwise(-1)]
    pub fn ipc_create(buffer: *const c_char, length: c_int) -> c_int {
        let key = common_data::ipc_key();
        let length = usize::try_from(length).unwrap_or(0);
        if buffer.is_null() || key == 0 {
            return -1;
        }
        // SAFETY: the buffer has that length.
        let data = unsafe { slice(buffer.cast::<u8>(), length) };
        drop(segment().take());
        match Segment::create(key as i32, data, None, None) {
            Ok(created) => {
                common_data::set_ipc_url(&format!("ipc://{key}/{length}"));
                *segment() = Some(created);
                0
            }
            Err(error) => {
                log::message(&format!("ipc_create: {}", crate::os::reason(&error)));
                -1
            }
        }
    }

    /// `void ipc_delete(void)`: removes the copy from shared memory.
    pub fn ipc_delete() {
        drop(segment().take());
    }
}

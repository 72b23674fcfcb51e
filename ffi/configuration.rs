//! mavis/mavis.h: reading a configuration, and the data that all share.

use super::{guard, reading, scm, text};
use crate::config::source::Source;
use crate::config::{self, Parser, ReadError, Sym};
use crate::os::malloc::{self, Owned};
use crate::os::process::{self, exit};
use crate::os::shm::Segment;
use crate::os::{common_data, log};
use std::ffi::{c_char, c_int};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The copy of the configuration in shared memory.
static SEGMENT: Mutex<Option<Segment>> = Mutex::new(None);

fn segment() -> MutexGuard<'static, Option<Segment>> {
    SEGMENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first half of cfg_read_config: a reader on the first token in the section's braces. Ends
/// the process if there is none.
pub(super) unsafe extern "C" fn open_configuration(
    url: *const c_char,
    id: *const c_char,
) -> *mut Sym {
    guard(ptr::null_mut(), || {
        // SAFETY: the C side passes on what its caller gave: null or NUL-terminated.
        let (url, id) = unsafe { (text(url).unwrap_or_default(), text(id).unwrap_or_default()) };
        let report = reading::report();
        config::on_abandon(scm::tell_bad_configuration);
        let fail = |error: ReadError| -> ! {
            report.failure(&error);
            if let ReadError::Syntax(_) = error {
                config::abandon();
            }
            std::process::exit(error.exit_status())
        };
        let opened = Source::open(&url)
            .map_err(|error| ReadError::Open { name: url.clone(), error })
            .and_then(|source| {
                let mut parser = Parser::new(source, &report)?;
                config::find_section(&mut parser, &id)?;
                Ok(parser)
            });
        match opened {
            Ok(mut parser) => {
                reading::publish(&std::mem::take(&mut parser.common));
                Owned::new(parser.into_sym()).into_raw()
            }
            Err(error) => fail(error),
        }
    })
}

/// The second half: the closing brace.
pub(super) unsafe extern "C" fn close_configuration(sym: *mut Sym) {
    guard((), || {
        // SAFETY: the reader is that of the first half; nobody has it any more.
        let Some(mut sym) = (unsafe { Owned::from_raw(sym) }) else {
            return;
        };
        let report = reading::report();
        // What follows the section is not read, not even lexed.
        let parser = Parser::resume(&mut sym, &[], "", &report);
        if let Err(error) = parser.check(crate::config::token::S_closebra) {
            report.failure(&ReadError::Syntax(error));
            config::abandon();
            std::process::exit(exit::CONFIGURATION);
        }
    });
}

/// `int cfg_open_and_read(char *url, char **buffer, int *length)`: reads a source whole. 0, or -1.
///
/// # Safety
/// `url` is null or NUL-terminated; the other two are null or writable.
#[no_mangle]
pub unsafe extern "C" fn cfg_open_and_read(
    url: *const c_char,
    buffer: *mut *mut c_char,
    length: *mut c_int,
) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        unsafe {
            let (Some(url), Some(buffer), Some(length)) =
                (text(url), buffer.as_mut(), length.as_mut())
            else {
                return -1;
            };
            match Source::open(&url) {
                Ok(source) => {
                    let memory = malloc::allocate(source.text.len() + 1, "cfg_open_and_read");
                    let (from, count) = (source.text.as_ptr(), source.text.len());
                    ptr::copy_nonoverlapping(from, memory.as_ptr(), count);
                    *buffer = memory.as_ptr().cast();
                    *length = count as c_int;
                    0
                }
                Err(error) => {
                    process::set_errno(error.raw_os_error().unwrap_or(libc::ENOENT));
                    -1
                }
            }
        }
    })
}

/// `int cfg_close(char *url, char *buffer, int length)`: frees what cfg_open_and_read has read. 0
///
/// # Safety
/// `buffer` is null or of cfg_open_and_read, and not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn cfg_close(
    _url: *const c_char,
    buffer: *mut c_char,
    _length: c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { libc::free(buffer.cast()) };
    0
}

/// `int ipc_create(char *buffer, int length)`: a copy in shared memory with the key of
/// `common_data`, in place of the former one; `ipc_url` names it. 0, or -1.
///
/// # Safety
/// `buffer` is null or has that length.
#[no_mangle]
pub unsafe extern "C" fn ipc_create(buffer: *const c_char, length: c_int) -> c_int {
    guard(-1, || {
        let key = common_data::ipc_key();
        let length = usize::try_from(length).unwrap_or(0);
        if buffer.is_null() || key == 0 {
            return -1;
        }
        // SAFETY: as the caller promises.
        let data = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
        ipc_delete();
        match Segment::create(key as i32, data, None, None) {
            Ok(segment) => {
                common_data::set_ipc_url(&format!("ipc://{key}/{length}"));
                *self::segment() = Some(segment);
                0
            }
            Err(error) => {
                log::message(&format!("ipc_create: {}", crate::os::reason(&error)));
                -1
            }
        }
    })
}

/// `void ipc_delete(void)`: removes it; dropping it does.
#[no_mangle]
pub extern "C" fn ipc_delete() {
    guard((), || drop(segment().take()));
}

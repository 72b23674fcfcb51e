//! misc/setproctitle.h, mavis/set_proctitle.h: the process title.

use super::{guard, text};
use crate::os::{common_data, spawnd_data, title};
use std::ffi::{c_char, c_int};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The program knows that the memory of its arguments will be written over.
static ALLOWED: AtomicBool = AtomicBool::new(false);

/// `void setproctitle_init(char **argv, char **envp)`: allows titles. Where they go is asked of the
/// system.
#[no_mangle]
pub extern "C" fn setproctitle_init(_argv: *mut *mut c_char, _envp: *mut *mut c_char) {
    ALLOWED.store(true, Ordering::Relaxed);
}

fn set(text: &str) {
    if ALLOWED.load(Ordering::Relaxed) {
        title::Title::new(&base_name()).text(text).show();
    }
}

fn base_name() -> String {
    let name = common_data::program_name().unwrap_or_default();
    let base = Path::new(&name).file_name();
    base.map_or_else(String::new, |base| base.to_string_lossy().into_owned())
}

pub(super) unsafe extern "C" fn set_title(new: *const c_char) {
    // SAFETY: the C side passes a NUL-terminated text.
    guard((), || set(&unsafe { text(new) }.unwrap_or_default()));
}

/// `void set_proctitle(int status)`: what a worker is doing: 0 accepting, 1 accepting as one of
/// several, 2 not accepting now, 3 not accepting any more.
#[no_mangle]
pub extern "C" fn set_proctitle(status: c_int) {
    guard((), || {
        let users = common_data::users_cur();
        let more = common_data::users_max_total().saturating_sub(users);
        let count = match users {
            1 => "1 connection".to_owned(),
            _ => format!("{users} connections"),
        };
        let accepting = format!("{count}, accepting up to {more} more");
        let title = match status {
            0 => accepting,
            1 if common_data::single_process() != 0 => accepting,
            1 => count,
            2 => format!("{count}, {} new ones", spawnd_data::overload_hint()),
            _ => format!("{count} left, dying when idle"),
        };
        set(&title);
    });
}

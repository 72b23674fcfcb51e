//! misc/setproctitle.h: the process title.

use super::entry::entry;
use super::layout::common_data;
use crate::os::title::Title;
use std::ffi::c_char;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once the program has called `setproctitle_init`: it knows that its arguments will be
/// overwritten.
static ALLOWED: AtomicBool = AtomicBool::new(false);

/// Shows a title, if the program has allowed that.
pub(super) fn show(write: impl FnOnce(&mut Title)) {
    show_in(Title::new, write);
}

fn show_in(make: impl FnOnce(&str) -> Title, write: impl FnOnce(&mut Title)) {
    if !ALLOWED.load(Ordering::Relaxed) {
        return;
    }
    let name = common_data::program_name().unwrap_or_default();
    let base = Path::new(&name).file_name().unwrap_or_default();
    let mut title = make(&base.to_string_lossy());
    write(&mut title);
    title.show();
}

entry! {
    /// `void setproctitle_init(char **argv, char **envp)`: allows titles. The arguments are not
    /// used: the system knows where a title goes.
    pub fn setproctitle_init(_argv: *mut *mut c_char, _envp: *mut *mut c_char) {
        ALLOWED.store(true, Ordering::Relaxed);
    }

    /// `void setproctitle(const char *format, ...)`: shows a title that the C half has formatted.
    pub(in crate::ffi) fn set_title(text: Option<String>) {
        let text = text.unwrap_or_default();
        let make = |name: &str| Title::with_room(name, text.len());
        show_in(make, |title| {
            title.text(&text);
        });
    }
}

//! The system on which configurations are read: their files as the snapshot has them, everything
//! else as it is now.

use super::report::Report;
use crate::config::effect::Effect;
use crate::config::system::{Possible, System};
use crate::config::Reading;
use crate::config::{common::Common, ReadError};
use crate::os::regex::Pcre;
use crate::os::{names, process, socket};
use crate::snapshot::reader::Reader;
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

/// This system, for one configuration.
pub struct Live {
    /// Where messages go.
    pub report: Report,
    /// Where its files come from.
    pub reader: Reader,
    keeps_stderr: Cell<bool>,
}

impl Live {
    /// Reads files through `reader`.
    pub fn new(report: Report, reader: Reader) -> Live {
        Live { report, reader, keeps_stderr: Cell::new(false) }
    }

    /// Reads files as they are at that moment.
    pub fn direct(report: Report) -> Live {
        Live::new(report, Reader::direct())
    }

    /// Applies the effects of a text, and returns its settings.
    pub fn settle<T>(&self, reading: Reading<T>) -> Result<(T, Common), ReadError> {
        self.apply(reading.effects);
        reading.result
    }

    /// True if a text directs debug output to standard error or a file: standard error must then
    /// stay as it is in the background.
    pub fn keeps_stderr(&self) -> bool {
        self.keeps_stderr.get()
    }
}

impl System for Live {
    fn source(&self, name: &str) -> io::Result<Vec<u8>> {
        self.reader.source(name)
    }

    fn glob(&self, pattern: &OsStr) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
        self.reader.glob(pattern)
    }

    fn variable(&self, name: &OsStr) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn user(&self, name: &str) -> Option<(u32, u32)> {
        names::user(name)
    }

    fn group(&self, name: &str) -> Option<u32> {
        names::group(name)
    }

    fn service(&self, name: &str) -> Option<u16> {
        names::service(name)
    }

    fn expand_system_type(&self, text: &str) -> String {
        names::expand_system_type(text)
    }

    fn is_executable(&self, path: &Path) -> bool {
        process::is_executable(path)
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn can_share_port(&self) -> bool {
        socket::can_share_port()
    }

    fn has_user_timeout(&self) -> bool {
        socket::has_user_timeout()
    }

    fn can_look_up(&self) -> Possible {
        match cfg!(feature = "dns") {
            true => Possible::Yes,
            false => Possible::No,
        }
    }

    fn check_pattern(&self, pattern: &[u8]) -> Result<(), String> {
        Pcre::new(pattern, 0).map(drop)
    }

    fn apply(&self, effects: Vec<Effect>) {
        if self.report.apply(effects) {
            self.keeps_stderr.set(true);
        }
    }
}

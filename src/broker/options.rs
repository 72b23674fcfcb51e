//! What the command line and the start of the process decide.

use std::ffi::OsString;
use std::path::PathBuf;

/// Options of the broker process.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base name of argv\[0], for process titles.
    pub name: String,
    /// The program that is executed on reload.
    pub executable: PathBuf,
    /// The original arguments, argv\[0] included.
    pub arguments: Vec<OsString>,
    /// The original environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Descriptor 0 is a listening socket.
    pub inetd: bool,
    /// The process runs in the background.
    pub background: bool,
}

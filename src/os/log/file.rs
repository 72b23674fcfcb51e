//! A log file. All processes of a relay append to it, each line with one write(2), so that lines
//! stay whole.

use super::queue::Written;
use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// A file that is open for appending.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// The disk was full in the middle of a line, which is written again.
    torn: bool,
}

impl LogFile {
    pub(super) fn new(fd: OwnedFd) -> LogFile {
        LogFile { file: fd.into(), torn: false }
    }

    pub(super) fn number(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes a whole line, or tells to try again later: the disk may have room again then.
    pub(super) fn write(&mut self, line: &[u8]) -> Written {
        // Other processes may have written since, so that the rest alone would end up elsewhere.
        let bytes = if self.torn { Cow::from([b"\n", line].concat()) } else { Cow::from(line) };
        loop {
            match (&self.file).write(&bytes) {
                Ok(count) if count == bytes.len() => {
                    self.torn = false;
                    return Written::Whole;
                }
                Ok(count) => {
                    self.torn |= count > 0;
                    return Written::Part(0);
                }
                Err(error) if crate::os::interrupted(&error) => {}
                Err(_) => return Written::Part(0),
            }
        }
    }
}

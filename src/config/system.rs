//! Questions that the parser asks the system: about files, users, services and capabilities.

use super::effect::Effect;
use super::source::Source;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

/// Answers a parser's questions. `program` has the implementation that reads files and asks the
/// system; tests use [`Nowhere`], which does neither.
pub trait System {
    /// The bytes of a source: a file, a URL, or the broker's shared memory.
    fn source(&self, name: &str) -> io::Result<Vec<u8>>;
    /// The files that the pattern of an `include` matches. An error comes with the path it is
    /// about.
    fn glob(&self, pattern: &OsStr) -> Result<Vec<PathBuf>, (PathBuf, io::Error)>;
    /// The value of an environment variable.
    fn variable(&self, name: &OsStr) -> Option<OsString>;
    /// A user's id and primary group id.
    fn user(&self, name: &str) -> Option<(u32, u32)>;
    /// A group's id.
    fn group(&self, name: &str) -> Option<u32>;
    /// The port of a service.
    fn service(&self, name: &str) -> Option<u16>;
    /// Replaces `%o` by the name of the kind of system.
    fn expand_system_type(&self, text: &str) -> String;
    /// True if the file is executable.
    fn is_executable(&self, path: &Path) -> bool;
    /// True for a directory.
    fn is_directory(&self, path: &Path) -> bool;
    /// True if several sockets can share a port and the system spreads connections over them.
    fn can_share_port(&self) -> bool;
    /// True if the system has the TCP user timeout.
    fn has_user_timeout(&self) -> bool;
    /// Whether names can be looked up while the relay runs.
    fn can_look_up(&self) -> Possible;
    /// Compiles a PCRE2 expression to see whether it is one. The error says what is wrong.
    fn check_pattern(&self, pattern: &[u8]) -> Result<(), String>;
    /// Applies effects before C code reads on, so that it finds everything that the text has set so
    /// far. Only used for that; otherwise the parser's caller applies the effects.
    fn apply(&self, effects: Vec<Effect>);
}

/// Whether names can be looked up while the relay runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Possible {
    /// They can be.
    Yes,
    /// There is no resolver that does not block.
    No,
}

/// Reads a source by its name.
pub fn open(name: &str, system: &dyn System) -> io::Result<Source> {
    let text = system.source(name)?;
    // C readers keep the length in an int.
    if text.len() > i32::MAX as usize {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Source::new(name, text))
}

/// An empty system: no files, users or variables.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl System for Nowhere {
    fn source(&self, _: &str) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn glob(&self, pattern: &OsStr) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
        Err((pattern.into(), io::ErrorKind::NotFound.into()))
    }

    fn variable(&self, _: &OsStr) -> Option<OsString> {
        None
    }

    fn user(&self, _: &str) -> Option<(u32, u32)> {
        None
    }

    fn group(&self, _: &str) -> Option<u32> {
        None
    }

    fn service(&self, _: &str) -> Option<u16> {
        None
    }

    fn expand_system_type(&self, text: &str) -> String {
        text.to_owned()
    }

    fn is_executable(&self, _: &Path) -> bool {
        false
    }

    fn is_directory(&self, _: &Path) -> bool {
        false
    }

    fn can_share_port(&self) -> bool {
        true
    }

    fn has_user_timeout(&self) -> bool {
        true
    }

    fn can_look_up(&self) -> Possible {
        Possible::Yes
    }

    fn check_pattern(&self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, _: Vec<Effect>) {}
}

/// The environment as the text sees it: changes by `setenv` and `unsetenv` so far, on top of the
/// process's environment.
#[derive(Debug, Default)]
pub(super) struct Overlay(RefCell<HashMap<OsString, Option<OsString>>>);

impl Overlay {
    pub(super) fn set(&self, name: &str, value: Option<&str>) {
        self.0.borrow_mut().insert(name.into(), value.map(OsString::from));
    }

    pub(super) fn get(&self, name: &OsStr, system: &dyn System) -> Option<OsString> {
        match self.0.borrow().get(name) {
            Some(set) => set.clone(),
            None => system.variable(name),
        }
    }

    /// Forgets the changes: the caller applies them to the process's environment.
    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

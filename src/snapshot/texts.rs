//! The texts that a configuration consists of, read once: what was checked is what the next image of
//! the broker and its workers parse, whatever becomes of the files meanwhile.

use crate::os::files::{self, GlobError};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Sources by their names, and what patterns of includes have matched; failures as errno.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    sources: BTreeMap<OsString, Result<Vec<u8>, i32>>,
    patterns: BTreeMap<OsString, Result<Vec<PathBuf>, i32>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Snapshot>> = const { RefCell::new(None) };
}

/// From here on what is known is not read again, and what is read is remembered.
pub fn enter(known: Snapshot) {
    CURRENT.set(Some(known));
}

/// What is known so far.
pub fn current() -> Option<Snapshot> {
    CURRENT.with_borrow(Clone::clone)
}

/// Files are read as they are from here on.
pub fn leave() {
    CURRENT.set(None);
}

/// The text of a source, which is read if it is not known.
pub(crate) fn text(name: &str, read: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    // A name in the broker's memory stands for what it has put there now.
    if name.starts_with("ipc://") {
        return read();
    }
    let key = key(OsStr::new(name));
    if let Some(known) = known(|snapshot| snapshot.sources.get(&key).cloned()) {
        return known.map_err(io::Error::from_raw_os_error);
    }
    let text = read();
    // A server that does not answer is no part of a configuration.
    match (&text, text.as_ref().err().and_then(io::Error::raw_os_error)) {
        (Ok(text), _) => remember(|snapshot| snapshot.sources.insert(key, Ok(text.clone()))),
        (Err(_), Some(errno)) => {
            remember(|snapshot| snapshot.sources.insert(key, Err(errno)));
        }
        (Err(_), None) => {}
    }
    text
}

/// The files that a pattern matches.
pub(crate) fn glob(pattern: &OsStr) -> Result<Vec<PathBuf>, GlobError> {
    let key = key(pattern);
    let fail = |errno: i32| {
        let error = io::Error::from_raw_os_error(errno);
        GlobError { path: PathBuf::from(pattern), error }
    };
    if let Some(known) = known(|snapshot| snapshot.patterns.get(&key).cloned()) {
        return known.map_err(fail);
    }
    let found = files::glob(pattern);
    let outcome = match &found {
        Ok(paths) => Ok(paths.clone()),
        Err(failure) => Err(failure.error.raw_os_error().unwrap_or(libc::ENOENT)),
    };
    remember(|snapshot| snapshot.patterns.insert(key, outcome));
    found
}

fn known<T>(look: impl FnOnce(&Snapshot) -> Option<T>) -> Option<T> {
    CURRENT.with_borrow(|current| current.as_ref().and_then(look))
}

fn remember<T>(add: impl FnOnce(&mut Snapshot) -> T) {
    CURRENT.with_borrow_mut(|current| drop(current.as_mut().map(add)));
}

/// Workers may be in another directory, where the same name is another file.
fn key(name: &OsStr) -> OsString {
    if memchr::memmem::find(name.as_bytes(), b"://").is_some() {
        return name.to_owned();
    }
    std::path::absolute(name).map_or_else(|_| name.to_owned(), PathBuf::into_os_string)
}

const MAGIC: &[u8] = b"tcprelay snapshot 1\n";

impl Snapshot {
    /// For another process.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = MAGIC.to_vec();
        let bytes = |data: &mut Vec<u8>, bytes: &[u8]| {
            data.extend((bytes.len() as u64).to_be_bytes());
            data.extend(bytes);
        };
        let outcome = |data: &mut Vec<u8>, errno: Option<i32>| {
            data.extend(errno.unwrap_or(0).to_be_bytes());
        };
        data.extend((self.sources.len() as u64).to_be_bytes());
        for (name, text) in &self.sources {
            bytes(&mut data, name.as_bytes());
            outcome(&mut data, text.as_ref().err().copied());
            bytes(&mut data, text.as_deref().unwrap_or_default());
        }
        for (pattern, paths) in &self.patterns {
            bytes(&mut data, pattern.as_bytes());
            outcome(&mut data, paths.as_ref().err().copied());
            let paths = paths.as_deref().unwrap_or_default();
            data.extend((paths.len() as u64).to_be_bytes());
            for path in paths {
                bytes(&mut data, path.as_os_str().as_bytes());
            }
        }
        data
    }

    /// Reads what [`encode`](Self::encode) has written; `None` if it is something else.
    pub fn decode(data: &[u8]) -> Option<Snapshot> {
        let mut reader = Reader(data.strip_prefix(MAGIC)?);
        let mut snapshot = Snapshot::default();
        for _ in 0..reader.number()? {
            let name = reader.name()?;
            let errno = reader.errno()?;
            let text = reader.bytes()?.to_vec();
            snapshot.sources.insert(name, if errno == 0 { Ok(text) } else { Err(errno) });
        }
        while !reader.0.is_empty() {
            let pattern = reader.name()?;
            let errno = reader.errno()?;
            let mut paths = Vec::new();
            for _ in 0..reader.number()? {
                paths.push(reader.name()?.into());
            }
            snapshot.patterns.insert(pattern, if errno == 0 { Ok(paths) } else { Err(errno) });
        }
        Some(snapshot)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn number(&mut self) -> Option<usize> {
        usize::try_from(u64::from_be_bytes(self.take(8)?.try_into().ok()?)).ok()
    }

    fn errno(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length)
    }

    fn name(&mut self) -> Option<OsString> {
        self.bytes().map(|bytes| OsString::from_vec(bytes.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.sources.insert("/a".into(), Ok(b"text".to_vec()));
        snapshot.sources.insert("/b".into(), Err(libc::EACCES));
        snapshot.patterns.insert("/*".into(), Ok(vec!["/a".into(), "/b".into()]));
        snapshot.patterns.insert("/x*".into(), Err(libc::ENOENT));
        snapshot
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(Snapshot::decode(&snapshot().encode()), Some(snapshot()));
    }

    #[test]
    fn what_was_read_is_not_read_again() {
        enter(Snapshot::default());
        assert_eq!(text("name", || Ok(b"first".to_vec())).unwrap(), b"first");
        assert_eq!(text("name", || Ok(b"second".to_vec())).unwrap(), b"first");
        leave();
        assert_eq!(text("name", || Ok(b"second".to_vec())).unwrap(), b"second");
    }

    proptest! {
        #[test]
        fn damage_is_survived(at in 0usize..200, byte in 0u8..) {
            let mut data = snapshot().encode();
            let at = at % data.len();
            data[at] = byte;
            let _ = Snapshot::decode(&data);
            let _ = Snapshot::decode(&data[..at]);
        }
    }
}

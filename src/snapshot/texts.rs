//! The texts of a configuration, as one process passes them to another.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Sources by name, and the files that each `include` pattern matched; or why they could not be
/// read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub(super) sources: BTreeMap<OsString, Result<Vec<u8>, Failure>>,
    pub(super) patterns: BTreeMap<OsString, Result<Vec<PathBuf>, Failure>>,
    /// The workers' directory, which relative names start from; `None` if it is the broker's.
    pub(super) directory: Option<PathBuf>,
    /// Everything that workers will ask for is here.
    pub complete: bool,
    /// The broker's access list, encoded, for workers that apply it to the addresses in PROXY
    /// headers.
    pub access: Vec<u8>,
    /// The broker's limits of clients, for the same.
    pub client_limits: Vec<u8>,
}

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Errno(i32),
    Other(String),
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Failure {
        match error.raw_os_error() {
            Some(errno) if errno > 0 => Failure::Errno(errno),
            _ => Failure::Other(error.to_string()),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        match failure {
            Failure::Errno(errno) => io::Error::from_raw_os_error(errno),
            Failure::Other(text) => io::Error::other(text),
        }
    }
}

const MAGIC: &[u8] = b"tcprelay snapshot 4\n";
/// Used in place of an errno.
const NO_FAILURE: i32 = 0;
const OTHER_FAILURE: i32 = -1;

impl Texts {
    /// Encodes the texts for another process.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = MAGIC.to_vec();
        let bytes = |data: &mut Vec<u8>, bytes: &[u8]| {
            data.extend((bytes.len() as u64).to_be_bytes());
            data.extend(bytes);
        };
        let failure = |data: &mut Vec<u8>, failure: Option<&Failure>| {
            let errno = match failure {
                None => NO_FAILURE,
                Some(Failure::Errno(errno)) => *errno,
                Some(Failure::Other(_)) => OTHER_FAILURE,
            };
            data.extend(errno.to_be_bytes());
            if let Some(Failure::Other(text)) = failure {
                bytes(data, text.as_bytes());
            }
        };
        data.push(self.complete.into());
        let directory = self.directory.as_deref().map(|path| path.as_os_str().as_bytes());
        bytes(&mut data, directory.unwrap_or_default());
        bytes(&mut data, &self.access);
        bytes(&mut data, &self.client_limits);
        data.extend((self.sources.len() as u64).to_be_bytes());
        for (name, text) in &self.sources {
            bytes(&mut data, name.as_bytes());
            failure(&mut data, text.as_ref().err());
            bytes(&mut data, text.as_deref().unwrap_or_default());
        }
        for (pattern, paths) in &self.patterns {
            bytes(&mut data, pattern.as_bytes());
            failure(&mut data, paths.as_ref().err());
            let paths = paths.as_deref().unwrap_or_default();
            data.extend((paths.len() as u64).to_be_bytes());
            for path in paths {
                bytes(&mut data, path.as_os_str().as_bytes());
            }
        }
        data
    }

    /// Decodes what [`encode`](Self::encode) wrote; `None` if the data is malformed.
    pub fn decode(data: &[u8]) -> Option<Texts> {
        let mut reader = Cursor(data.strip_prefix(MAGIC)?);
        let complete = reader.take(1)?[0] != 0;
        let directory = reader.name()?;
        let directory = (!directory.is_empty()).then(|| directory.into());
        let access = reader.bytes()?.to_vec();
        let client_limits = reader.bytes()?.to_vec();
        let mut texts = Texts { complete, directory, access, client_limits, ..Texts::default() };
        for _ in 0..reader.number()? {
            let name = reader.name()?;
            let failure = reader.failure()?;
            let text = reader.bytes()?.to_vec();
            texts.sources.insert(name, failure.map_or(Ok(text), Err));
        }
        while !reader.0.is_empty() {
            let pattern = reader.name()?;
            let failure = reader.failure()?;
            let mut paths = Vec::new();
            for _ in 0..reader.number()? {
                paths.push(reader.name()?.into());
            }
            texts.patterns.insert(pattern, failure.map_or(Ok(paths), Err));
        }
        Some(texts)
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn number(&mut self) -> Option<usize> {
        usize::try_from(u64::from_be_bytes(self.take(8)?.try_into().ok()?)).ok()
    }

    fn failure(&mut self) -> Option<Option<Failure>> {
        Some(match i32::from_be_bytes(self.take(4)?.try_into().ok()?) {
            NO_FAILURE => None,
            OTHER_FAILURE => {
                Some(Failure::Other(String::from_utf8_lossy(self.bytes()?).into_owned()))
            }
            errno => Some(Failure::Errno(errno)),
        })
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

    fn texts() -> Texts {
        let mut texts =
            Texts { complete: true, directory: Some("/there".into()), ..Texts::default() };
        texts.sources.insert("/a".into(), Ok(b"text".to_vec()));
        texts.sources.insert("/b".into(), Err(Failure::Errno(libc::EACCES)));
        texts.sources.insert("http://c".into(), Err(Failure::Other("no answer".into())));
        texts.patterns.insert("/*".into(), Ok(vec!["/a".into(), "/b".into()]));
        texts.patterns.insert("/x*".into(), Err(Failure::Errno(libc::ENOENT)));
        texts
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(Texts::decode(&texts().encode()), Some(texts()));
        let nothing = Texts::default();
        assert_eq!(Texts::decode(&nothing.encode()), Some(nothing));
    }

    proptest! {
        #[test]
        fn damage_is_survived(at in 0usize..300, byte in 0u8..) {
            let mut data = texts().encode();
            let at = at % data.len();
            data[at] = byte;
            let _ = Texts::decode(&data);
            let _ = Texts::decode(&data[..at]);
        }
    }
}

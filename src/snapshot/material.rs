//! The files that TLS needs, read once, by a process with the rights to read them.

use crate::os::secret::Secret;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Maximum bytes of one file: bundles of authorities have some 200 KiB, revocation lists a few MiB.
const MOST: u64 = 16 << 20;
/// Maximum bytes of all files: workers get them over their channels.
const MOST_TOGETHER: usize = 32 << 20;

/// File contents by path. The content of a directory is that of all PEM files in it, concatenated.
#[derive(Debug, Default)]
pub struct Material {
    /// Keyed by `OsString`, because to `Path`, a trailing slash makes no difference.
    files: BTreeMap<OsString, Secret>,
    /// Total bytes of the contents.
    length: usize,
}

impl Material {
    /// Reads a file or directory, unless it has been read before.
    pub fn read(&mut self, path: &Path) -> io::Result<()> {
        if !self.files.contains_key(path.as_os_str()) {
            let content = read(path)?;
            self.length += content.len();
            if self.length > MOST_TOGETHER {
                return Err(io::Error::other("the files are too large together"));
            }
            self.files.insert(path.into(), content);
        }
        Ok(())
    }

    /// Reads a file, unless it has been read before. A directory is an error.
    pub fn read_file(&mut self, path: &Path) -> io::Result<()> {
        if self.get(path).is_none() && fs::metadata(path)?.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        self.read(path)
    }

    /// The content of a file that has been read.
    pub fn get(&self, path: &Path) -> Option<&[u8]> {
        self.files.get(path.as_os_str()).map(|content| &**content)
    }

    /// Encodes it for another process: `head`, then the path and content of each file, each
    /// preceded by its length in four bytes.
    pub fn encode(&self, head: &[u8]) -> io::Result<Secret> {
        let fields = || self.files.iter().flat_map(|(path, content)| [path.as_bytes(), content]);
        let length: usize = fields().map(|field| 4 + field.len()).sum();
        let mut data = Secret::zeroed(head.len() + length)?;
        data[..head.len()].copy_from_slice(head);
        let mut at = head.len();
        for field in fields() {
            data[at..at + 4].copy_from_slice(&(field.len() as u32).to_be_bytes());
            data[at + 4..at + 4 + field.len()].copy_from_slice(field);
            at += 4 + field.len();
        }
        Ok(data)
    }

    /// Decodes what [`encode`](Self::encode) wrote after its head; `None` if the data is malformed.
    pub fn decode(mut rest: &[u8]) -> Option<Material> {
        let mut field = || -> Option<&[u8]> {
            let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
            let value = rest.get(4..)?.get(..length)?;
            rest = &rest[4 + length..];
            Some(value)
        };
        let mut material = Material::default();
        while let Some(path) = field() {
            let path = OsString::from_vec(path.to_vec());
            material.files.insert(path, Secret::copy(field()?).ok()?);
        }
        rest.is_empty().then_some(material)
    }
}

fn read(path: &Path) -> io::Result<Secret> {
    if !fs::metadata(path)?.is_dir() {
        return read_file(path);
    }
    let mut names: Vec<PathBuf> = fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    names.sort();
    let mut parts = Vec::new();
    for name in names {
        // Skip dangling links and subdirectories.
        if fs::metadata(&name).is_ok_and(|found| found.is_file()) {
            let content = read_file(&name)?;
            if memchr::memmem::find(&content, b"-----BEGIN ").is_some() {
                parts.push(content);
            }
        }
    }
    let mut all = Secret::zeroed(parts.iter().map(|part| part.len() + 1).sum())?;
    let mut at = 0;
    for part in &parts {
        all[at..at + part.len()].copy_from_slice(part);
        all[at + part.len()] = b'\n';
        at += part.len() + 1;
    }
    Ok(all)
}

fn read_file(path: &Path) -> io::Result<Secret> {
    // O_NONBLOCK: do not wait for a writer if it is a FIFO.
    let mut file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MOST {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    // Read straight into the secret, so that no copy stays in memory.
    let mut content = Secret::zeroed(metadata.len() as usize)?;
    file.read_exact(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slash_at_the_end_makes_another_name() {
        let mut material = Material::default();
        for (path, content) in [("z", b"file"), ("z/", b"more")] {
            material.files.insert(path.into(), Secret::copy(content).unwrap());
        }
        let data = material.encode(b"head").unwrap();
        let copy = Material::decode(&data[4..]).expect("what was encoded");
        assert_eq!(copy.get(Path::new("z")), Some(&b"file"[..]));
        assert_eq!(copy.get(Path::new("z/")), Some(&b"more"[..]));
    }

    proptest! {
        #[test]
        fn another_process_gets_the_same(
            files in prop::collection::btree_map("[a-z/]{1,20}", prop::collection::vec(any::<u8>(), 0..300), 0..5),
        ) {
            let mut material = Material::default();
            for (path, content) in &files {
                material.files.insert(path.into(), Secret::copy(content).unwrap());
            }
            let data = material.encode(&[]).unwrap();
            let copy = Material::decode(&data).expect("what was encoded");
            for (path, content) in &files {
                prop_assert_eq!(copy.get(Path::new(path)), Some(&content[..]));
            }
        }

        #[test]
        fn decoding_never_panics(data in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Material::decode(&data);
        }
    }
}

//! The files that TLS needs, read once, by a process with the rights to read them.

use crate::os::hash::Fnv;
use crate::os::secret::Secret;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
    keys: Keys,
}

/// The name of a private key: a digest of its public half.
pub type KeyName = [u8; 32];

/// Where the private keys are.
#[derive(Debug, Default)]
enum Keys {
    /// In the files.
    #[default]
    InFiles,
    /// Here, and not in the files any more; and which of them are shown to remotes.
    Apart(BTreeMap<KeyName, Secret>, BTreeSet<KeyName>),
    /// In another process.
    Elsewhere,
}

/// Begins the names of entries that are no files: no path has a NUL. Ends that of a key that is shown
/// to remotes.
const NO_FILE: u8 = 0;
const FOR_REMOTES: u8 = 1;

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

    /// Replaces the contents of files by what `public` leaves of them, and keeps the private keys
    /// apart. `for_remotes`: which of them are shown to remotes.
    pub fn set_apart(
        &mut self,
        keys: BTreeMap<KeyName, Secret>,
        for_remotes: BTreeSet<KeyName>,
        mut public: impl FnMut(&Path, &[u8]) -> Option<Vec<u8>>,
    ) -> io::Result<()> {
        for (path, content) in &mut self.files {
            if let Some(left) = public(Path::new(path), content) {
                *content = Secret::copy(&left)?;
            }
        }
        self.keys = Keys::Apart(keys, for_remotes);
        Ok(())
    }

    /// The private keys that are kept apart, PKCS #8.
    pub fn keys(&self) -> Option<&BTreeMap<KeyName, Secret>> {
        match &self.keys {
            Keys::Apart(keys, _) => Some(keys),
            Keys::InFiles | Keys::Elsewhere => None,
        }
    }

    /// True if another process has the private keys.
    pub fn is_public(&self) -> bool {
        matches!(self.keys, Keys::Elsewhere)
    }

    /// Encodes it for another process: `head`, then the path and content of each file, each
    /// preceded by its length in four bytes, then the keys that are kept apart.
    pub fn encode(&self, head: &[u8]) -> io::Result<Secret> {
        self.encode_some(head, |_| true)
    }

    /// As [`encode`](Self::encode), of the keys that are kept apart only those for remotes: a monitor
    /// shows no other to anybody.
    pub fn encode_for_monitor(&self, head: &[u8]) -> io::Result<Secret> {
        self.encode_some(head, |for_remotes| for_remotes)
    }

    fn encode_some(&self, head: &[u8], wanted: fn(bool) -> bool) -> io::Result<Secret> {
        let mut named = Vec::new();
        if let Keys::Apart(keys, for_remotes) = &self.keys {
            for (name, key) in keys {
                let shown = for_remotes.contains(name);
                if wanted(shown) {
                    let end: &[u8] = if shown { &[FOR_REMOTES] } else { &[] };
                    named.push(([&[NO_FILE], &name[..], end].concat(), key));
                }
            }
        }
        self.encode_fields(head, named.iter().flat_map(|(name, key)| [&name[..], key]))
    }

    /// As [`encode`](Self::encode), without the keys that are kept apart.
    pub fn encode_public(&self, head: &[u8]) -> io::Result<Secret> {
        match self.keys {
            Keys::InFiles => self.encode(head),
            Keys::Apart(..) | Keys::Elsewhere => {
                self.encode_fields(head, [&[NO_FILE][..], &[]].into_iter())
            }
        }
    }

    fn encode_fields<'a>(
        &'a self,
        head: &[u8],
        more: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> io::Result<Secret> {
        let fields = || {
            let files = self.files.iter().flat_map(|(path, content)| [path.as_bytes(), content]);
            files.chain(more.clone())
        };
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
        while let Some(name) = field() {
            match name.split_first() {
                Some((&NO_FILE, [])) => {
                    field()?;
                    material.keys = Keys::Elsewhere;
                }
                Some((&NO_FILE, name)) => {
                    let (name, end): (&KeyName, _) = name.split_first_chunk()?;
                    let key = Secret::copy(field()?).ok()?;
                    if !matches!(material.keys, Keys::Apart(..)) {
                        material.keys = Keys::Apart(BTreeMap::new(), BTreeSet::new());
                    }
                    if let Keys::Apart(keys, for_remotes) = &mut material.keys {
                        keys.insert(*name, key);
                        if end == [FOR_REMOTES] {
                            for_remotes.insert(*name);
                        }
                    }
                }
                _ => {
                    let path = OsString::from_vec(name.to_vec());
                    material.files.insert(path, Secret::copy(field()?).ok()?);
                }
            }
        }
        rest.is_empty().then_some(material)
    }
}

/// Which files there are, and what they look like from outside, as hashes that the next image
/// computes alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// Their names.
    pub names: u64,
    /// Their inodes, sizes and times of change; those in directories included.
    pub stamps: u64,
}

impl Material {
    /// How the files look now.
    pub fn looks(&self) -> Looks {
        let [mut names, mut stamps] = [Fnv::default(), Fnv::default()];
        for path in self.files.keys() {
            add_path(Path::new(path), &mut names);
            stamp(Path::new(path), &mut stamps);
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            entries.sort();
            entries.iter().for_each(|entry| stamp(entry, &mut stamps));
        }
        Looks { names: names.finish(), stamps: stamps.finish() }
    }
}

/// A link is followed: it may lead somewhere else now.
fn stamp(path: &Path, stamps: &mut Fnv) {
    add_path(path, stamps);
    // A file that is missing has nothing behind its name.
    let Ok(found) = fs::metadata(path) else {
        return;
    };
    let numbers = [
        found.dev() as i64,
        found.ino() as i64,
        found.size() as i64,
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ];
    numbers.iter().for_each(|number| stamps.add(&number.to_le_bytes()));
}

/// Adds a path, and where it ends.
fn add_path(path: &Path, hash: &mut Fnv) {
    hash.add(path.as_os_str().as_bytes());
    hash.add(&[0]);
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

    #[test]
    fn the_next_image_sees_the_same_looks() {
        let mut material = Material::default();
        material.files.insert("/nowhere/key.pem".into(), Secret::copy(b"").unwrap());
        let hash = 0x78d1_d858_e160_2e20;
        assert_eq!(material.looks(), Looks { names: hash, stamps: hash });
    }

    #[test]
    fn keys_go_to_whom_they_are_meant_for() {
        let mut material = Material::default();
        material.files.insert("a".into(), Secret::copy(b"both").unwrap());
        assert!(material.keys().is_none() && !material.is_public());
        let keys = BTreeMap::from([([7; 32], Secret::copy(b"private").unwrap())]);
        let (mut keys, for_remotes) = (keys, BTreeSet::from([[8; 32]]));
        keys.insert([8; 32], Secret::copy(b"remote's").unwrap());
        material.set_apart(keys, for_remotes, |_, _| Some(b"public".to_vec())).unwrap();
        let data = material.encode(&[]).unwrap();
        let next = Material::decode(&data).expect("what was encoded");
        assert_eq!(&*next.keys().expect("the keys")[&[7; 32]], b"private");
        assert_eq!(next.get(Path::new("a")), Some(&b"public"[..]));
        // Those for remotes are known after any number of copies.
        let data = next.encode_for_monitor(&[]).unwrap();
        assert!(memchr::memmem::find(&data, b"private").is_none());
        let monitor = Material::decode(&data).expect("what was encoded");
        assert_eq!(monitor.keys().expect("keys").keys().collect::<Vec<_>>(), [&[8; 32]]);
        let data = next.encode_public(&[]).unwrap();
        assert!(memchr::memmem::find(&data, b"private").is_none());
        let worker = Material::decode(&data).expect("what was encoded");
        assert!(worker.is_public() && worker.keys().is_none());
        assert_eq!(worker.get(Path::new("a")), Some(&b"public"[..]));
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

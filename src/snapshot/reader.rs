//! Reads the texts of a configuration, each one once.

use super::fetch::fetch;
use super::texts::{Failure, Texts};
use crate::os::files;
use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The source of a configuration's texts.
#[derive(Debug)]
pub struct Reader(Origin);

#[derive(Debug)]
enum Origin {
    /// The files, read again each time.
    Files,
    /// The files, each read only once.
    Once(RefCell<Texts>),
    /// What another process has read, and nothing else.
    Sealed(Texts),
}

impl Reader {
    /// Reads a file each time it is asked for.
    pub fn direct() -> Reader {
        Reader(Origin::Files)
    }

    /// Reads each file once and remembers it.
    pub fn recording() -> Reader {
        Reader(Origin::Once(RefCell::default()))
    }

    /// For the next image of the broker, which is in the same directory as the former one.
    pub fn of_image(texts: Texts) -> Reader {
        Reader::inherited(Texts { directory: None, ..texts })
    }

    /// For a worker, whose directory may differ from the broker's.
    pub fn of_worker(texts: Texts) -> Reader {
        Reader::inherited(texts)
    }

    /// Starts with the texts that another process has read. If they are not complete, reads others
    /// here, once.
    fn inherited(texts: Texts) -> Reader {
        match texts.complete {
            true => Reader(Origin::Sealed(texts)),
            false => Reader(Origin::Once(RefCell::new(texts))),
        }
    }

    /// True if no more files are read.
    pub fn is_sealed(&self) -> bool {
        matches!(self.0, Origin::Sealed(_))
    }

    /// True if everything that workers will ask for has been read.
    pub fn is_complete(&self) -> bool {
        match &self.0 {
            Origin::Files => false,
            Origin::Once(texts) => texts.borrow().complete,
            Origin::Sealed(_) => true,
        }
    }

    /// The texts read so far.
    pub fn texts(&self) -> Texts {
        match &self.0 {
            Origin::Files => Texts::default(),
            Origin::Once(texts) => texts.borrow().clone(),
            Origin::Sealed(texts) => texts.clone(),
        }
    }

    /// Sets the directory, an absolute path, that relative names start from, both here from now on
    /// and in workers.
    pub fn set_directory(&self, directory: Option<PathBuf>) {
        if let Origin::Once(texts) = &self.0 {
            texts.borrow_mut().directory = directory;
        }
    }

    /// Gives workers the broker's access list and its limits of clients, encoded.
    pub fn set_access(&self, list: Vec<u8>, client_limits: Vec<u8>) {
        if let Origin::Once(texts) = &self.0 {
            let mut texts = texts.borrow_mut();
            (texts.access, texts.client_limits) = (list, client_limits);
        }
    }

    /// The broker's access list, encoded; empty if workers need none.
    pub fn access(&self) -> Vec<u8> {
        match &self.0 {
            Origin::Files => Vec::new(),
            Origin::Once(texts) => texts.borrow().access.clone(),
            Origin::Sealed(texts) => texts.access.clone(),
        }
    }

    /// The broker's limits of clients, encoded; empty if there is nobody to tell them.
    pub fn client_limits(&self) -> Vec<u8> {
        match &self.0 {
            Origin::Files => Vec::new(),
            Origin::Once(texts) => texts.borrow().client_limits.clone(),
            Origin::Sealed(texts) => texts.client_limits.clone(),
        }
    }

    /// Records that everything that workers will ask for has been read.
    pub fn complete(&self) {
        if let Origin::Once(texts) = &self.0 {
            texts.borrow_mut().complete = true;
        }
    }

    /// The text of a source.
    pub fn source(&self, name: &str) -> io::Result<Vec<u8>> {
        match &self.0 {
            Origin::Files => fetch(name),
            Origin::Once(texts) => {
                let directory = texts.borrow().directory.clone();
                let key = key(OsStr::new(name), directory.as_deref());
                if let Some(known) = texts.borrow().sources.get(&key) {
                    return known.clone().map_err(io::Error::from);
                }
                let text = match &directory {
                    Some(_) => fetch(&key.to_string_lossy()),
                    None => fetch(name),
                };
                let kept = text.as_ref().map(Clone::clone).map_err(Failure::from);
                texts.borrow_mut().sources.insert(key, kept);
                text
            }
            Origin::Sealed(texts) => {
                let key = key(OsStr::new(name), texts.directory.as_deref());
                let known = texts.sources.get(&key).ok_or_else(unknown)?;
                known.clone().map_err(io::Error::from)
            }
        }
    }

    /// The files that a pattern matches. An error comes with the path it is about.
    pub fn glob(&self, pattern: &OsStr) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
        match &self.0 {
            Origin::Files => files::glob(pattern).map_err(|failure| (failure.path, failure.error)),
            Origin::Once(texts) => {
                let directory = texts.borrow().directory.clone();
                let key = key(pattern, directory.as_deref());
                if let Some(known) = texts.borrow().patterns.get(&key) {
                    return known.clone().map_err(|failure| (pattern.into(), failure.into()));
                }
                let found = find(pattern, directory.as_deref());
                let kept = found.as_ref().map(Clone::clone).map_err(|(_, error)| error.into());
                texts.borrow_mut().patterns.insert(key, kept);
                found
            }
            Origin::Sealed(texts) => {
                let key = key(pattern, texts.directory.as_deref());
                let known = texts.patterns.get(&key).ok_or_else(|| (pattern.into(), unknown()))?;
                known.clone().map_err(|failure| (pattern.into(), failure.into()))
            }
        }
    }
}

/// glob(3) as if run in `directory`: the matches of a relative pattern are relative as well.
fn find(pattern: &OsStr, directory: Option<&Path>) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let Some(directory) = directory.filter(|_| Path::new(pattern).is_relative()) else {
        return files::glob(pattern).map_err(|failure| (failure.path, failure.error));
    };
    let short = |path: PathBuf| match path.strip_prefix(directory) {
        Ok(rest) => rest.to_owned(),
        Err(_) => path,
    };
    match files::glob(directory.join(pattern).as_os_str()) {
        Ok(paths) => Ok(paths.into_iter().map(short).collect()),
        Err(failure) => Err((short(failure.path), failure.error)),
    }
}

fn unknown() -> io::Error {
    io::Error::other("not a part of the configuration that was checked")
}

/// The key of a name in the tables: an absolute path, because workers may be in another directory,
/// where the same relative name is another file.
fn key(name: &OsStr, directory: Option<&Path>) -> OsString {
    if memchr::memmem::find(name.as_bytes(), b"://").is_some() {
        return name.to_owned();
    }
    let path = directory.map_or_else(|| PathBuf::from(name), |directory| directory.join(name));
    std::path::absolute(&path).map_or_else(|_| name.to_owned(), PathBuf::into_os_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_read_is_not_read_again() {
        let folder = std::env::temp_dir().join(format!("snapshot-reader-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("a.cfg");
        let pattern = folder.join("*.cfg");
        let reader = Reader::recording();
        fs::write(&file, "first").expect("a file");
        let name = file.to_str().expect("a name");
        assert_eq!(reader.source(name).expect("the text"), b"first");
        assert_eq!(reader.glob(pattern.as_os_str()).expect("a file"), [file.as_path()]);
        reader.complete();
        fs::write(&file, "second").expect("a file");
        fs::write(folder.join("b.cfg"), "more").expect("a file");
        let sealed = Reader::inherited(reader.texts());
        for reader in [&reader, &sealed] {
            assert_eq!(reader.source(name).expect("the text"), b"first");
            assert_eq!(reader.glob(pattern.as_os_str()).expect("a file"), [file.as_path()]);
        }
        assert_eq!(Reader::direct().source(name).expect("the text"), b"second");
        // A sealed reader does not read a file that it does not have.
        let other = folder.join("b.cfg");
        let other = other.to_str().expect("a name");
        let error = sealed.source(other).expect_err("nothing");
        assert!(error.to_string().contains("that was checked"), "{error}");
        assert!(sealed.glob(other.as_ref()).is_err());
        // A reader with incomplete texts does.
        let some = Reader::inherited(Texts { complete: false, ..reader.texts() });
        assert_eq!(some.source(other).expect("the text"), b"more");
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn relative_names_start_where_workers_are() {
        let folder = std::env::temp_dir().join(format!("snapshot-folder-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("a.part"), "there").expect("a file");
        let reader = Reader::recording();
        assert!(reader.source("a.part").is_err());
        reader.set_directory(Some(folder.clone()));
        for reader in [&reader, &{
            assert_eq!(reader.source("a.part").expect("the text"), b"there");
            assert_eq!(reader.glob("*.part".as_ref()).expect("a file"), [Path::new("a.part")]);
            reader.complete();
            Reader::inherited(reader.texts())
        }] {
            assert_eq!(reader.source("a.part").expect("the text"), b"there");
            assert_eq!(reader.glob("*.part".as_ref()).expect("a file"), [Path::new("a.part")]);
        }
        let _ = fs::remove_dir_all(folder);
    }
}

//! Names in directories that others may write to, for a process that may be root's. Looks a name up
//! in a directory that is held open, never follows a symbolic link, and touches a file only if it
//! is the expected one.

use super::check;
use crate::os::Listener;
use std::ffi::CString;
use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
#[cfg(any(test, target_os = "linux", target_os = "android", target_os = "freebsd"))]
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
#[cfg(not(target_os = "solaris"))]
use std::time::{Duration, Instant};
use std::{io, mem};

/// Identifies a file independently of its name. As long as the file exists, no other file has these
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The device that holds the file.
    pub device: u64,
    /// Its inode number on that device.
    pub inode: u64,
}

/// The permissions of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// The mode; `None` leaves it.
    pub mode: Option<u32>,
    /// The owner; `None` leaves it.
    pub uid: Option<u32>,
    /// The group; `None` leaves it.
    pub gid: Option<u32>,
}

/// The result of lstat(2) or fstat(2).
struct Status(libc::stat);

#[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
impl Status {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    fn of_descriptor(fd: &OwnedFd) -> io::Result<Status> {
        // SAFETY: stat is plain data, which fstat(2) fills; it outlives the call.
        unsafe {
            let mut status: libc::stat = mem::zeroed();
            check(libc::fstat(fd.as_raw_fd(), &mut status))?;
            Ok(Status(status))
        }
    }

    fn id(&self) -> FileId {
        FileId { device: self.0.st_dev as u64, inode: self.0.st_ino as u64 }
    }

    fn is_socket(&self) -> bool {
        self.0.st_mode & libc::S_IFMT == libc::S_IFSOCK
    }

    fn mode(&self) -> u32 {
        self.0.st_mode as u32 & 0o7777
    }

    /// A socket that belongs to this user and has no other name, so nobody else has put it here.
    fn is_own_socket(&self) -> bool {
        self.is_socket() && self.0.st_nlink == 1 && self.0.st_uid == super::process::identity().0
    }

    /// The part of `wanted` that the file does not have yet.
    fn missing(&self, wanted: Permissions) -> Permissions {
        Permissions {
            mode: wanted.mode.filter(|&mode| mode & 0o7777 != self.mode()),
            uid: wanted.uid.filter(|&uid| uid != self.0.st_uid),
            gid: wanted.gid.filter(|&gid| gid != self.0.st_gid),
        }
    }
}

/// A name in a directory.
#[derive(Debug)]
pub struct Entry {
    directory: File,
    name: CString,
}

/// A lock on a directory for adding and removing sockets, honoured by programs that ask for it.
#[derive(Debug)]
pub struct DirectoryLock<'a>(#[allow(dead_code, reason = "Solaris has no such lock")] &'a Entry);

/// How long to wait for another process to release the lock; nobody needs it for long.
#[cfg(not(target_os = "solaris"))]
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
#[cfg(not(target_os = "solaris"))]
const LOCK_PAUSE: Duration = Duration::from_millis(2);

impl Entry {
    /// The last component of a path, in its directory.
    pub fn of(path: &Path) -> io::Result<Entry> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let open = |flags| File::options().read(true).custom_flags(flags).open(parent);
        let directory = open(libc::O_DIRECTORY | libc::O_NONBLOCK);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // Files can be in a directory that we may not read.
        let directory = directory.or_else(|_| open(libc::O_DIRECTORY | libc::O_PATH));
        Ok(Entry { directory: directory?, name: CString::new(name.as_bytes())? })
    }

    fn status(&self) -> io::Result<Status> {
        // SAFETY: stat is plain data, which fstatat(2) fills; the name is NUL-terminated, and both
        // outlive the call.
        unsafe {
            let mut status: libc::stat = mem::zeroed();
            let fd = self.directory.as_raw_fd();
            let flags = libc::AT_SYMLINK_NOFOLLOW;
            check(libc::fstatat(fd, self.name.as_ptr(), &mut status, flags))?;
            Ok(Status(status))
        }
    }

    /// The file that has this name now, if it is a socket.
    pub fn socket(&self) -> Option<FileId> {
        self.status().ok().filter(Status::is_socket).map(|status| status.id())
    }

    /// Waits for the lock for adding and removing sockets in the directory. Anybody who may read
    /// the directory can hold it for ever, so after a while this continues without it.
    pub fn lock_directory(&self) -> DirectoryLock<'_> {
        #[cfg(not(target_os = "solaris"))]
        {
            let end = Instant::now() + LOCK_PATIENCE;
            // SAFETY: flock(2) takes plain numbers.
            while unsafe { libc::flock(self.directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }
                < 0
                && super::would_block(&io::Error::last_os_error())
                && Instant::now() < end
            {
                std::thread::sleep(LOCK_PAUSE);
            }
        }
        DirectoryLock(self)
    }

    /// Removes the name if it still belongs to `file`.
    pub fn remove(&self, file: FileId) -> io::Result<()> {
        if self.status()?.id() != file {
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: the name is NUL-terminated and outlives the call.
        check(unsafe { libc::unlinkat(self.directory.as_raw_fd(), self.name.as_ptr(), 0) })
            .map(drop)
    }

    /// The file of a bound socket. It is the file that the system reports; failing that, the file
    /// under this name, if it is the `known` one, or, with none known, if nobody but this user can
    /// have made it.
    pub fn bound_file(
        &self,
        socket: &Listener,
        known: Option<FileId>,
    ) -> io::Result<BoundFile<'_>> {
        let replaced = || io::Error::other("another file has taken the place of the socket");
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        {
            if let Some(node) = node_of(socket) {
                let status = Status::of_descriptor(&node)?;
                return Ok(BoundFile { entry: self, node, status });
            }
            let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            let fd = self.directory.as_raw_fd();
            // SAFETY: the name is NUL-terminated and outlives the call.
            let node = check(unsafe { libc::openat(fd, self.name.as_ptr(), flags) })?;
            let node = super::descriptor::own(node);
            let status = Status::of_descriptor(&node)?;
            match known.map_or_else(|| status.is_own_socket(), |known| known == status.id()) {
                true => Ok(BoundFile { entry: self, node, status }),
                false => Err(replaced()),
            }
        }
        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
        {
            let _ = socket;
            let status = self.status()?;
            match known.map_or_else(|| status.is_own_socket(), |known| known == status.id()) {
                true => Ok(BoundFile { entry: self, status }),
                false => Err(replaced()),
            }
        }
    }
}

impl DirectoryLock<'_> {
    /// Releases the lock.
    pub fn release(self) {}
}

#[cfg(not(target_os = "solaris"))]
impl Drop for DirectoryLock<'_> {
    fn drop(&mut self) {
        // SAFETY: flock(2) takes plain numbers.
        unsafe { libc::flock(self.0.directory.as_raw_fd(), libc::LOCK_UN) };
    }
}

/// Opens the file of a bound socket directly. Linux allows this to processes that may administer
/// networks.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn node_of(socket: &Listener) -> Option<OwnedFd> {
    /// linux/un.h
    const SIOCUNIXFILE: libc::c_ulong = 0x89e0;
    // SAFETY: this request takes no argument, and returns a new descriptor.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE as _) };
    (fd >= 0).then(|| super::descriptor::own(fd))
}

#[cfg(target_os = "freebsd")]
fn node_of(_socket: &Listener) -> Option<OwnedFd> {
    None
}

/// The file of a bound socket.
pub struct BoundFile<'a> {
    #[allow(dead_code, reason = "where the file itself cannot be opened")]
    entry: &'a Entry,
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    node: OwnedFd,
    status: Status,
}

/// Why permissions stay as they are: the call that failed, and its error.
pub type NotChanged = (&'static str, io::Error);

impl BoundFile<'_> {
    /// The device and inode that identify the file.
    pub fn id(&self) -> FileId {
        self.status.id()
    }

    /// Changes what differs from `wanted`, and nothing else. The mode comes first: afterwards a new
    /// owner can do with the file whatever they like.
    pub fn set_permissions(&self, wanted: Permissions) -> Result<(), NotChanged> {
        let missing = self.status.missing(wanted);
        if let Some(mode) = missing.mode {
            self.change_mode(mode).map_err(|error| ("chmod", error))?;
        }
        if missing.uid.is_some() || missing.gid.is_some() {
            self.change_owner(missing.uid, missing.gid).map_err(|error| ("chown", error))?;
        }
        Ok(())
    }
}

/// Linux can change a file's owner through a descriptor, and its mode through the descriptor's name
/// in /proc.
#[cfg(any(target_os = "linux", target_os = "android"))]
impl BoundFile<'_> {
    fn change_mode(&self, mode: u32) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let name = format!("/proc/self/fd/{}", self.node.as_raw_fd());
        std::fs::set_permissions(name, std::fs::Permissions::from_mode(mode))
    }

    fn change_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
        let fd = self.node.as_raw_fd();
        // SAFETY: the empty name is NUL-terminated; it stands for the descriptor itself.
        check(unsafe { libc::fchownat(fd, c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) }).map(drop)
    }
}

#[cfg(target_os = "freebsd")]
impl BoundFile<'_> {
    fn change_mode(&self, mode: u32) -> io::Result<()> {
        let fd = self.node.as_raw_fd();
        let mode = mode as libc::mode_t;
        // SAFETY: the empty name is NUL-terminated; it stands for the descriptor itself.
        check(unsafe { libc::fchmodat(fd, c"".as_ptr(), mode, libc::AT_EMPTY_PATH) }).map(drop)
    }

    fn change_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
        let fd = self.node.as_raw_fd();
        // SAFETY: as above.
        check(unsafe { libc::fchownat(fd, c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) }).map(drop)
    }
}

/// Systems that cannot open a socket's file. It is changed by name, only in directories where
/// nobody else can give the name to another file meanwhile.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
impl BoundFile<'_> {
    fn check_directory(&self) -> io::Result<()> {
        match is_guarded(&self.entry.directory.metadata()?) {
            true => Ok(()),
            false => Err(io::Error::other(
                "others may write to the directory, so nothing is changed there on this system",
            )),
        }
    }

    fn change_mode(&self, mode: u32) -> io::Result<()> {
        self.check_directory()?;
        let (fd, name) = (self.entry.directory.as_raw_fd(), self.entry.name.as_ptr());
        // SAFETY: the name is NUL-terminated and outlives the call.
        check(unsafe { libc::fchmodat(fd, name, mode as libc::mode_t, 0) }).map(drop)
    }

    fn change_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        self.check_directory()?;
        let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
        let (fd, name) = (self.entry.directory.as_raw_fd(), self.entry.name.as_ptr());
        // SAFETY: the name is NUL-terminated and outlives the call.
        check(unsafe { libc::fchownat(fd, name, uid, gid, libc::AT_SYMLINK_NOFOLLOW) }).map(drop)
    }
}

/// True if only root and this user can rename or remove this user's files in the directory.
fn is_guarded(directory: &Metadata) -> bool {
    let own = [0, super::process::identity().0].contains(&directory.uid());
    own && (directory.mode() & 0o022 == 0 || directory.mode() & 0o1000 != 0)
}

/// Opens a file for writing, and creates it if it does not exist. Only a regular file without other
/// names is accepted: through a link we would write to a file of somebody else's choice. Does not
/// truncate it.
pub fn open_to_write(path: &Path, mode: u32) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() == 1 {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file, or one that has other names as well"))
    }
}

/// Opens a log file as [`open_to_write`] does, and truncates it. Devices are accepted too, as only
/// root can create them.
pub fn open_log(path: &Path) -> io::Result<File> {
    let device = |metadata: Metadata| metadata.file_type().is_char_device();
    if std::fs::symlink_metadata(path).is_ok_and(device) {
        let flags = libc::O_NOFOLLOW | libc::O_NOCTTY;
        return File::options().write(true).custom_flags(flags).open(path);
    }
    let file = open_to_write(path, 0o666)?;
    file.set_len(0)?;
    Ok(file)
}

/// Opens a log file for appending, and creates it if it does not exist, as [`open_to_write`] does.
/// Devices and named pipes are accepted too.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    append_to(path, true)
}

/// Like [`open_to_append`], if the file exists.
pub fn open_existing_to_append(path: &Path) -> io::Result<File> {
    append_to(path, false)
}

fn append_to(path: &Path, create: bool) -> io::Result<File> {
    let file = File::options()
        .append(true)
        .create(create)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if kind.is_char_device() || kind.is_fifo() || metadata.is_file() && metadata.nlink() == 1 {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file, or one that has other names as well"))
    }
}

/// Changes the working directory. Refuses symbolic links, and directories where others could
/// replace what this process writes.
pub fn enter_directory(path: &Path) -> io::Result<()> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let directory = File::options().read(true).custom_flags(flags).open(path)?;
    if !is_guarded(&directory.metadata()?) {
        return Err(io::Error::other("the directory is another user's, or others may write to it"));
    }
    // SAFETY: fchdir(2) takes a plain number.
    check(unsafe { libc::fchdir(directory.as_raw_fd()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{symlink, PermissionsExt};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("tcprelay-entry-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn wanted(mode: u32) -> Permissions {
        Permissions { mode: Some(mode), ..Permissions::default() }
    }

    #[test]
    fn permissions_are_those_of_the_socket_and_of_nothing_else() {
        let folder = Folder::new("mode");
        let (path, victim) = (folder.0.join("socket"), folder.0.join("victim"));
        let socket = Listener::from(OwnedFd::from(UnixListener::bind(&path).unwrap()));
        let entry = Entry::of(&path).unwrap();
        let file = entry.bound_file(&socket, None).unwrap();
        let id = file.id();
        assert_eq!(Some(id), entry.socket());
        file.set_permissions(wanted(0o640)).unwrap();
        assert_eq!(mode(&path), 0o640);
        std::fs::write(&victim, "").unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&path, folder.0.join("moved")).unwrap();
        // A link, another file, another socket: none of them may be touched, whether its id is
        // known or not.
        for replace in [
            |path: &Path, victim: &Path| symlink(victim, path).unwrap(),
            |path: &Path, victim: &Path| std::fs::hard_link(victim, path).unwrap(),
            |path: &Path, _: &Path| drop(UnixListener::bind(path).unwrap()),
        ] {
            replace(&path, &victim);
            let before = mode(&path);
            if let Ok(file) = entry.bound_file(&socket, Some(id)) {
                // The system has reported the socket's own file, wherever it has been moved to.
                assert_eq!(file.id(), id);
                file.set_permissions(wanted(0o666)).unwrap();
            }
            assert_eq!((mode(&victim), mode(&path)), (0o600, before));
            assert!(entry.remove(id).is_err());
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_name_is_removed_only_with_its_file() {
        let folder = Folder::new("remove");
        let path = folder.0.join("socket");
        let _first = UnixListener::bind(&path).unwrap();
        let entry = Entry::of(&path).unwrap();
        let first = entry.socket().unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        assert!(entry.remove(first).is_err());
        assert!(entry.socket().is_some());
        entry.remove(entry.socket().unwrap()).unwrap();
        assert!(entry.socket().is_none());
    }

    #[test]
    fn only_a_plain_file_of_one_name_is_written() {
        let folder = Folder::new("write");
        let file = |name: &str| folder.0.join(name);
        std::fs::write(file("victim"), "precious").unwrap();
        symlink(file("victim"), file("symbolic")).unwrap();
        symlink(file("nowhere"), file("dangling")).unwrap();
        std::fs::hard_link(file("victim"), file("hard")).unwrap();
        nix::unistd::mkfifo(&file("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["symbolic", "dangling", "hard", "fifo"] {
            assert!(open_to_write(&file(name), 0o644).is_err(), "{name}");
        }
        assert!(!file("nowhere").exists());
        open_to_write(&file("new"), 0o600).unwrap();
        assert_eq!(std::fs::read(file("victim")).unwrap(), b"precious");
    }

    #[test]
    fn a_lock_that_is_kept_does_not_stop_anybody() {
        let folder = Folder::new("lock");
        let (one, other) = (folder.0.join("one"), folder.0.join("other"));
        let (one, other) = (Entry::of(&one).unwrap(), Entry::of(&other).unwrap());
        let kept = one.lock_directory();
        drop(other.lock_directory());
        drop(kept);
    }
}

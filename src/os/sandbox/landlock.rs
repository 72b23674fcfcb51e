//! Linux: restricts which files may be read (landlock(7)). Makes the system calls directly, as C
//! libraries have no functions for them.
//!
//! A restricted process cannot look into unrestricted ones (ptrace(2), /proc/PID/mem), whoever
//! their user is. Landlock does not restrict connecting to UNIX-domain sockets with a path.

use super::Needs;
use crate::os::{check, descriptor};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::{io, mem};

// linux/landlock.h. The numbers of these calls are the same on all processors.
const CREATE_RULESET: libc::c_long = 444;
const ADD_RULE: libc::c_long = 445;
pub(super) const RESTRICT_SELF: libc::c_long = 446;
const TELL_VERSION: libc::c_uint = 1;
const BENEATH: libc::c_int = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
/// All file rights of the first version; below, those of the second, third and fifth.
const FIRST: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
const ABSTRACT_SOCKETS: u64 = 1;

/// struct landlock_ruleset_attr; earlier versions take a prefix of it.
#[repr(C)]
struct Attributes {
    files: u64,
    network: u64,
    scope: u64,
}

/// struct landlock_path_beneath_attr.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: RawFd,
}

/// What a worker's libraries read if it has no modules: the time zone, the numbers of services, the
/// system's certificate authorities, which OpenSSL looks up in their directory on demand, and, for
/// a crash report, the programs and libraries themselves.
const READABLE: [&str; 26] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix/store",
    "/etc/localtime",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ld.so.cache",
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust",
    "/etc/ca-certificates",
    "/var/lib/ca-certificates",
    "/dev/null",
    "/dev/urandom",
    "/proc/sys",
    "/sys/devices/system/cpu",
];

/// What a process reads that looks up names. Most of these files are replaced when the network
/// changes, and a right at a file is that file's, so the directories are named.
const RESOLVER: [&str; 6] = [
    "/etc",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/connman",
    "/run/netconfig",
];

/// A ruleset for what a worker `needs`; `None` if this kernel has no Landlock.
pub(super) fn rules(needs: &Needs<'_>) -> io::Result<Option<OwnedFd>> {
    // SAFETY: with this flag the kernel reads no memory.
    let version = unsafe {
        let none: *const Attributes = std::ptr::null();
        libc::syscall(CREATE_RULESET, none, 0usize, TELL_VERSION)
    };
    if version < 1 {
        return Ok(None);
    }
    let since = |first, right| if version >= first { right } else { 0 };
    let files = FIRST | since(2, REFER) | since(3, TRUNCATE) | since(5, IOCTL_DEV);
    // Modules may use servers at abstract sockets.
    let scope = if needs.modules { 0 } else { since(6, ABSTRACT_SOCKETS) };
    let attributes = Attributes { files, network: 0, scope };
    let size = match version {
        ..4 => mem::offset_of!(Attributes, network),
        4..6 => mem::offset_of!(Attributes, scope),
        6.. => size_of::<Attributes>(),
    };
    // SAFETY: the kernel reads `size` bytes of `attributes`, and returns a new descriptor.
    let rules = unsafe {
        let fd = libc::syscall(CREATE_RULESET, &raw const attributes, size, 0u32);
        descriptor::own(check(fd as libc::c_int)?)
    };
    if needs.modules {
        // Nobody knows what modules read.
        allow(&rules, Path::new("/"), READ_FILE | READ_DIR)?;
    } else {
        let own = PathBuf::from(format!("/proc/{}", std::process::id()));
        // PREFIX, which holds sbin and lib.
        let executable = std::env::current_exe().ok();
        let prefix = executable.as_ref().and_then(|path| path.parent()?.parent());
        let prefix = prefix.filter(|prefix| prefix.parent().is_some());
        for path in READABLE.iter().map(Path::new).chain([own.as_path()]).chain(prefix) {
            allow(&rules, path, READ_FILE | READ_DIR)?;
        }
        for path in RESOLVER.iter().filter(|_| needs.names) {
            allow(&rules, Path::new(path), READ_FILE | READ_DIR)?;
        }
        // The directories where OpenSSL is told to look for authorities (openssl-env(7)).
        let authorities = std::env::var_os("SSL_CERT_DIR");
        for path in authorities.iter().flat_map(std::env::split_paths) {
            allow(&rules, &path, READ_FILE | READ_DIR)?;
        }
    }
    if let Some(directory) = needs.core_directory {
        // Before it writes a core file, the kernel removes an old one.
        let write = WRITE_FILE | MAKE_REG | REMOVE_FILE | since(3, TRUNCATE);
        allow(&rules, directory, READ_FILE | READ_DIR | write)?;
    }
    Ok(Some(rules))
}

/// Allows these `rights` at a path, if the path exists.
fn allow(rules: &OwnedFd, path: &Path, rights: u64) -> io::Result<()> {
    let Ok(file) = File::options().read(true).custom_flags(libc::O_PATH).open(path) else {
        return Ok(());
    };
    // Of these rights, only reading applies to a file that is not a directory.
    let rights = if file.metadata()?.is_dir() { rights } else { rights & READ_FILE };
    let rule = Beneath { allowed: rights, parent: file.as_raw_fd() };
    // SAFETY: the kernel reads `rule`, which outlives the call.
    let result = unsafe {
        libc::syscall(ADD_RULE, rules.as_raw_fd(), BENEATH, &raw const rule, 0u32) as libc::c_int
    };
    check(result).map(drop)
}

//! A network namespace for one test's thread and everything it starts (Linux, root).

use std::process::{Command, Stdio};

/// Moves this thread, and the programs it starts from now on, into a new network namespace with the
/// loopback interface up. Returns false, and reports the test as left out, where that is
/// impossible.
pub fn enter() -> bool {
    if !super::is_root() {
        super::left_out("a network namespace needs root");
        return false;
    }
    // SAFETY: unshare(2) takes plain numbers; CLONE_NEWNET concerns the calling thread alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        super::left_out("there can be no network namespace here");
        return false;
    }
    if !ip("link set lo up") {
        super::left_out("ip(8) is missing");
        return false;
    }
    true
}

/// Runs ip(8); false if it is missing or fails.
pub fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stdin(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Makes interfaces with these addresses and brings them up. Returns false, and reports the test as
/// left out, where that is impossible.
pub fn links(names: &[&str], addresses: &[&str]) -> bool {
    let made = names.iter().all(|name| {
        let link = format!("link add {name} type veth peer name {name}p");
        let assigned = |address: &&str| ip(&format!("addr add {address} dev {name} nodad"));
        ip(&link)
            && ip(&format!("link set {name}p up"))
            && ip(&format!("link set {name} up"))
            && addresses.iter().all(assigned)
    });
    if !made {
        super::left_out("there can be no veth interfaces here");
    }
    made
}

/// Gives this thread, and the programs it starts from now on, a /dev without a log daemon. Returns
/// false, and reports the test as left out, where that is impossible.
pub fn own_devices() -> bool {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    if !super::is_root() {
        super::left_out("a mount namespace needs root");
        return false;
    }
    let mount = |source: &Path, target: &Path, kind: &str, flags| {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let (source, target, kind) = (text(source), text(target), text(Path::new(kind)));
        // SAFETY: mount(2) reads three NUL-terminated texts, which outlive the call.
        let result = unsafe {
            let (kind, none) = (kind.as_ptr(), std::ptr::null());
            libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, none)
        };
        result == 0
    };
    let (none, root, dev) = (Path::new("none"), Path::new("/"), Path::new("/dev"));
    let directory = super::Directory::new();
    let new = directory.path();
    // SAFETY: unshare(2) takes plain numbers; CLONE_NEWNS concerns the calling thread alone.
    let made = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0
        && mount(none, root, "", libc::MS_REC | libc::MS_PRIVATE)
        && mount(none, new, "tmpfs", 0)
        && ["null", "zero", "urandom", "random"].into_iter().all(|name| {
            std::fs::write(new.join(name), "").is_ok()
                && mount(&dev.join(name), &new.join(name), "", libc::MS_BIND)
        })
        && mount(new, dev, "", libc::MS_BIND | libc::MS_REC);
    if !made {
        super::left_out("there can be no mount namespace here");
    }
    made
}

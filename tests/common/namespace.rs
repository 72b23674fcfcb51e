//! A network namespace for one test's thread and everything it starts (Linux, root).

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

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

type Work = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
pub struct Host {
    /// What ip(8) knows the namespace by.
    thread: i32,
    work: mpsc::Sender<Work>,
}

impl Host {
    pub fn new() -> Option<Host> {
        let (work, todo) = mpsc::channel::<Work>();
        thread::spawn(move || todo.into_iter().for_each(|work| work()));
        let mut host = Host { thread: 0, work };
        // SAFETY: gettid(2) takes nothing and cannot fail.
        host.thread = host.run(|| enter().then(|| unsafe { libc::gettid() }))?;
        Some(host)
    }

    /// Runs this there.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        let work = Box::new(move || drop(sender.send(work())));
        self.work.send(work).expect("a thread");
        result.recv().expect("a result")
    }

    /// Connects it with this thread's namespace: `device` is the interface here.
    pub fn link(&self, device: &'static str, here: [&'static str; 2], there: [&'static str; 2]) {
        // Without duplicate address detection, which takes a second, also for what is link-local.
        let configure = |device: &str, addresses: [&str; 2]| {
            must(&format!("link set {device} addrgenmode none"));
            must(&format!("link set {device} up"));
            for address in addresses {
                must(&format!("addr add {address} dev {device} nodad"));
            }
        };
        must(&format!("link add {device} type veth peer name peer netns {}", self.thread));
        configure(device, here);
        must(&format!("addr add fe80::1/64 dev {device} nodad"));
        self.run(move || {
            configure("peer", there);
            must("addr add fe80::2/64 dev peer nodad");
        });
    }
}

/// Runs ip(8), which must succeed.
pub fn must(arguments: &str) {
    assert!(ip(arguments), "ip {arguments}");
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

/// Calls mount(2); false if that fails.
fn mount(source: &Path, target: &Path, kind: &str, flags: libc::c_ulong) -> bool {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    let (source, target, kind) = (text(source), text(target), text(Path::new(kind)));
    // SAFETY: mount(2) reads three NUL-terminated texts, which outlive the call.
    let result = unsafe {
        let (kind, none) = (kind.as_ptr(), std::ptr::null());
        libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, none)
    };
    result == 0
}

/// Gives this thread, and the programs it starts from now on, mounts of their own.
fn own_mounts() -> bool {
    if !super::is_root() {
        super::left_out("a mount namespace needs root");
        return false;
    }
    // SAFETY: unshare(2) takes plain numbers; CLONE_NEWNS concerns the calling thread alone.
    (unsafe { libc::unshare(libc::CLONE_NEWNS) }) == 0
        && mount(Path::new("none"), Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE)
}

/// Puts files of the test in place of the system's, for this thread and the programs it starts from
/// now on: pairs of the file to be seen and where. Returns false, and reports the test as left out,
/// where that is impossible.
pub fn own_files(files: &[(&Path, &str)]) -> bool {
    let bound = |(file, place): &(&Path, &str)| mount(file, Path::new(place), "", libc::MS_BIND);
    let made = own_mounts() && files.iter().all(bound);
    if !made {
        super::left_out("there can be no mount namespace here");
    }
    made
}

/// Gives this thread, and the programs it starts from now on, a /dev without a log daemon. Returns
/// false, and reports the test as left out, where that is impossible.
pub fn own_devices() -> bool {
    let (none, dev) = (Path::new("none"), Path::new("/dev"));
    let directory = super::Directory::new();
    let new = directory.path();
    let made = own_mounts()
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

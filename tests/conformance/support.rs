//! Starts the programs in every way that the table asks for, and inspects them from outside.

pub(crate) use crate::common::launch::{section, stdout, Finished, Launch};
use crate::common::sockets::duplicates;
pub(crate) use crate::common::sockets::{backlog, connect_from, option};
use crate::common::{
    children, connect, cpu_ticks, ping, title, wait_for, within, Peer, Relay, PATIENCE,
};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// The worker's section alone.
pub(crate) fn worker_section(relay: &str) -> String {
    format!("id = tcprelay {{\n{relay}\n}}\n")
}

/// A client that an echo has answered.
pub(crate) fn client(port: u16) -> TcpStream {
    let mut stream = connect(port);
    ping(&mut stream, b"hello");
    stream
}

/// Reads the name that a named server sends first.
pub(crate) fn name_of_peer(stream: &mut TcpStream) -> String {
    let mut name = [0];
    stream.read_exact(&mut name).expect("the name of the peer");
    String::from_utf8_lossy(&name).into_owned()
}

/// Connects to `port`; returns the connection, and the name (one letter) of the server behind it.
pub(crate) fn ask(port: u16) -> (TcpStream, String) {
    let mut stream = connect(port);
    let name = name_of_peer(&mut stream);
    (stream, name)
}

/// Requires that a connection to `port` is served by an echo within `PATIENCE`.
pub(crate) fn eventually_served(port: u16) {
    wait_for("a connection to be served", || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"x").ok()?;
        (stream.read(&mut [0]).ok()? == 1).then_some(())
    });
}

/// True if nothing happens to `stream` for a moment.
pub(crate) fn stays_silent(stream: &mut TcpStream, moment: Duration) -> bool {
    stream.set_read_timeout(Some(moment)).expect("a timeout");
    let result = stream.read(&mut [0]);
    stream.set_read_timeout(Some(crate::common::PATIENCE)).expect("a timeout");
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Reads up to end of file or an error; returns the error as well.
pub(crate) fn read_all(stream: &mut TcpStream) -> (Vec<u8>, Option<io::Error>) {
    let mut data = Vec::new();
    let error = stream.read_to_end(&mut data).err();
    (data, error)
}

/// Both ends of a TCP connection.
pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    let client = connect(address.port());
    let (server, _) = listener.accept().expect("a connection");
    (client, server)
}

/// A listener whose accept queue is full: connect attempts to it hang.
pub(crate) struct BlackHole {
    pub(crate) port: u16,
    _listener: TcpListener,
    _fill: Vec<TcpStream>,
}

impl BlackHole {
    pub(crate) fn new() -> BlackHole {
        let port = crate::common::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a listener");
        // SAFETY: listen(2) takes plain numbers.
        unsafe { libc::listen(listener.as_raw_fd(), 0) };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut fill = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            fill.push(stream);
            assert!(fill.len() < 64, "the queue never fills");
        }
        BlackHole { port, _listener: listener, _fill: fill }
    }
}

/// An echo for thousands of connections, in one thread.
pub(crate) struct MassEcho {
    pub(crate) port: u16,
    pub(crate) open: Arc<AtomicUsize>,
    stop: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl MassEcho {
    pub(crate) fn new() -> MassEcho {
        let port = crate::common::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a listener");
        // SAFETY: listen(2) takes plain numbers.
        unsafe { libc::listen(listener.as_raw_fd(), 4096) };
        listener.set_nonblocking(true).expect("nonblocking");
        let (open, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counter, stopped) = (open.clone(), stop.clone());
        let thread = thread::spawn(move || mass_echo(&listener, &counter, &stopped));
        MassEcho { port, open, stop, thread: Some(thread) }
    }
}

impl Drop for MassEcho {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn mass_echo(listener: &TcpListener, open: &AtomicUsize, stop: &AtomicUsize) {
    let watch = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut list = vec![watch(listener.as_raw_fd())];
    let mut buffer = [0; 4096];
    while stop.load(Ordering::Relaxed) == 0 {
        // SAFETY: the pointer and the length describe `list`.
        unsafe { libc::poll(list.as_mut_ptr(), list.len() as libc::nfds_t, 50) };
        let mut index = 0;
        while index < streams.len() {
            let ready = list[index + 1].revents != 0;
            let gone = ready
                && match streams[index].read(&mut buffer) {
                    Ok(0) => true,
                    Ok(count) => streams[index].write_all(&buffer[..count]).is_err(),
                    Err(error) => error.kind() != io::ErrorKind::WouldBlock,
                };
            if gone {
                streams.swap_remove(index);
                list.swap_remove(index + 1);
            } else {
                index += 1;
            }
        }
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                list.push(watch(stream.as_raw_fd()));
                streams.push(stream);
            }
        }
        open.store(streams.len(), Ordering::Relaxed);
    }
}

/// A web server that always gives the same answer, and counts the requests.
pub(crate) struct Web {
    pub(crate) peer: Peer,
    requests: Arc<AtomicUsize>,
}

impl Web {
    pub(crate) fn new(status: &'static str, body: impl Into<String>) -> Web {
        let (body, requests) = (body.into(), Arc::<AtomicUsize>::default());
        let counter = requests.clone();
        let peer = Peer::start(move |mut stream| {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut byte) {
                    Ok(1) => request.push(byte[0]),
                    _ => return,
                }
            }
            if request.starts_with(b"GET ") {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLocation: /else\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            );
        });
        Web { peer, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/ok", self.peer.port)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// The number at the beginning of a worker's title: how many connections it has.
pub(crate) fn load(pid: i32) -> Option<usize> {
    let title = crate::common::title(pid);
    title.split_once(": ")?.1.split_whitespace().next()?.parse().ok()
}

/// The first worker, once it has opened everything: it logs its startup before that.
pub(crate) fn serving_worker(relay: &Relay) -> i32 {
    let worker = relay.workers()[0];
    wait_for("the title of the worker", || load(worker));
    worker
}

/// How many connections each worker has, in the order of their start.
pub(crate) fn loads(relay: &Relay) -> Vec<usize> {
    relay.workers().into_iter().map(|pid| load(pid).unwrap_or(0)).collect()
}

/// Waits until the workers have `total` connections together; returns how many each has.
pub(crate) fn wait_loads(relay: &Relay, total: usize) -> Vec<usize> {
    wait_for(&format!("{total} connections in the workers"), || {
        let loads = loads(relay);
        (loads.iter().sum::<usize>() == total).then_some(loads)
    })
}

/// Waits until the broker's title contains `text`.
pub(crate) fn expect_title(pid: i32, text: &str) {
    let shown = within(PATIENCE, || title(pid).contains(text).then_some(()));
    shown.unwrap_or_else(|| panic!("the title of {pid} is {:?}, not {text:?}", title(pid)));
}

/// Requires that a worker uses next to no CPU time for a second.
pub(crate) fn stays_idle(worker: i32) {
    let before = cpu_ticks(worker);
    crate::common::nothing_happens_for(Duration::from_millis(1000));
    let used = cpu_ticks(worker) - before;
    assert!(used <= 5, "the worker uses the processor: {used} ticks in a second");
}

/// A line of /proc/PID/status.
pub(crate) fn status_line(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.expect("the field").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The parent of a process.
pub(crate) fn parent(pid: i32) -> i32 {
    status_line(pid, "PPid").parse().expect("a number")
}

/// The process group and the session of a process.
pub(crate) fn group_and_session(pid: i32) -> (i32, i32) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a living process");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("stat").1.split_whitespace().collect();
    (fields[2].parse().expect("pgrp"), fields[3].parse().expect("session"))
}

/// The descriptors of a process, each with the name of its file.
pub(crate) fn descriptor_names(pid: i32) -> Vec<(RawFd, PathBuf)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let named = entries.flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?))
    });
    let mut list: Vec<_> = named.collect();
    list.sort();
    list
}

/// The sockets of another process that listen, and those that do not.
fn sockets(pid: i32) -> (Vec<OwnedFd>, Vec<OwnedFd>) {
    let listens = |fd: &OwnedFd| option(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
    let all = duplicates(pid).expect("pidfd_open").filter(|fd| listens(fd).is_some());
    all.partition(|fd| listens(fd) == Some(1))
}

/// The TCP listeners of a process.
pub(crate) fn listeners(pid: i32) -> Vec<TcpListener> {
    let all = sockets(pid).0.into_iter().map(TcpListener::from);
    all.filter(|listener| listener.local_addr().is_ok()).collect()
}

/// The connections of a process whose own port is `port`.
pub(crate) fn connections_at(pid: i32, port: u16) -> Vec<TcpStream> {
    let all = sockets(pid).1.into_iter().map(TcpStream::from);
    all.filter(|stream| stream.local_addr().is_ok_and(|address| address.port() == port)).collect()
}

/// The backlog of the only listener of a broker.
pub(crate) fn backlog_of(pid: i32) -> Option<u32> {
    listeners(pid).first().map(backlog)
}

/// Waits until a file has content, and gives it.
pub(crate) fn content(path: &Path) -> String {
    wait_for(&format!("{}", path.display()), || {
        fs::read_to_string(path).ok().filter(|text| !text.is_empty())
    })
}

/// A daemon, killed with its children when the test is done with it.
pub(crate) struct Daemon(pub(crate) i32);

impl Daemon {
    /// The daemon whose process id is in this pid file.
    pub(crate) fn of(pid_file: &Path) -> Daemon {
        Daemon(content(pid_file).trim().parse().expect("a process id"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let mut list = children(self.0);
        list.push(self.0);
        for pid in list {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Makes this process the parent of daemons, and of workers whose broker is gone, so that none of
/// them outlives it.
pub(crate) fn adopt_orphans() {
    // SAFETY: prctl(2) with plain numbers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Kills what the cases have left running.
pub(crate) fn kill_descendants() {
    let me = std::process::id() as i32;
    let tasks = fs::read_dir(format!("/proc/{me}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for pid in list.split_whitespace().filter_map(|word| word.parse().ok()) {
            drop(Daemon(pid));
        }
    }
    // Reaps them too: where process 1 does not, nobody else would.
    within(Duration::from_secs(2), || loop {
        // SAFETY: waitpid(2) with plain numbers; it needs no place for the status.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
            -1 => return Some(()),
            0 => return None,
            _ => {}
        }
    });
}

/// How often `text` is in the log.
pub(crate) fn count(relay: &Relay, text: &str) -> usize {
    relay.log().matches(text).count()
}

/// Waits for the end of a connection, clean or not.
pub(crate) fn has_been_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// How much later than at once something may happen, as a machine may stand still for a while. The
/// C program takes up to eight seconds for some of it.
pub(crate) const HESITATION: Duration = Duration::from_secs(6);

/// Requires that what has begun then took no more time than it takes to do it at once.
pub(crate) fn at_once(begin: Instant) {
    assert!(begin.elapsed() < HESITATION, "{:?}", begin.elapsed());
}

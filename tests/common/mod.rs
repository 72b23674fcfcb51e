//! Shared by the black-box tests: a relay in a directory of its own, real servers on free ports,
//! and waits with deadlines instead of sleeps.

#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod dns;
pub mod launch;
pub mod layout;
pub mod load;
pub mod memory;
pub mod metrics;
pub mod modules;
pub mod namespace;
pub mod pki;
pub mod sockets;
pub mod tls;
pub mod ways;

pub use launch::Launch;
pub use layout::relay;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The programs under test.
pub const TCPRELAY: &str = match option_env!("TCPRELAY_TEST_PROGRAM") {
    // Built for another processor and run under an emulator (tools/test-kernels).
    Some(program) => program,
    None => env!("CARGO_BIN_EXE_tcprelay"),
};
pub const SPAWND: &str = env!("CARGO_BIN_EXE_spawnd");

/// True if the tests run as root. A test that needs root reports itself as left out otherwise.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Reports that a test is left out, and why.
pub fn left_out(why: &str) {
    eprintln!("LEFT OUT: {}: {why}", thread::current().name().unwrap_or("test"));
}

/// The value of `IO_POLL_MECHANISM` for epoll, which every build has.
pub const EPOLL: &str = "4";

/// The `IO_POLL_MECHANISM` values that this build can run, with their names.
/// TCPRELAY_TEST_MECHANISM limits them to the one of that name.
pub fn mechanisms() -> Vec<(&'static str, &'static str)> {
    let mut all = if cfg!(event_shims) {
        // The native mechanisms are tested with the build that users get.
        vec![("1", "kqueue"), ("32", "port"), ("2", "/dev/poll")]
    } else {
        vec![(EPOLL, "epoll"), ("8", "poll"), ("16", "select")]
    };
    if let Ok(only) = std::env::var("TCPRELAY_TEST_MECHANISM") {
        all.retain(|(_, name)| *name == only);
        assert!(!all.is_empty(), "TCPRELAY_TEST_MECHANISM: this build has no {only}");
    }
    all
}

/// A TCP port on which nobody listens. It is below the ephemeral range, so that no outgoing
/// connection of another test can take it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + ((std::process::id() * 211 + step * 7) % 22_000) as u16;
        let free = |address: &str| TcpListener::bind(format!("{address}:{port}")).is_ok();
        if free("127.0.0.1") && free("[::]") {
            return port;
        }
    }
}

/// Waits until `condition` returns a value; panics with `what` after [`PATIENCE`].
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, condition).unwrap_or_else(|| panic!("timed out waiting for {what}"))
}

/// Waits until `condition` returns a value, but no longer than `limit`.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        let value = condition();
        if value.is_some() || Instant::now() >= end {
            return value;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a process has ended, but no longer than `limit`.
pub fn ends_within(limit: Duration, pid: i32) -> bool {
    within(limit, || is_gone(pid).then_some(())).is_some()
}

/// Lets a period pass in which something must not happen. The caller checks afterwards that it did
/// not; anything that is to happen is awaited with [`wait_for`].
pub fn nothing_happens_for(period: Duration) {
    thread::sleep(period);
}

/// Lets a time of the configuration pass, such as a retry delay.
pub fn outlast(period: Duration) {
    thread::sleep(period);
}

/// Lets some time pass, another one in each round, so that what comes next hits any point of
/// something short.
pub fn stagger(delay: Duration) {
    thread::sleep(delay);
}

/// The pause of a client or remote that sends, reads or comes now and then.
pub fn pace(period: Duration) {
    thread::sleep(period);
}

/// A directory that is removed when the test ends.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("tcprelay-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary directory");
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, text).expect("a file in the temporary directory");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A command that runs one of the project's programs with the libmavis.so of this build, which is
/// beside the test. The library path that cargo sets may have an older one first.
pub fn ours(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let test = std::env::current_exe().expect("the path of the test");
    let mut command = Command::new(program);
    // What follows may be another OpenSSL (tools/test-openssl).
    let mut folders = vec![test.parent().expect("its folder").to_owned()];
    if let Some(more) = std::env::var_os("LD_LIBRARY_PATH") {
        folders.extend(std::env::split_paths(&more));
    }
    command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).expect("folders"));
    command
}

/// A running relay. Killed, with its workers, when dropped.
pub struct Relay {
    pub directory: Directory,
    pub config: PathBuf,
    log: PathBuf,
    child: Child,
    /// Relays to drop with this one.
    pub companions: Vec<Relay>,
}

impl Relay {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The log lines of all processes: `<SEVERITY>IDENT[PID]: TEXT`.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn wait_for_log<T>(&self, what: &str, mut check: impl FnMut(&str) -> Option<T>) -> T {
        let found = within(PATIENCE, || check(&self.log()));
        found.unwrap_or_else(|| panic!("timed out waiting for {what}; the log:\n{}", self.log()))
    }

    /// Waits for a line that contains `text`.
    pub fn expect_log(&self, text: &str) {
        self.wait_for_log(&format!("{text:?}"), |log| log.contains(text).then_some(()));
    }

    /// The living children of the broker.
    pub fn workers(&self) -> Vec<i32> {
        children(self.pid()).into_iter().filter(|&pid| !is_signer(pid)).collect()
    }

    /// The process with the private keys, if there is one.
    pub fn signer(&self) -> Option<i32> {
        children(self.pid()).into_iter().find(|&pid| is_signer(pid))
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for the broker to end.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the broker to end", || child.try_wait().expect("waitpid"))
    }

    /// The title of the broker.
    pub fn title(&self) -> String {
        title(self.pid())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the log of the relay:\n{}---", self.log());
        }
        let workers = self.workers();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in workers {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}

pub fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("kill");
}

/// The living children of a process (Linux).
pub fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter(|&child| !is_gone(child))
        .collect()
}

/// True for the process with the private keys: the first argument of a fresh one, and the title.
fn is_signer(pid: i32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    memchr::memmem::find(&words, b"private-keys").is_some()
}

/// True if the process does not exist, or is a zombie.
pub fn is_gone(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

pub fn title(pid: i32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let end = raw.iter().position(|&byte| byte == 0).unwrap_or(raw.len());
    String::from_utf8_lossy(&raw[..end]).into_owned()
}

/// User and system time of a process, in clock ticks.
pub fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a living process");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("stat").1.split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

/// Open descriptors of a process.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Anonymous memory of a process in bytes. Pages of files are left out: they count as private as soon
/// as no other process maps them, so other tests would be measured as well.
pub fn private_memory(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    rollup
        .lines()
        .filter(|line| line.starts_with("Anonymous:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum::<u64>()
        * 1024
}

/// Connects to a port of 127.0.0.1, with timeouts so that no test hangs.
pub fn connect(port: u16) -> TcpStream {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

/// Aborts a connection with RST.
pub fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer and the length describe `linger`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&stream),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
    drop(stream);
}

/// Sends one byte as urgent data (MSG_OOB).
pub fn send_urgent(stream: &TcpStream, byte: u8) {
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(stream);
    // SAFETY: the pointer and the length describe `byte`, which outlives the call.
    let sent = unsafe { libc::send(descriptor, (&raw const byte).cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
}

/// Stops a process with SIGSTOP, and waits until it has stopped.
pub fn stop(pid: i32) {
    kill(pid, nix::sys::signal::Signal::SIGSTOP);
    wait_for("a process that stands still", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.trim_start().starts_with('T').then_some(())
    });
}

/// Requires end of file, with no data before it.
pub fn expect_eof(stream: &mut TcpStream) {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => {}
        other => panic!("expected end of file, got {other:?} {byte:?}"),
    }
}

/// Requires that the stream ends with an error, not with end of file.
pub fn expect_reset(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("expected a reset, got {other:?}"),
    }
}

/// True if the stream has ended (end of file or reset), false if it is still open.
pub fn has_ended(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("nonblocking");
    let ended = match stream.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).expect("blocking");
    ended
}

/// True if an echo answers this client.
pub fn is_served(client: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    client.write_all(b"ping").is_ok() && client.read_exact(&mut answer).is_ok()
}

/// A whole session with an echo: a request, its half-close, the answer and its end.
pub fn one_session(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"request")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer != b"request" {
        return Err(io::Error::other(format!("answered {answer:?}")));
    }
    Ok(())
}

/// Sends and receives one word, through an echo.
pub fn ping(stream: &mut TcpStream, word: &[u8]) {
    stream.write_all(word).expect("to send");
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, word);
}

/// Test data that differs at every position and for every seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length);
    data
}

/// A server that runs `serve` in a thread of its own for each connection.
pub struct Peer {
    pub port: u16,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Peer {
        Peer::start_on(free_port(), serve)
    }

    pub fn start_on(port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Peer {
        let listener = wait_for("a port to listen on", || {
            let fd = nix_listener(port);
            fd.ok()
        });
        listener.set_nonblocking(true).expect("nonblocking");
        let (stop, stopped) = mpsc::channel::<()>();
        let serve = std::sync::Arc::new(serve);
        let thread = thread::spawn(move || loop {
            match stopped.try_recv() {
                Err(mpsc::TryRecvError::Empty) => {}
                _ => return,
            }
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("blocking");
                    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
                    let serve = serve.clone();
                    thread::spawn(move || serve(stream));
                }
                Err(_) => pace(Duration::from_millis(1)),
            }
        });
        Peer { port, stop: Some(stop), thread: Some(thread) }
    }

    /// Echoes everything, and half-closes once the client has.
    pub fn echo() -> Peer {
        Peer::start(echo)
    }

    /// Sends its name once, then echoes.
    pub fn named(name: &'static str) -> Peer {
        Peer::named_on(free_port(), name)
    }

    pub fn named_on(port: u16, name: &'static str) -> Peer {
        Peer::start_on(port, move |mut stream| {
            if stream.write_all(name.as_bytes()).is_ok() {
                echo(stream);
            }
        })
    }

    /// Hands each connection to the test.
    pub fn manual() -> (Peer, mpsc::Receiver<TcpStream>) {
        let (sender, receiver) = mpsc::channel();
        let sender = std::sync::Mutex::new(sender);
        let peer = Peer::start(move |stream| {
            let _ = sender.lock().expect("a sender").send(stream);
        });
        (peer, receiver)
    }

    /// A `remote` with these tags, on a line.
    pub fn tagged(&self, tags: &str) -> String {
        format!("{}\n", self.remote().replace('}', &format!("tag = {tags} }}")))
    }

    /// The `remote` block for this server.
    pub fn remote(&self) -> String {
        remote(self.port)
    }

    /// Stops listening; existing connections stay. When it returns, connecting fails: until then a
    /// program that another test is starting may hold a copy of the socket.
    pub fn stop(&mut self) {
        self.end();
        wait_for("the port to be closed", || TcpStream::connect(("127.0.0.1", self.port)).err());
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end();
    }
}

fn nix_listener(port: u16) -> io::Result<TcpListener> {
    // std sets SO_REUSEADDR on UNIX, so a port that was just closed can be bound again.
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    // A longer backlog than std's 128.
    // SAFETY: listen(2) takes plain numbers.
    unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 4096) };
    Ok(listener)
}

pub fn remote(port: u16) -> String {
    format!("remote = {{ address = 127.0.0.1 port = {port} }}\n")
}

/// Serves one connection as an echo.
pub fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                let _ = stream.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// Returns the next connection of a manual server.
pub fn next(receiver: &mpsc::Receiver<TcpStream>) -> TcpStream {
    receiver.recv_timeout(PATIENCE).expect("a connection from the relay")
}

impl Relay {
    /// Wraps a relay that was not started by [`Launch`].
    pub fn assemble(directory: Directory, config: PathBuf, log: PathBuf, child: Child) -> Relay {
        Relay { directory, config, log, child, companions: Vec::new() }
    }
}

/// Finds a program on PATH or in the directories for servers.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path
        .split(':')
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"])
        .map(|directory| Path::new(directory).join(name))
        .find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: run `make deps`"))
}

/// A program that few machines have: on PATH, or installed by `make test-peers`. Reports the test as
/// left out if it is missing.
pub fn optional(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/bin");
    let found = path
        .split(':')
        .chain([installed])
        .map(|directory| Path::new(directory).join(name))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        left_out(&format!("{name} is not there, which `make test-peers` installs"));
    }
    found
}

/// A server process, killed with the test.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command, port: u16) -> Server {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server(command.spawn().expect("a server"));
        wait_for("the server to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
        server
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx and sshd have children, which end only if their parent ends in an orderly way; and
        // one that is stopped would not end.
        kill(self.0.id() as i32, nix::sys::signal::Signal::SIGTERM);
        kill(self.0.id() as i32, nix::sys::signal::Signal::SIGCONT);
        let _ = self.0.wait();
    }
}

pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("a client");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

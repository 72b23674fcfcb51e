//! Plays one of the two sides: a worker under a real broker, or a broker over a real worker.
//!
//! As a worker, this program is executed by the broker. It hands its channel to the test, and lives
//! until the test is done with it.

use crate::common::{Directory, Relay, PATIENCE};
use crate::support::{descriptor_names, Launch};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The environment variable with the path of the test's socket; it makes this program a worker.
pub(crate) const VARIABLE: &str = "TCPRELAY_TEST_WORKER";

pub(crate) const DONE: u32 = 0;
pub(crate) const KEEPALIVE: u32 = 1;
pub(crate) const MAY_DIE: u32 = 2;
pub(crate) const BAD_CONFIGURATION: u32 = 4;
pub(crate) const MAX: u32 = 5;
pub(crate) const ACCEPT: u32 = 6;

/// Runs as a worker, if this process was executed as one.
pub(crate) fn main() -> Option<ExitCode> {
    let path = std::env::var_os(VARIABLE)?;
    let me = std::process::id() as i32;
    let mut report = format!("pid {me}\n");
    for argument in std::env::args() {
        report += &format!("argument {argument}\n");
    }
    for (name, value) in std::env::vars() {
        report += &format!("environment {name}={value}\n");
    }
    for (number, name) in descriptor_names(me) {
        report += &format!("descriptor {number} {}\n", name.display());
    }
    report += &format!("umask {}\n", crate::support::status_line(me, "Umask"));
    let mut control = UnixStream::connect(path).ok()?;
    // SAFETY: descriptor 0 is the channel, and open as long as this process.
    let channel = unsafe { BorrowedFd::borrow_raw(0) };
    send(control.as_fd(), &(report.len() as u32).to_ne_bytes(), Some(channel)).ok()?;
    control.write_all(report.as_bytes()).ok()?;
    let _ = control.read(&mut [0]);
    Some(ExitCode::SUCCESS)
}

/// The socket to which the workers of one broker report.
pub(crate) struct Workshop {
    directory: Directory,
    listener: UnixListener,
}

impl Workshop {
    pub(crate) fn new() -> Workshop {
        let directory = Directory::new();
        let listener = UnixListener::bind(directory.file("control")).expect("a socket");
        listener.set_nonblocking(true).expect("nonblocking");
        Workshop { directory, listener }
    }

    /// Makes the broker's workers report to this socket.
    pub(crate) fn equip(&self, launch: Launch) -> Launch {
        launch.environment(VARIABLE, &self.directory.file("control").display().to_string())
    }

    /// The value for `exec =`.
    pub(crate) fn program() -> String {
        std::env::current_exe().expect("this program").display().to_string()
    }

    /// The next worker that the broker started.
    pub(crate) fn next(&self) -> FakeWorker {
        let stream = crate::common::wait_for("a worker", || self.listener.accept().ok()).0;
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let first = receive(&stream, PATIENCE).expect("the report");
        let length = u32::from_ne_bytes(first.data[..4].try_into().expect("the length")) as usize;
        let mut text = first.data[4..].to_vec();
        let have = text.len();
        text.resize(length, 0);
        (&stream).read_exact(&mut text[have..]).expect("the report");
        let report = String::from_utf8_lossy(&text).into_owned();
        let channel = first.descriptors.into_iter().next().expect("the channel");
        let pid = report.lines().next().and_then(|line| line.strip_prefix("pid "));
        let pid = pid.expect("the process id").parse().expect("a number");
        FakeWorker { pid, channel, _control: stream, report }
    }
}

/// A worker played by the test.
pub(crate) struct FakeWorker {
    pub(crate) pid: i32,
    pub(crate) channel: OwnedFd,
    /// The worker process ends when this is closed.
    _control: UnixStream,
    pub(crate) report: String,
}

impl FakeWorker {
    /// Sends a message of kind and count.
    pub(crate) fn say(&self, kind: u32, count: i32) {
        send(self.channel.as_fd(), &short(kind, count), None).expect("to send to the broker");
    }

    pub(crate) fn send(&self, data: &[u8]) {
        send(self.channel.as_fd(), data, None).expect("to send to the broker");
    }

    pub(crate) fn receive(&self) -> Message {
        receive(&self.channel, PATIENCE).expect("a message of the broker")
    }

    /// Lines of the worker's report that begin with `kind`.
    pub(crate) fn reported(&self, kind: &str) -> Vec<&str> {
        let head = format!("{kind} ");
        self.report.lines().filter_map(|line| line.strip_prefix(head.as_str())).collect()
    }
}

/// A broker played by the test, over a real worker.
pub(crate) struct FakeBroker {
    pub(crate) channel: Option<OwnedFd>,
    pub(crate) relay: Relay,
}

impl FakeBroker {
    /// Starts a worker with the configuration and the arguments of `launch`.
    pub(crate) fn start(launch: Launch) -> FakeBroker {
        FakeBroker::start_after(launch, None)
    }

    /// Like [`Self::start`], with a message already in the channel.
    pub(crate) fn start_after(launch: Launch, message: Option<&[u8]>) -> FakeBroker {
        let (ours, theirs) = pair();
        if let Some(message) = message {
            send(ours.as_fd(), message, None).expect("to send to the worker");
        }
        let relay = launch.input(theirs).ready(None).start();
        FakeBroker { channel: Some(ours), relay }
    }

    /// Like [`Self::start`], and waits until the worker has announced itself.
    pub(crate) fn ready(launch: Launch) -> FakeBroker {
        let broker = FakeBroker::start(launch);
        assert_eq!(broker.receive().kind(), MAX);
        broker
    }

    fn channel(&self) -> &OwnedFd {
        self.channel.as_ref().expect("the channel")
    }

    pub(crate) fn receive(&self) -> Message {
        receive(self.channel(), PATIENCE).expect("a message of the worker")
    }

    pub(crate) fn receive_within(&self, patience: Duration) -> Option<Message> {
        receive(self.channel(), patience)
    }

    pub(crate) fn say(&self, kind: u32) {
        self.send(&short(kind, 0), None);
    }

    pub(crate) fn send(&self, data: &[u8], fd: Option<BorrowedFd<'_>>) {
        send(self.channel().as_fd(), data, fd).expect("to send to the worker");
    }

    /// Gives the worker a connection; returns the client's end.
    pub(crate) fn connect(&self) -> std::net::TcpStream {
        let (client, server) = crate::support::tcp_pair();
        self.send(&accept_message(), Some(server.as_fd()));
        client
    }

    /// Waits until the worker has reported this many ended connections.
    pub(crate) fn expect_done(&self, count: i32) {
        let mut sum = 0;
        while sum < count {
            let message = self.receive();
            assert_eq!((message.kind(), message.data.len()), (DONE, 8), "{:?}", message.data);
            sum += message.count();
        }
        assert_eq!(sum, count);
    }
}

/// A message, with the descriptor that came along.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) data: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Message {
    /// The 32-bit word at an offset.
    pub(crate) fn word(&self, offset: usize) -> u32 {
        let bytes = self.data.get(offset..offset + 4).expect("a longer message");
        u32::from_ne_bytes(bytes.try_into().expect("four bytes"))
    }

    pub(crate) fn kind(&self) -> u32 {
        self.word(0)
    }

    pub(crate) fn count(&self) -> i32 {
        self.word(4) as i32
    }
}

/// The bytes of a message of kind and count.
pub(crate) fn short(kind: u32, count: i32) -> [u8; 8] {
    let mut data = [0; 8];
    data[..4].copy_from_slice(&kind.to_ne_bytes());
    data[4..].copy_from_slice(&count.to_ne_bytes());
    data
}

/// The bytes of an ACCEPT message for a plain TCP listener.
pub(crate) fn accept_message() -> [u8; 40] {
    let mut data = [0; 40];
    data[..4].copy_from_slice(&ACCEPT.to_ne_bytes());
    data[32..36].copy_from_slice(&1u32.to_ne_bytes());
    data[36..].copy_from_slice(&6u32.to_ne_bytes());
    data
}

/// A pair of connected datagram sockets.
fn pair() -> (OwnedFd, OwnedFd) {
    let mut fds: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for both descriptors, which are owned by nobody else.
    unsafe {
        let result = libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr());
        assert_eq!(result, 0, "socketpair: {}", io::Error::last_os_error());
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

/// Room for one descriptor as control data, aligned.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Sends one message.
fn send(channel: BorrowedFd<'_>, data: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut vector = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut control = Control([0; 64]);
    // SAFETY: all bytes zero is a value of the structure; its pointers describe `vector`,
    // `data` and `control`, which outlive the call, and CMSG_* stay within `control`.
    let result = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        if let Some(fd) = fd {
            let size = size_of::<RawFd>() as u32;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(size) as _;
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(size) as _;
            libc::CMSG_DATA(first).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
        }
        libc::sendmsg(channel.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Receives a message; `None` if none comes in time.
pub(crate) fn receive(channel: &impl AsFd, patience: Duration) -> Option<Message> {
    let fd = channel.as_fd().as_raw_fd();
    let end = Instant::now() + patience;
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    loop {
        let rest = end.saturating_duration_since(Instant::now()).as_millis() as i32;
        // SAFETY: the pointer describes one structure.
        match unsafe { libc::poll(&raw mut poll, 1, rest) } {
            0 => return None,
            1 => break,
            _ => {}
        }
    }
    let mut data = vec![0; 8192];
    let mut vector = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    let mut control = Control([0; 64]);
    let mut descriptors = Vec::new();
    // SAFETY: all bytes zero is a value of the structure; its pointers describe `vector`,
    // `data` and `control`, which outlive the call, and CMSG_* stay within `control`. The
    // descriptors that came are owned by nobody else.
    let length = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len() as _;
        let length = libc::recvmsg(fd, &raw mut header, libc::MSG_CMSG_CLOEXEC);
        let mut entry = libc::CMSG_FIRSTHDR(&raw const header);
        while length >= 0 && !entry.is_null() {
            if (*entry).cmsg_level == libc::SOL_SOCKET && (*entry).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*entry).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for index in 0..bytes / size_of::<RawFd>() {
                    let place = libc::CMSG_DATA(entry).cast::<RawFd>().add(index);
                    descriptors.push(OwnedFd::from_raw_fd(place.read_unaligned()));
                }
            }
            entry = libc::CMSG_NXTHDR(&raw const header, entry);
        }
        length
    };
    let length = usize::try_from(length).ok()?;
    data.truncate(length);
    Some(Message { data, descriptors })
}

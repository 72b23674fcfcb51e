//! Servers in this process, which stand behind relays.

use super::{free_port, pace, wait_for, PATIENCE};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Waits until nobody listens there. A program that another test is starting may hold a copy of a
/// socket that was closed.
pub fn wait_until_closed(place: impl ToSocketAddrs) {
    wait_for("the port to be closed", || TcpStream::connect(&place).err());
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

    /// Stops listening; existing connections stay. When it returns, connecting fails.
    pub fn stop(&mut self) {
        self.end();
        wait_until_closed(("127.0.0.1", self.port));
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
    // However long a session is idle on a slow machine, it is not for its remote to end it.
    let _ = stream.set_read_timeout(None);
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

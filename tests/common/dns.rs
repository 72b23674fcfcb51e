//! A real name server in a network namespace, and servers at the addresses that it gives.

use super::{kill, namespace, program, wait_for, wait_until_closed, Directory, Server};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A network of its own with dnsmasq at 127.0.0.1, whose answers are valid for a second; and a
/// resolv.conf and an /etc/hosts of its own.
pub struct Dns {
    pub directory: Directory,
    pub server: Option<Server>,
}

impl Dns {
    /// `None` where there can be no namespaces.
    pub fn start() -> Option<Dns> {
        let directory = Directory::new();
        // Whatever the C library and c-ares call it: a second, twice.
        let options = "options timeout:1 attempts:2 retrans:1000 retry:2";
        let text = format!("nameserver 127.0.0.1\n{options}\n");
        let resolver = directory.write("resolv.conf", text);
        let hosts = directory.write("hosts", "127.0.0.1 localhost\n");
        directory.write("names", "");
        let files = [(&*resolver, "/etc/resolv.conf"), (&*hosts, "/etc/hosts")];
        if !namespace::enter() || !namespace::own_files(&files) {
            return None;
        }
        let mut dns = Dns { directory, server: None };
        dns.run(&[]);
        Some(dns)
    }

    /// Starts dnsmasq, with these options besides.
    pub fn run(&mut self, options: &[&str]) {
        drop(self.server.take());
        let names = format!("--addn-hosts={}", self.directory.file("names").display());
        let log = format!("--log-facility={}", self.directory.write("dns.log", "").display());
        let mut command = Command::new(program("dnsmasq"));
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"])
            .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--user=root", "--pid-file="])
            .args(["--local=/test/", "--local-ttl=1", &log, &names])
            .args(options);
        self.server = Some(Server::start(&mut command, 53));
        // It listens before it takes signals.
        wait_for("the server to read names", || (self.names_read() > 0).then_some(()));
    }

    /// How often the server has read its names.
    fn names_read(&self) -> usize {
        let log = std::fs::read_to_string(self.directory.file("dns.log")).expect("its log");
        log.matches(": read ").count()
    }

    /// What the server, which must not be stopped, answers from now on.
    pub fn set<'a>(&self, names: impl IntoIterator<Item = (&'a str, String)>) {
        let before = self.names_read();
        self.set_later(names);
        self.signal(Signal::SIGHUP);
        wait_for("the server to read names", || (self.names_read() > before).then_some(()));
    }

    /// What the server answers from its next start on.
    pub fn set_later<'a>(&self, names: impl IntoIterator<Item = (&'a str, String)>) {
        let mut text = String::new();
        for (name, address) in names {
            let _ = writeln!(text, "{address} {name}");
        }
        self.directory.write("names", text);
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.server.as_ref().expect("a server").pid(), signal);
    }
}

/// The address of a backend.
pub fn ip(number: u8) -> String {
    format!("127.0.1.{number}")
}

/// Servers at 127.0.1.1, 127.0.1.2 and so on, which answer each line with the last number of their
/// address.
pub struct Backends {
    port: u16,
    running: BTreeMap<u8, (Arc<AtomicBool>, JoinHandle<()>)>,
    pub open: Arc<Mutex<BTreeMap<u8, usize>>>,
}

impl Backends {
    pub fn new() -> Backends {
        Backends { port: 7000, running: BTreeMap::new(), open: Arc::default() }
    }

    /// From now on these are there and no others. Connections that are open stay.
    pub fn set(&mut self, numbers: &BTreeSet<u8>) {
        let gone: Vec<u8> =
            self.running.keys().copied().filter(|number| !numbers.contains(number)).collect();
        for number in gone {
            let (stop, thread) = self.running.remove(&number).expect("a server");
            stop.store(true, SeqCst);
            let place = (Ipv4Addr::new(127, 0, 1, number), self.port);
            let _ = TcpStream::connect(place);
            thread.join().expect("a server");
            wait_until_closed(place);
        }
        for &number in numbers {
            let (port, open) = (self.port, self.open.clone());
            self.running.entry(number).or_insert_with(|| {
                let stop = Arc::new(AtomicBool::new(false));
                let stopped = stop.clone();
                let place = (Ipv4Addr::new(127, 0, 1, number), port);
                let listener = TcpListener::bind(place).expect("to listen");
                let thread = thread::spawn(move || {
                    for stream in listener.incoming() {
                        if stopped.load(SeqCst) {
                            return;
                        }
                        let (mut stream, open) = (stream.expect("a connection"), open.clone());
                        *open.lock().expect("the counts").entry(number).or_default() += 1;
                        thread::spawn(move || {
                            let mut byte = [0];
                            while stream.read(&mut byte).is_ok_and(|count| count > 0) {
                                let _ = stream.write_all(&[number]);
                            }
                            *open.lock().expect("the counts").entry(number).or_default() -= 1;
                        });
                    }
                });
                (stop, thread)
            });
        }
    }
}

/// Asks who serves a connection.
pub fn ask(stream: &mut TcpStream) -> Result<u8, String> {
    let mut answer = [0];
    stream.write_all(b"?").map_err(|error| error.to_string())?;
    stream.read_exact(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer[0])
}

pub fn open(port: u16) -> Result<(TcpStream, u8), String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).map_err(|error| error.to_string())?;
    let number = ask(&mut stream)?;
    Ok((stream, number))
}

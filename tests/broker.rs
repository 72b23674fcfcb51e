//! The broker under load: reload, killed, retired and stuck workers, overload.

mod common;
#[path = "broker/listeners.rs"]
mod listeners;
#[path = "broker/process.rs"]
mod process;
#[path = "broker/reloads.rs"]
mod reloads;
#[path = "broker/workers.rs"]
mod workers;

use common::launch::sections as config;
use common::*;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Runs short sessions through an echo from several threads until stopped. Every session must be
/// served: refusals, resets and wrong answers are recorded.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
    started: Instant,
}

impl Load {
    fn start(port: u16) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let threads = (0..4)
            .map(|_| {
                let (stop, served) = (stop.clone(), served.clone());
                thread::spawn(move || {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match one_session(port) {
                            Ok(()) => drop(served.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => failures.push(error.to_string()),
                        }
                    }
                    failures
                })
            })
            .collect();
        Load { stop, served, threads, started: Instant::now() }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Waits for this many further sessions.
    fn wait_for_sessions(&self, count: usize) {
        let target = self.served() + count;
        wait_for("sessions to be served", || (self.served() >= target).then_some(()));
    }

    /// Ends the load; returns the failures, and the sessions per second.
    fn stop(self) -> (Vec<String>, f64) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.threads.into_iter().flat_map(|t| t.join().expect("a client")).collect();
        let rate =
            self.served.load(Ordering::Relaxed) as f64 / self.started.elapsed().as_secs_f64();
        (failures, rate)
    }
}

/// Long-lived sessions, which must survive whatever the test does.
struct Lasting(Vec<TcpStream>);

impl Lasting {
    fn open(port: u16, count: usize) -> Lasting {
        let mut streams: Vec<TcpStream> = (0..count).map(|_| connect(port)).collect();
        for stream in &mut streams {
            ping(stream, b"hello");
        }
        Lasting(streams)
    }

    fn check(&mut self) {
        for stream in &mut self.0 {
            ping(stream, b"still");
        }
    }
}

/// Replaces the configuration and reloads; waits until the new image serves.
fn reload(relay: &Relay, text: &str) {
    std::fs::write(&relay.config, text).expect("to write");
    let count = |log: &str| log.matches("is being used").count();
    let before = count(&relay.log());
    relay.signal(Signal::SIGHUP);
    // The broker and one worker each log it once.
    relay.wait_for_log("the new image", |log| (count(log) >= before + 2).then_some(()));
}

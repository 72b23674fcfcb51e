//! Clients that come at a steady rate.

use super::wait_for;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How many clients there are at most. Some of them wait for a server that hangs.
const THREADS: u32 = 48;
/// A client that is so late has lost its turns, so that no crowd comes after a stall.
const LATE: Duration = Duration::from_secs(1);

/// What clients have seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Sessions by the number of the server that has answered.
    pub served: BTreeMap<u16, usize>,
    /// When sessions that failed had begun, and why they failed.
    pub errors: Vec<(Instant, String)>,
}

impl Seen {
    pub fn sessions(&self) -> usize {
        self.served.values().sum()
    }

    /// All sessions, none of which may have failed.
    pub fn without_errors(&self) -> usize {
        assert!(self.errors.is_empty(), "{} of {:?}", self.errors.len(), self.errors);
        self.sessions()
    }
}

/// Clients that come all the time.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
}

impl Load {
    /// So many sessions a second, if the machine can. A session returns the number of its server.
    pub fn start(
        rate: u32,
        session: impl Fn() -> Result<u16, String> + Send + Sync + 'static,
    ) -> Load {
        let (stop, session) = (Arc::new(AtomicBool::new(false)), Arc::new(session));
        let seen = Arc::<Mutex<Seen>>::default();
        let (start, pause) = (Instant::now(), Duration::from_secs(THREADS.into()) / rate);
        let client = |number| {
            let (stop, session, seen) = (stop.clone(), session.clone(), seen.clone());
            thread::spawn(move || {
                let mut turn = start + pause * number / THREADS;
                while !stop.load(SeqCst) {
                    super::pace(turn.saturating_duration_since(Instant::now()));
                    let begun = Instant::now();
                    turn = if begun > turn + LATE { begun } else { turn } + pause;
                    let result = session();
                    let mut seen = seen.lock().expect("the figures");
                    match result {
                        Ok(server) => *seen.served.entry(server).or_default() += 1,
                        Err(error) => seen.errors.push((begun, error)),
                    }
                }
            })
        };
        let threads = (0..THREADS).map(client).collect();
        Load { stop, threads, seen }
    }

    /// Sessions that this server has answered.
    pub fn served_by(&self, server: u16) -> usize {
        self.seen.lock().expect("the figures").served.get(&server).copied().unwrap_or(0)
    }

    /// Waits for so many more answers of a server.
    pub fn wait_for(&self, server: u16, more: usize) {
        let goal = self.served_by(server) + more;
        wait_for("answers", || (self.served_by(server) >= goal).then_some(()));
    }

    /// Fails if a session has failed that began after this moment.
    pub fn check_since(&self, since: Instant) {
        let seen = self.seen.lock().expect("the figures");
        let late: Vec<_> = seen.errors.iter().filter(|(begun, _)| *begun > since).collect();
        assert!(late.is_empty(), "{} sessions: {:?}", late.len(), late[0]);
    }

    /// Stops, when all sessions have ended.
    pub fn end(self) -> Seen {
        self.stop.store(true, SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client"));
        std::mem::take(&mut self.seen.lock().expect("the figures"))
    }
}

//! The relay at the other end of the control socket.

use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read, Take, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The longest answer that is believed, in bytes.
const MOST_ANSWER: u64 = 64 << 20;
/// How long the relay may take for an answer that it knows.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a request is tried again: the process that answers is replaced by a reload, and started
/// again when it has died.
const RETRIES: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody listens, for this reason.
    NoRelay(String),
    /// This user may not connect.
    NotAllowed,
    /// It listens, but does not answer.
    Silent,
    /// It refuses.
    Refused(String),
    /// What was waited for did not happen in time.
    TimeIsOver(String),
}

impl Failure {
    pub(super) fn text(&self, socket: &Path) -> String {
        let socket = socket.display();
        match self {
            Failure::NoRelay(reason) => format!("{socket}: {reason}. Is the relay running?"),
            Failure::NotAllowed => format!("{socket}: you may not connect"),
            Failure::Silent => format!("{socket}: the relay does not answer"),
            Failure::Refused(text) | Failure::TimeIsOver(text) => text.clone(),
        }
    }
}

/// A relay.
pub(super) struct Relay {
    socket: PathBuf,
}

impl Relay {
    pub(super) fn new(socket: &Path) -> Relay {
        Relay { socket: socket.to_owned() }
    }

    /// Sends a request, and returns the answer. Requests mean the same when they come twice.
    pub(super) fn ask(&self, request: &Value) -> Result<Value, Failure> {
        self.ask_for(request, PATIENCE, |_| {})
    }

    /// As [`ask`](Self::ask), for an answer that may take so long. `note` gets the lines before it.
    pub(super) fn ask_for(
        &self,
        request: &Value,
        patience: Duration,
        note: impl FnMut(&Value),
    ) -> Result<Value, Failure> {
        self.follow(request, patience, note).map(|(answer, _)| answer)
    }

    /// As [`ask_for`](Self::ask_for); also returns the connection, on which more may come.
    pub(super) fn follow(
        &self,
        request: &Value,
        patience: Duration,
        mut note: impl FnMut(&Value),
    ) -> Result<(Value, Answers), Failure> {
        let end = Instant::now() + RETRIES;
        loop {
            let answers = self.open(request, patience);
            let result = answers.and_then(|mut answers| Ok((answers.answer(&mut note)?, answers)));
            match result {
                Err(Failure::Silent) if Instant::now() < end => thread::sleep(RETRY_PAUSE),
                other => return other,
            }
        }
    }

    /// Sends a request, and returns the connection on which the answer comes.
    fn open(&self, request: &Value, patience: Duration) -> Result<Answers, Failure> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => Failure::NotAllowed,
            // The backlog is full.
            ErrorKind::WouldBlock => Failure::Silent,
            _ => Failure::NoRelay(crate::os::reason(&error)),
        })?;
        let lost = |_| Failure::Silent;
        stream.set_read_timeout(Some(patience)).map_err(lost)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(lost)?;
        stream.write_all(format!("{request}\n").as_bytes()).map_err(lost)?;
        Ok(Answers { lines: BufReader::new(stream.take(MOST_ANSWER)), patience })
    }
}

/// What the relay says to a request.
pub(super) struct Answers {
    lines: BufReader<Take<UnixStream>>,
    patience: Duration,
}

impl Answers {
    /// The next line.
    fn line(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(1..) => serde_json::from_str(&line).map_err(|_| Failure::Silent),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let text = format!("no answer within {} seconds", self.patience.as_secs());
                Err(Failure::TimeIsOver(text))
            }
            _ => Err(Failure::Silent),
        }
    }

    /// The answer. `note` gets the lines before it.
    fn answer(&mut self, note: &mut impl FnMut(&Value)) -> Result<Value, Failure> {
        loop {
            let answer = self.line()?;
            if let Some(error) = answer.get("error") {
                return Err(Failure::Refused(error.as_str().unwrap_or("refused").to_owned()));
            }
            if answer.get("ok").is_some() {
                return Ok(answer);
            }
            note(&answer);
        }
    }

    /// Waits until the relay closes the connection, for as long as that takes. `note` gets the
    /// lines before it.
    pub(super) fn end(mut self, mut note: impl FnMut(&Value)) {
        let _ = self.lines.get_ref().get_ref().set_read_timeout(None);
        while let Ok(line) = self.line() {
            note(&line);
        }
    }
}

//! The process with the private keys (`tls keys = separate`): the broker starts it with the first
//! worker, gives each worker a stream to it, and starts it again when it dies.
//!
//! The broker keeps the keys for that, as bytes. It sends them only after that process has said
//! that it is confined.

use super::Workers;
use crate::broker::kind;
use crate::broker::policy::WorkerId;
use crate::channel::signing::{LOG_FILE, WORKER};
use crate::event::{Event, Interest, Loop, Token};
use crate::os::descriptor::poll_state;
use crate::os::process::{self, Descriptors, Identity, Pid, Program, Rights};
use crate::os::secret::Secret;
use crate::os::{self, channel, log, Channel, Socket};
use crate::snapshot::material::Material;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

/// The environment variable that makes a process of this program the one with the private keys.
pub const SIGNER_VARIABLE: &str = "TCPRELAY_SIGNER";
/// Its only argument, for ps(1).
pub const SIGNER_ARGUMENT: &str = "private-keys";

/// If it lives shorter than this, in milliseconds, it is started again only after as long a pause.
const SETTLED: u64 = 1000;

/// The process with the private keys.
pub(super) struct Signer {
    pid: Pid,
    channel: Socket,
    started: u64,
    /// The keys it was started for.
    material: Rc<Material>,
    state: State,
    /// Streams to workers, to be passed on once it has the keys.
    streams: VecDeque<Socket>,
    /// The log file, opened again, to be passed on.
    log_file: Option<OwnedFd>,
    /// It has closed its end of the channel.
    ended: bool,
}

enum State {
    /// It is not confined yet.
    Starting,
    /// It is being sent the keys; this much was sent.
    Telling(Secret, usize),
    Serving,
}

impl Workers {
    /// Gives a worker a stream to the process with the private keys, if its keys are there.
    pub(super) fn give_signer(&mut self, id: WorkerId, events: &mut Loop) {
        let needs = self.all.get(&id).is_some_and(|worker| worker.material().keys().is_some());
        if !needs || self.signer.is_none() && !self.start_signer(events) {
            return;
        }
        let (Some(signer), Some(worker)) = (&mut self.signer, self.all.get_mut(&id)) else {
            return;
        };
        match channel::stream_pair() {
            Ok((ours, theirs)) => {
                signer.streams.push_back(theirs);
                signer.go_on(events);
                worker.give_signer(ours, events);
            }
            Err(error) => {
                log::braked(log::Kind::Worker, || format!("socketpair: {}", os::reason(&error)));
            }
        }
    }

    /// Starts the process with the private keys. If that is impossible now, it is tried again after
    /// a pause.
    fn start_signer(&mut self, events: &mut Loop) -> bool {
        let super::Servers::Own(program) = &self.servers else {
            return false;
        };
        if self.signer_paused {
            return false;
        }
        match Signer::start(program, Rc::clone(&self.secrets.material), events) {
            Ok(signer) => {
                self.signer = Some(signer);
                true
            }
            Err((call, error)) => {
                log::braked(log::Kind::Worker, || format!("{call}: {}", os::reason(&error)));
                self.pause_signer(events);
                false
            }
        }
    }

    fn pause_signer(&mut self, events: &mut Loop) {
        self.signer_paused = true;
        events.arm(Token::new(kind::SIGNER_PAUSE, 0), events.now() + SETTLED);
    }

    /// The pause is over.
    pub(in crate::broker) fn signer_may_start(&mut self, events: &mut Loop) {
        self.signer_paused = false;
        self.replace_signer(events);
    }

    /// Starts the process again, for the workers that there are.
    fn replace_signer(&mut self, events: &mut Loop) {
        let ids: Vec<WorkerId> = self.all.keys().copied().collect();
        for id in ids {
            // A worker that has not said HELLO gets its stream with the answer; one that leaves is
            // told nothing more.
            let wants =
                |worker: &super::Worker| worker.side.has_been_heard() && !worker.side.is_leaving();
            if self.all.get(&id).is_some_and(wants) {
                self.give_signer(id, events);
            }
        }
    }

    /// The channel to the process is ready.
    pub(in crate::broker) fn signer_event(&mut self, event: Event, events: &mut Loop) {
        let mut all = self.signer.iter_mut().chain(&mut self.former_signers);
        if let Some(signer) = all.find(|signer| signer.token() == event.token) {
            if event.readable || event.hangup {
                signer.hear(events);
            }
            signer.go_on(events);
        }
        self.release_signers(events);
    }

    /// A process has ended. True if it was the one with the private keys, which is started again.
    pub(super) fn signer_ended(&mut self, pid: Pid, events: &mut Loop) -> bool {
        if let Some(place) = self.former_signers.iter().position(|signer| signer.pid == pid) {
            let signer = self.former_signers.swap_remove(place);
            events.remove(&signer.channel);
            log::braked(log::Kind::Worker, || {
                format!(
                    "the process with the former private keys (pid {pid}) has ended, workers that \
                     leave cannot complete handshakes"
                )
            });
            return true;
        }
        let Some(signer) = self.signer.take_if(|signer| signer.pid == pid) else {
            return false;
        };
        events.remove(&signer.channel);
        log::braked(log::Kind::Worker, || {
            format!(
                "the process with the private keys (pid {pid}) has ended, workers get another one"
            )
        });
        if events.now().saturating_sub(signer.started) < SETTLED {
            self.pause_signer(events);
        } else {
            self.replace_signer(events);
        }
        true
    }

    /// The log file was opened again.
    pub(super) fn give_log_to_signer(&mut self, events: &mut Loop) {
        if let Some(signer) = &mut self.signer {
            signer.log_file = log::copy_of_file();
            signer.go_on(events);
        }
    }

    /// Leaves the process to the workers that it serves: it ends with them. Those that are started
    /// from now on get another one.
    pub(super) fn leave_signer(&mut self, events: &mut Loop) {
        self.former_signers.extend(self.signer.take());
        self.release_signers(events);
    }

    /// Former processes are left alone once they have the streams of their workers: one that is still
    /// starting has not got them.
    fn release_signers(&mut self, events: &mut Loop) {
        self.former_signers.retain(|signer| {
            let owed = !signer.ended && !signer.streams.is_empty();
            if !owed {
                events.remove(&signer.channel);
            }
            owed
        });
    }
}

impl Signer {
    /// Names its channel in the loop.
    fn token(&self) -> Token {
        Token::new(kind::SIGNER, self.pid.unsigned_abs())
    }

    fn start(
        workers: &Program,
        material: Rc<Material>,
        events: &mut Loop,
    ) -> Result<Signer, (&'static str, io::Error)> {
        let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        environment.push((SIGNER_VARIABLE.into(), "1".into()));
        let program = Program {
            arguments: vec![SIGNER_ARGUMENT.into()],
            environment: Some(environment),
            identity: Identity { rights: Rights::None, ..workers.identity },
            ..workers.clone()
        };
        let (channel, theirs) = channel::stream_pair().map_err(|error| ("socketpair", error))?;
        let kept = log::descriptor().into_iter().collect();
        let descriptors = Descriptors { stdin: theirs.into(), stderr: None, kept };
        let pid =
            process::spawn(&program, descriptors, log::message).map_err(|error| ("fork", error))?;
        let signer = Signer {
            pid,
            channel,
            started: events.now(),
            material,
            state: State::Starting,
            streams: VecDeque::new(),
            log_file: None,
            ended: false,
        };
        events.register(&signer.channel, signer.token(), Interest::READ);
        Ok(signer)
    }

    /// It may have said that it is confined, and gets the keys then.
    fn hear(&mut self, events: &mut Loop) {
        match (self.channel.read(&mut [0]), &self.state) {
            (Ok(1..), State::Starting) => {
                // Their length in eight bytes, then the keys.
                let told = self.material.encode(&[0; 8]).map(|mut secrets| {
                    let length = secrets.len() as u64 - 8;
                    secrets[..8].copy_from_slice(&length.to_ne_bytes());
                    self.state = State::Telling(secrets, 0);
                });
                if let Err(error) = told {
                    log::braked(log::Kind::Channel, || format!("mmap: {}", os::reason(&error)));
                }
            }
            (Err(error), _) if os::would_block(&error) => {}
            // It has ended, and SIGCHLD is on its way; or it says more than it may.
            _ => self.streams.clear(),
        }
        let ended = poll_state(self.channel.as_raw_fd()).hangup;
        self.ended |= ended;
        if ended {
            events.set_interest(&self.channel, Interest::empty());
        }
    }

    /// Sends what is due, as long as the channel has room.
    fn go_on(&mut self, events: &mut Loop) {
        if self.ended {
            return;
        }
        let mut wanted = Interest::READ;
        match self.send() {
            Ok(()) => {}
            Err(error) if channel::is_full(&error) => wanted |= Interest::in_room(&error),
            // It has ended, and SIGCHLD is on its way.
            Err(_) => wanted = Interest::empty(),
        }
        events.set_interest(&self.channel, wanted);
    }

    fn send(&mut self) -> io::Result<()> {
        while let State::Telling(data, sent) = &mut self.state {
            *sent += self.channel.write(&data[*sent..])?;
            if *sent == data.len() {
                self.state = State::Serving;
            }
        }
        if let (State::Serving, Some(file)) = (&self.state, &self.log_file) {
            Channel::from(self.channel.as_fd()).send(&[LOG_FILE], Some(file.as_fd()))?;
            self.log_file = None;
        }
        while let (State::Serving, Some(stream)) = (&self.state, self.streams.front()) {
            Channel::from(self.channel.as_fd()).send(&[WORKER], Some(stream.as_fd()))?;
            self.streams.pop_front();
        }
        Ok(())
    }
}

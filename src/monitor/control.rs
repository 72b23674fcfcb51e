//! The control socket's clients: lines of JSON, a request and its answer. The broker has accepted
//! them and knows what they may do. It does itself what only it can do; everything else is answered
//! here.
//!
//! A client costs little: its request has at most [`MOST_REQUEST`] bytes, it is served no longer
//! than [`PATIENCE`] without getting further, and it sends its next request only after it has read
//! the answer to the last.

mod change;
mod request;
mod sessions;

use super::kind;
use super::shared::Shared;
use super::view::Overview;
use crate::channel::protocol::{Caller, Errand, Rights, Wants, CALLERS};
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::os::{self, Socket};
use request::Request;
use serde_json::json;
use sessions::{Job, Round};
use std::collections::{BTreeMap, VecDeque};

/// The longest request, in bytes.
const MOST_REQUEST: usize = 4096;
/// How long a client may be silent, or not read its answer, in milliseconds.
const PATIENCE: u64 = 30_000;
/// How often to look whether workers have answered, in milliseconds.
const LOOK_STEP: u64 = 25;
/// The timer for that: no client has this number.
const LOOK: u32 = CALLERS;
/// Reads in one turn.
const READS: usize = 4;

/// All clients of the control socket.
#[derive(Default)]
pub(super) struct Control {
    clients: BTreeMap<u32, Client>,
    /// What workers are to be asked, and for which client: one after the other.
    jobs: VecDeque<(u32, Job)>,
    /// The first of them is being done.
    round: Option<(Round, TimerId)>,
    /// For the broker.
    errands: VecDeque<Errand>,
}

struct Client {
    socket: Socket,
    rights: Rights,
    /// What it has sent, and was not answered yet.
    input: Vec<u8>,
    /// What it was answered, and has not taken yet.
    output: Vec<u8>,
    phase: Phase,
    timer: TimerId,
}

/// Whether a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Workers are asked for it; until they have answered, it is not heard.
    Busy,
}

/// What becomes of a client.
enum Next {
    Stay,
    /// It is gone, or sends nonsense.
    Leave,
    /// The broker answers it.
    Broker(Wants),
    /// Workers have to be asked.
    Ask(Job),
}

/// True if a line is a request.
pub(super) fn is_request(line: &[u8]) -> bool {
    Request::parse(line).is_ok()
}

impl Control {
    /// The broker has sent a client.
    pub(super) fn take(&mut self, socket: Socket, caller: Caller, events: &mut Loop) {
        let Caller { number, rights } = caller;
        let token = Token::new(kind::CONTROL, number);
        events.register(&socket, token, Interest::READ);
        let timer = events.arm(token, events.now() + PATIENCE);
        let (input, output, phase) = (Vec::new(), Vec::new(), Phase::Open);
        let client = Client { socket, rights, input, output, phase, timer };
        self.clients.insert(number, client);
    }

    /// What the broker has to do.
    pub(super) fn errand(&mut self) -> Option<Errand> {
        self.errands.pop_front()
    }

    /// A client's socket is ready.
    pub(super) fn event(&mut self, event: Event, shared: &Shared, events: &mut Loop) {
        let number = event.token.index();
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let next = client.ready(event, shared, events);
        self.go_on(number, next, shared, events);
    }

    /// A client's time is over, or it is time to look what workers have answered.
    pub(super) fn timer(
        &mut self,
        timer: TimerId,
        token: Token,
        shared: &Shared,
        events: &mut Loop,
    ) {
        let number = token.index();
        if number == LOOK {
            if self.round.as_ref().is_some_and(|(_, armed)| *armed == timer) {
                self.look(shared, events);
            }
        } else if self.clients.get(&number).is_some_and(|client| client.timer == timer) {
            self.go_on(number, Next::Leave, shared, events);
        }
    }

    /// Asks workers for the first client that waits for that.
    fn ask(&mut self, shared: &Shared, events: &mut Loop) {
        if let (None, Some((_, job))) = (&self.round, self.jobs.front()) {
            let round = Round::begin(job, shared, events.now());
            let timer = events.arm(Token::new(kind::CONTROL, LOOK), events.now());
            self.round = Some((round, timer));
        }
    }

    /// Looks whether workers have answered, and tells the client; others that want a list too are
    /// told what they want of the same one.
    fn look(&mut self, shared: &Shared, events: &mut Loop) {
        let Some((round, _)) = self.round.take() else {
            return;
        };
        if !round.is_over(shared, events.now()) {
            let token = Token::new(kind::CONTROL, LOOK);
            let timer = events.arm(token, events.now() + LOOK_STEP);
            self.round = Some((round, timer));
            return;
        }
        let lists = matches!(self.jobs.front(), Some((_, Job::List(_))));
        let (mut first, mut answers) = (true, Vec::new());
        for (number, job) in std::mem::take(&mut self.jobs) {
            let same = lists && matches!(job, Job::List(_));
            if !std::mem::take(&mut first) && !same {
                self.jobs.push_back((number, job));
                continue;
            }
            let answer = round.answer(&job, shared);
            let answer = answer.map_or_else(|text| failure(&text), |answer| answer.to_string());
            answers.push((number, answer));
        }
        // Only now, as a client may ask again at once, and what workers then say replaces this.
        for (number, answer) in answers {
            if let Some(client) = self.clients.get_mut(&number) {
                let next = client.told(&answer, shared, events);
                self.go_on(number, next, shared, events);
            }
        }
        self.ask(shared, events);
    }

    fn go_on(&mut self, number: u32, next: Next, shared: &Shared, events: &mut Loop) {
        let wants = match next {
            Next::Stay => return,
            Next::Ask(job) => {
                self.jobs.push_back((number, job));
                return self.ask(shared, events);
            }
            Next::Leave => Wants::Nothing,
            Next::Broker(wants) => wants,
        };
        if let Some(client) = self.clients.remove(&number) {
            events.remove(&client.socket);
            events.cancel(client.timer);
        }
        // The first one is being done, and has nobody to be told.
        let mut place = 0;
        self.jobs.retain(|(client, _)| {
            place += 1;
            place == 1 || *client != number
        });
        self.errands.push_back(Errand { caller: number, wants });
    }

    /// Closes all connections.
    pub(super) fn end(&mut self, events: &mut Loop) {
        if let Some((_, timer)) = self.round.take() {
            events.cancel(timer);
        }
        self.jobs.clear();
        for client in std::mem::take(&mut self.clients).into_values() {
            events.remove(&client.socket);
            events.cancel(client.timer);
        }
    }
}

impl Client {
    fn ready(&mut self, event: Event, shared: &Shared, events: &mut Loop) -> Next {
        if !self.flush() {
            return Next::Leave;
        }
        if self.phase == Phase::Busy {
            // It is gone; anything else it says is not heard yet.
            return if event.hangup { Next::Leave } else { Next::Stay };
        }
        self.answer(shared, events)
    }

    /// Workers have answered.
    fn told(&mut self, answer: &str, shared: &Shared, events: &mut Loop) -> Next {
        self.phase = Phase::Open;
        self.say(answer);
        self.answer(shared, events)
    }

    /// Answers what it has sent, as far as it takes the answers.
    fn answer(&mut self, shared: &Shared, events: &mut Loop) -> Next {
        let next = match self.output.is_empty() {
            true => self.hear(shared),
            false => Next::Stay,
        };
        let interest = match &next {
            Next::Ask(_) => {
                self.phase = Phase::Busy;
                Interest::HANGUP
            }
            _ if self.output.is_empty() => Interest::READ,
            _ => Interest::WRITE,
        };
        events.set_interest(&self.socket, interest);
        events.renew(self.timer, events.now() + PATIENCE);
        next
    }

    /// Reads, and answers requests.
    fn hear(&mut self, shared: &Shared) -> Next {
        let mut ended = false;
        for _ in 0..READS {
            let mut data = [0; 1024];
            match self.socket.read(&mut data) {
                Ok(0) => ended = true,
                Ok(count) => self.input.extend_from_slice(&data[..count]),
                Err(error) if os::would_block(&error) => break,
                Err(_) => return Next::Leave,
            }
            if ended || self.input.len() > MOST_REQUEST {
                break;
            }
        }
        while self.output.is_empty() {
            let Some(end) = self.input.iter().position(|&byte| byte == b'\n') else {
                if self.input.len() > MOST_REQUEST {
                    self.say(&failure("the request is too long"));
                    // Whether or not it reads that.
                    return Next::Leave;
                }
                return if ended { Next::Leave } else { Next::Stay };
            };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let answer = match Request::parse(&line) {
                Ok(request) if request.changes() && !self.may_change() => failure(NOT_ALLOWED),
                Ok(Request::Broker(wants)) => return Next::Broker(wants),
                Ok(Request::Work(job)) => return Next::Ask(job),
                Ok(Request::Show(parts)) => Overview::of(shared).answer(parts),
                Ok(Request::Change { remote, change, lasts }) => {
                    change::change(&remote, change, lasts, shared)
                        .map_or_else(|text| failure(&text), |answer| answer.to_string())
                }
                Err(text) => failure(&text),
            };
            self.say(&answer);
        }
        Next::Stay
    }

    fn may_change(&self) -> bool {
        self.rights == Rights::Change
    }

    fn say(&mut self, answer: &str) {
        self.output.extend_from_slice(answer.as_bytes());
        self.output.push(b'\n');
        // A client that is gone is noticed with its next event.
        self.flush();
    }

    /// Sends what is to be sent; false if the client is gone.
    fn flush(&mut self) -> bool {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.socket.write(&self.output[sent..]) {
                Ok(count) => sent += count,
                Err(error) if os::would_block(&error) => break,
                Err(_) => return false,
            }
        }
        self.output.drain(..sent);
        true
    }
}

const NOT_ALLOWED: &str = "only root and the owner of the socket may do that";

fn failure(text: &str) -> String {
    json!({ "error": text }).to_string()
}

//! Answers over HTTP: the status page, the same as JSON, the metrics, and whether all is well.
//! Nothing can be changed here.
//!
//! Clients are few, their requests short, and both request and response have a deadline. When there
//! is no room for one more, a client that has nothing to say makes way.

use super::history::History;
use super::http::{self, After, Head, Method, Parsed, Request};
use super::kind;
use super::metrics::{self, Format};
use super::page;
use super::shared::Shared;
use super::view::Overview;
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::os::socket::{Blocking, Options};
use crate::os::{self, log, Listener, Socket};
use std::net::Shutdown;
use std::rc::Rc;

/// The most clients at a time.
const MOST_CLIENTS: usize = 32;
/// Requests of one client that are answered before others have their turn.
const REQUESTS: usize = 16;
/// Reads of one client in a turn, and the bytes of each.
const READS: usize = 16;
const READ: usize = 2048;
/// How long a client may be silent between requests, in milliseconds; for a request, once it has
/// begun; to take a response; and to close its end after the last one.
const IDLE: u64 = 75_000;
const REQUEST: u64 = 10_000;
const RESPONSE: u64 = 30_000;
const FAREWELL: u64 = 2_000;
/// How long what was made for one client is good for others, in milliseconds: many clients cost no
/// more than a few.
const FRESH: u64 = 200;
/// How long accepting pauses when this process is short of descriptors, in milliseconds.
const REST: u64 = 1000;

/// Token indices: of the listening socket, and of two timers. The clients' follow.
const LISTENER: u32 = 0;
const SAMPLE: u32 = 0;
const RESUME: u32 = 1;
const CLIENTS: u32 = 2;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Page,
    Json,
    Metrics(Format),
}

/// What a client is doing.
enum Stage {
    /// It sends a request, or may.
    Asking,
    /// It gets a response.
    Taking { head: Vec<u8>, body: Rc<[u8]>, taken: usize, after: After },
    /// It has got the last response, and has to close its end: were there unread bytes when ours is
    /// closed, it might not get the response.
    Leaving,
}

struct Client {
    socket: Socket,
    stage: Stage,
    /// What it has sent and was not answered.
    input: Vec<u8>,
    deadline: u64,
    timer: TimerId,
    /// A number that grows with each client, and with each of its requests.
    turn: u64,
}

/// What follows from a step of a client.
enum Next {
    Read,
    Write,
    /// It goes on at once, when others have had their turn.
    Turn,
    Close,
}

/// The status page.
#[derive(Default)]
pub(super) struct Status {
    listener: Option<Listener>,
    clients: Vec<Option<Client>>,
    history: History,
    /// What was made last, and when.
    made: Vec<(Resource, u64, Rc<[u8]>)>,
    trouble: bool,
    turns: u64,
}

fn token(index: u32) -> Token {
    Token::new(kind::STATUS, index)
}

impl Status {
    /// Starts to answer at a socket.
    pub(super) fn serve(&mut self, listener: Listener, shared: &Shared, events: &mut Loop) {
        if self.listener.is_some() || listener.set_nonblocking().is_err() {
            return;
        }
        events.register(&listener, token(LISTENER), Interest::READ);
        self.listener = Some(listener);
        self.clients.resize_with(MOST_CLIENTS, || None);
        self.sample(shared, events);
    }

    /// Gives up what is under way.
    pub(super) fn end(&mut self, events: &mut Loop) {
        for index in 0..self.clients.len() {
            self.close(index, events);
        }
        if let Some(listener) = self.listener.take() {
            events.remove(&listener);
        }
    }

    /// A descriptor is ready.
    pub(super) fn event(&mut self, event: Event, shared: &Shared, events: &mut Loop) {
        match event.token.index() {
            LISTENER => self.accept(shared, events),
            index => self.step((index - CLIENTS.min(index)) as usize, shared, events),
        }
    }

    /// A timer has expired.
    pub(super) fn timer(
        &mut self,
        timer: TimerId,
        token: Token,
        shared: &Shared,
        events: &mut Loop,
    ) {
        match token.index() {
            SAMPLE if self.listener.is_some() => self.sample(shared, events),
            SAMPLE => {}
            RESUME => self.watch_listener(Interest::READ, events),
            index => {
                let index = (index - CLIENTS) as usize;
                let Some(Some(client)) = self.clients.get_mut(index) else {
                    return;
                };
                if client.timer != timer {
                    return;
                }
                client.timer = events.arm(token, client.deadline);
                match (&client.stage, events.now() >= client.deadline) {
                    (_, false) => {}
                    (Stage::Asking, true) if !client.input.is_empty() => {
                        client.refuse(http::Status::Timeout, events);
                    }
                    (_, true) => return self.close(index, events),
                }
                self.step(index, shared, events);
            }
        }
    }

    /// Takes a sample for the lines of the last minutes.
    fn sample(&mut self, shared: &Shared, events: &mut Loop) {
        self.history.sample(shared, events.now());
        events.arm(token(SAMPLE), events.now() + History::STEP);
    }

    fn watch_listener(&self, interest: Interest, events: &mut Loop) {
        if let Some(listener) = &self.listener {
            events.set_interest(listener, interest);
        }
    }

    fn accept(&mut self, shared: &Shared, events: &mut Loop) {
        for _ in 0..MOST_CLIENTS {
            // One that makes way does so only for another that is there.
            let Some(index) = self.place() else {
                // Goes on when a client has left.
                return self.watch_listener(Interest::empty(), events);
            };
            let Some(listener) = &self.listener else {
                return;
            };
            let socket = match listener.accept(Blocking::No) {
                Ok(socket) => socket,
                Err(error) if os::would_block(&error) => return,
                Err(error) => {
                    if !std::mem::replace(&mut self.trouble, true) {
                        log::braked(log::Kind::Accept, || {
                            format!("status: accept: {}", os::reason(&error))
                        });
                    }
                    self.watch_listener(Interest::empty(), events);
                    events.arm(token(RESUME), events.now() + REST);
                    return;
                }
            };
            self.trouble = false;
            self.close(index, events);
            socket.set_no_delay();
            let token = token(index as u32 + CLIENTS);
            events.register(&socket, token, Interest::READ);
            let deadline = events.now() + REQUEST;
            let timer = events.arm(token, deadline);
            let (stage, input, turn) = (Stage::Asking, Vec::new(), self.next_turn());
            self.clients[index] = Some(Client { socket, stage, input, deadline, timer, turn });
            self.step(index, shared, events);
        }
    }

    /// A place for one more client: a free one, or that of the client that has had nothing to say
    /// for longest.
    fn place(&self) -> Option<usize> {
        if let Some(free) = self.clients.iter().position(Option::is_none) {
            return Some(free);
        }
        let idle = self.clients.iter().enumerate().filter_map(|(index, client)| {
            let client = client.as_ref()?;
            let idle = matches!(client.stage, Stage::Asking) && client.input.is_empty();
            (idle || matches!(client.stage, Stage::Leaving)).then_some((client.turn, index))
        });
        idle.min().map(|(_, index)| index)
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn close(&mut self, index: usize, events: &mut Loop) {
        if let Some(client) = self.clients.get_mut(index).and_then(Option::take) {
            events.cancel(client.timer);
            events.remove(&client.socket);
            self.watch_listener(Interest::READ, events);
        }
    }

    /// Goes on with a client as far as possible without waiting.
    fn step(&mut self, index: usize, shared: &Shared, events: &mut Loop) {
        let Some(mut client) = self.clients.get_mut(index).and_then(Option::take) else {
            return;
        };
        let mut next = Next::Turn;
        for _ in 0..REQUESTS {
            next = match &mut client.stage {
                Stage::Asking => match client.ask(events) {
                    Ok(Some(request)) => {
                        client.turn = self.next_turn();
                        self.answer(&request, &mut client, shared, events);
                        continue;
                    }
                    Ok(None) => continue,
                    Err(next) => next,
                },
                Stage::Taking { .. } => match client.take(events) {
                    Some(next) => next,
                    None => continue,
                },
                Stage::Leaving => client.leave(),
            };
            break;
        }
        events.renew(client.timer, client.deadline);
        match next {
            Next::Read => events.set_interest(&client.socket, Interest::READ),
            Next::Write => events.set_interest(&client.socket, Interest::WRITE),
            Next::Turn => events.renew(client.timer, events.now()),
            Next::Close => {}
        }
        let closes = matches!(next, Next::Close);
        self.clients[index] = Some(client);
        if closes {
            self.close(index, events);
        }
    }

    fn answer(&mut self, request: &Request, client: &mut Client, shared: &Shared, events: &Loop) {
        let text = |status, body: &str| (status, TEXT, Rc::from(body.as_bytes()));
        let mut more = "";
        let (status, kind, body) = match &*request.path {
            "/" => {
                more = page::FIELDS;
                (http::Status::Ok, HTML, self.make(Resource::Page, shared, events.now()))
            }
            "/status.json" => {
                (http::Status::Ok, JSON, self.make(Resource::Json, shared, events.now()))
            }
            "/metrics" => {
                let format = Format::wanted(&request.accept);
                more = "Vary: Accept\r\n";
                let body = self.make(Resource::Metrics(format), shared, events.now());
                (http::Status::Ok, format.kind(), body)
            }
            "/healthz" => text(http::Status::Ok, "ok\n"),
            "/readyz" => match unready(shared) {
                None => text(http::Status::Ok, "ok\n"),
                Some(why) => text(http::Status::Unavailable, why),
            },
            _ => text(http::Status::NotFound, "not found\n"),
        };
        client.reply(request.method, status, kind, more, body, request.after, events);
    }

    fn make(&mut self, resource: Resource, shared: &Shared, now: u64) -> Rc<[u8]> {
        self.made.retain(|&(_, time, _)| now < time + FRESH);
        if let Some((_, _, body)) = self.made.iter().find(|(known, ..)| *known == resource) {
            return body.clone();
        }
        let overview = Overview::of(shared);
        let text = match resource {
            Resource::Page => page::page(&overview, &self.history),
            Resource::Json => overview.to_json(),
            Resource::Metrics(format) => metrics::text(&overview, format),
        };
        let body: Rc<[u8]> = Rc::from(text.into_bytes());
        self.made.push((resource, now, body.clone()));
        body
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// Why no client could be served now.
fn unready(shared: &Shared) -> Option<&'static str> {
    let overview = Overview::of(shared);
    let serves = overview
        .workers()
        .any(|worker| worker.standing == crate::upstream::zone::counters::Standing::Serving);
    match (serves, overview.is_serving()) {
        (false, _) => Some("no worker is ready\n"),
        (_, false) => Some("no remote is up\n"),
        (true, true) => None,
    }
}

impl Client {
    /// Reads until there is a request. `None` if there is a response to one that is wrong.
    fn ask(&mut self, events: &Loop) -> Result<Option<Request>, Next> {
        for _ in 0..READS {
            match http::parse(&self.input) {
                Parsed::Request(request, length) => {
                    self.input.drain(..length);
                    return Ok(Some(request));
                }
                Parsed::Wrong(status) => {
                    self.refuse(status, events);
                    return Ok(None);
                }
                Parsed::Partial => {}
            }
            let mut buffer = [0; READ];
            let room = (http::MOST_HEAD - self.input.len().min(http::MOST_HEAD)).clamp(1, READ);
            match self.socket.read(&mut buffer[..room]) {
                Ok(0) => return Err(Next::Close),
                Ok(count) => {
                    if self.input.is_empty() {
                        self.deadline = events.now() + REQUEST;
                    }
                    self.input.extend_from_slice(&buffer[..count]);
                }
                Err(error) if os::would_block(&error) => return Err(Next::Read),
                Err(_) => return Err(Next::Close),
            }
        }
        Err(Next::Turn)
    }

    /// Answers what is no request, and closes the connection after that.
    fn refuse(&mut self, status: http::Status, events: &Loop) {
        self.input.clear();
        let body: Rc<[u8]> = Rc::from(format!("{}\n", status.text()).into_bytes());
        self.reply(Method::Get, status, TEXT, "", body, After::Close, events);
    }

    #[allow(clippy::too_many_arguments)]
    fn reply(
        &mut self,
        method: Method,
        status: http::Status,
        kind: &'static str,
        more: &'static str,
        body: Rc<[u8]>,
        after: After,
        events: &Loop,
    ) {
        let head = Head { status, kind, length: body.len(), more, after };
        let head = head.encode(os::wall_clock());
        let body = if method == Method::Head { Rc::from([]) } else { body };
        self.stage = Stage::Taking { head, body, taken: 0, after };
        self.deadline = events.now() + RESPONSE;
    }

    /// Writes a response. `None` when it is all sent.
    fn take(&mut self, events: &Loop) -> Option<Next> {
        let Stage::Taking { head, body, taken, after } = &mut self.stage else {
            return None;
        };
        loop {
            let rest = match head.get(*taken..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => &body[*taken - head.len()..],
            };
            if rest.is_empty() {
                break;
            }
            match self.socket.write(rest) {
                Ok(count) => *taken += count,
                Err(error) if os::would_block(&error) => return Some(Next::Write),
                Err(_) => return Some(Next::Close),
            }
        }
        match after {
            After::Stay => {
                self.stage = Stage::Asking;
                let patience = if self.input.is_empty() { IDLE } else { REQUEST };
                self.deadline = events.now() + patience;
            }
            After::Close => {
                let _ = self.socket.shutdown(Shutdown::Write);
                self.stage = Stage::Leaving;
                self.deadline = events.now() + FAREWELL;
            }
        }
        None
    }

    /// Reads what nobody wants until the client has closed its end.
    fn leave(&mut self) -> Next {
        let mut buffer = [0; READ];
        for _ in 0..READS {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Next::Close,
                Ok(_) => {}
                Err(error) if os::would_block(&error) => return Next::Read,
                Err(_) => return Next::Close,
            }
        }
        Next::Read
    }
}

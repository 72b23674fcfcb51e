//! Clients of the control socket. The broker accepts them and passes them to the monitor, which
//! reads what they want and answers. What only the broker can do comes back as an errand; the
//! broker then answers on its own copy of the connection, which it keeps for that.
//!
//! A client that waits for a reload is handed over to the next image, which tells it how that went.

use super::handover::LeftCaller;
use crate::channel::protocol::{Caller, Errand, Rights, CALLERS};
use crate::os::Socket;
use serde_json::{json, Value};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};

/// The most clients at a time; others wait in the backlog.
const MOST: usize = 16;
/// The most that a client is told about mistakes in a configuration, in bytes: less than the buffer
/// of a socket on any system.
const MOST_TEXT: usize = 6000;

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The check of the configuration that is running, or will be next.
    Check,
    /// The one after that, as this one may have read the file before it was changed.
    NextCheck,
    /// Workers that serve with the new configuration.
    Start,
}

/// The clients of the control socket.
#[derive(Default)]
pub(super) struct Callers {
    /// Those that the monitor talks to.
    with_monitor: BTreeMap<u32, (Socket, Rights)>,
    next: u32,
    errands: VecDeque<Errand>,
    /// Those that wait for a reload.
    waiting: Vec<(Socket, Until)>,
    /// Those that have ended the service, and wait until it has. Their connections close with it.
    stopping: Vec<Socket>,
    /// How many sessions they were told are left.
    told: usize,
}

impl Callers {
    /// Clients that the former image has left.
    pub(super) fn new(former: Vec<LeftCaller<Socket>>) -> Callers {
        let waiting = former.into_iter().map(|LeftCaller { socket, again }| {
            (socket, if again { Until::Check } else { Until::Start })
        });
        Callers { waiting: waiting.collect(), ..Callers::default() }
    }

    /// True if another one may come.
    pub(super) fn has_room(&self) -> bool {
        self.with_monitor.len() + self.waiting.len() + self.stopping.len() < MOST
    }

    /// A number for another one.
    pub(super) fn number(&mut self, rights: Rights) -> Caller {
        while self.with_monitor.contains_key(&self.next) {
            self.next = (self.next + 1) % CALLERS;
        }
        let number = self.next;
        self.next = (self.next + 1) % CALLERS;
        Caller { number, rights }
    }

    /// The monitor has got a client.
    pub(super) fn passed(&mut self, caller: Caller, socket: Socket) {
        self.with_monitor.insert(caller.number, (socket, caller.rights));
    }

    /// The monitor is gone, and the clients that it talked to with it.
    pub(super) fn monitor_is_gone(&mut self) {
        self.with_monitor.clear();
        self.errands.clear();
    }

    /// The monitor has said what becomes of a client.
    pub(super) fn note(&mut self, errand: Errand) {
        self.errands.push_back(errand);
    }

    /// The next of the errands, with the client that it is for.
    pub(super) fn next_errand(&mut self) -> Option<(Errand, Socket, Rights)> {
        loop {
            let errand = self.errands.pop_front()?;
            if let Some((socket, rights)) = self.with_monitor.remove(&errand.caller) {
                return Some((errand, socket, rights));
            }
        }
    }

    /// A client waits for a reload.
    pub(super) fn wait(&mut self, socket: Socket, until: Until) {
        self.waiting.push((socket, until));
    }

    /// The configuration is good, with these warnings.
    pub(super) fn accepted(&self, warnings: &[String]) {
        let concerned = self.waiting.iter().filter(|(_, until)| *until == Until::Check);
        for (socket, _) in concerned {
            for warning in warnings {
                say(socket, &json!({ "warning": warning }));
            }
        }
    }

    /// The reload that clients wait for did not happen, for these reasons. Those that wait for the
    /// next check are next.
    pub(super) fn refused(&mut self, reasons: &[String]) {
        // A check says this as well before it exits; the broker does not exit.
        let fatal = "Detected fatal configuration error. Exiting.";
        let reasons: Vec<&str> =
            reasons.iter().map(|line| &**line).filter(|line| *line != fatal).collect();
        let mut text = reasons.join("\n");
        while text.len() > MOST_TEXT {
            text.pop();
        }
        self.waiting.retain(|(socket, until)| {
            let waits = *until == Until::NextCheck;
            if !waits {
                say(socket, &failure(&text));
            }
            waits
        });
        self.check_ended();
    }

    /// A check has ended: what was to be the next one is.
    pub(super) fn check_ended(&mut self) {
        for (_, until) in &mut self.waiting {
            if *until == Until::NextCheck {
                *until = Until::Check;
            }
        }
    }

    /// Connections are served.
    pub(super) fn started(&mut self) {
        self.waiting.retain(|(socket, until)| {
            let waits = *until != Until::Start;
            if !waits {
                say(socket, &json!({ "ok": true, "pid": std::process::id() }));
            }
            waits
        });
    }

    /// The broker is about to end: clients are told nothing more, but those that want this.
    pub(super) fn end(&mut self) {
        self.check_ended();
        self.refused(&["the service is ending".to_owned()]);
        self.monitor_is_gone();
    }

    /// A client has ended the service, which has so many sessions left.
    pub(super) fn stop(&mut self, socket: Socket, sessions: usize) {
        self.stopping.push(socket);
        self.told = sessions;
    }

    /// So many sessions are left before the service ends.
    pub(super) fn left_over(&mut self, sessions: usize) {
        if std::mem::replace(&mut self.told, sessions) == sessions {
            return;
        }
        for socket in &self.stopping {
            say(socket, &json!({ "sessions": sessions }));
        }
    }

    /// In a child of this process: they stay the parent's.
    pub(super) fn forget(&mut self) {
        *self = Callers::default();
    }

    /// Those that wait, for the next image.
    pub(super) fn left(&self) -> Vec<LeftCaller<BorrowedFd<'_>>> {
        let waiting = self.waiting.iter();
        let left = waiting.map(|(socket, until)| LeftCaller {
            socket: socket.as_fd(),
            again: *until == Until::NextCheck,
        });
        left.collect()
    }
}

/// The answer to a client whose request has failed.
pub(super) fn failure(text: &str) -> Value {
    json!({ "error": text })
}

/// Sends a line. Nobody waits for a client that does not read, so it may lose the rest.
pub(super) fn say(socket: &Socket, answer: &Value) {
    let line = format!("{answer}\n");
    let mut rest = line.as_bytes();
    while let Ok(count @ 1..) = socket.write(rest) {
        rest = &rest[count..];
        if rest.is_empty() {
            return;
        }
    }
}

/// The next image cannot start: tells those that wait.
pub fn not_started(callers: &mut Vec<LeftCaller<Socket>>, status: i32) {
    let text = format!(
        "the service cannot be started again (status {status}); it is tried again, the log says why"
    );
    for LeftCaller { socket, .. } in callers.drain(..) {
        say(&socket, &failure(&text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn client() -> (UnixStream, Socket) {
        let (client, broker) = UnixStream::pair().expect("two sockets");
        broker.set_nonblocking(true).expect("a socket");
        (client, broker.into())
    }

    fn heard(mut client: UnixStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn who_asks_during_a_check_hears_of_the_next_one() {
        let mut callers = Callers::default();
        let (first, socket) = client();
        callers.wait(socket, Until::Check);
        let (second, socket) = client();
        callers.wait(socket, Until::NextCheck);
        callers.refused(&["a".to_owned(), "b".to_owned()]);
        assert_eq!(heard(first), "{\"error\":\"a\\nb\"}\n");
        callers.accepted(&["old".to_owned()]);
        let left = callers.left().len();
        callers.waiting.iter_mut().for_each(|(_, until)| *until = Until::Start);
        callers.started();
        let text = heard(second);
        assert!(text.starts_with("{\"warning\":\"old\"}\n{\"ok\":true,"), "{text}");
        assert_eq!((left, callers.left().len()), (1, 0));
    }

    #[test]
    fn each_client_has_one_errand() {
        use crate::channel::protocol::Wants;
        let mut callers = Callers::default();
        let caller = callers.number(Rights::Look);
        callers.passed(caller, client().1);
        let errand = Errand { caller: caller.number, wants: Wants::Stop };
        callers.note(errand);
        callers.note(errand);
        assert!(callers.next_errand().is_some_and(|(_, _, rights)| rights == Rights::Look));
        assert!(callers.next_errand().is_none());
    }
}

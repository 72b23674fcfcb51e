//! A worker's end of its channel to the broker, or the monitor's: carries out what [`WorkerSide`]
//! decides.

use super::protocol::{Errand, FromBroker, RECEIVE, SECRETS_RECEIVE};
use super::worker_side::{Answer, Early, Exit, Order, WorkerSide};
use super::Peer;
use crate::event::{Interest, Loop, Token};
use crate::os::secret::wipe;
use crate::os::{self, channel, log, Channel};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

/// The result of [`Link::ask`].
#[derive(Debug)]
pub enum Start {
    /// The broker's answer.
    Told(Answer<OwnedFd>),
    /// No answer: the broker is, or is taken for, another program.
    Alone,
    /// The broker does not need this worker.
    Unneeded,
}

/// The worker's end of the channel.
#[derive(Debug)]
pub struct Link {
    channel: Channel,
    side: WorkerSide<OwnedFd>,
    /// Descriptors of the message being read.
    sockets: VecDeque<OwnedFd>,
    /// How to find out that the channel, which was full, has room again.
    room: Interest,
}

impl Link {
    /// Takes over the channel to a broker. `peer`: the broker is said to be this program, or
    /// another one.
    pub fn new(channel: Channel, peer: Peer) -> Link {
        let side = WorkerSide::new(peer, channel::CAN_END_RECEIVING);
        Link { channel, side, sockets: VecDeque::new(), room: Interest::WRITE }
    }

    /// Asks the broker for what only the broker may read, and waits for the answer. Connections
    /// that arrive meanwhile are kept.
    pub fn ask(&mut self) -> Start {
        let Some(hello) = self.side.ask(os::monotonic_clock()) else {
            return Start::Alone;
        };
        let sent = self.channel.send(&hello.encode(), None).is_ok();
        while let Some(due) = self.side.answer_due().filter(|_| sent) {
            let left = due.saturating_sub(os::monotonic_clock());
            if !self.channel.wait(left as i32) {
                break;
            }
            let mut data = [0; SECRETS_RECEIVE];
            let order = self.receive_into(&mut data, os::monotonic_clock());
            wipe(&mut data);
            match order {
                Ok(Order::Told(answer)) => return Start::Told(answer),
                Ok(Order::Unneeded) => return Start::Unneeded,
                Ok(_) => {}
                Err(error) if os::would_block(&error) => {}
                Err(_) => break,
            }
        }
        self.side.unanswered();
        Start::Alone
    }

    /// Tells the broker that the worker cannot start, and that starting it again will not help.
    pub fn cannot_start(&self) {
        if let Some(message) = self.side.cannot_start() {
            // If the message is lost, the broker still sees the process end.
            let _ = self.channel.send(&message.encode(), None);
        }
    }

    /// The worker has started and takes up to `max` connections: the next [`flush`](Self::flush)
    /// tells the broker. Returns the messages that came before.
    pub fn ready(&mut self, max: i32) -> Early<OwnedFd> {
        self.side.ready(max)
    }

    /// Receives the next message. The error is would-block, or means that the broker is gone.
    pub fn receive(&mut self, now: u64) -> io::Result<Order<OwnedFd>> {
        self.receive_into(&mut [0; RECEIVE], now)
    }

    fn receive_into(&mut self, data: &mut [u8], now: u64) -> io::Result<Order<OwnedFd>> {
        let sockets = &mut self.sockets;
        sockets.clear();
        let length = self.channel.receive_with(data, |fd| sockets.push_back(fd))?;
        let order = self.side.hear(&data[..length.min(data.len())], sockets, now);
        match order {
            Order::Remark(bad) => {
                log::braked(log::Kind::Channel, || format!("scm_recv_msg: recvmsg: {bad}"));
            }
            Order::Log => {
                // All of this process that the broker's log concerns.
                if let Some(file) = sockets.pop_front() {
                    log::replace_file(file);
                }
                return Ok(Order::Nothing);
            }
            _ => {}
        }
        Ok(order)
    }

    /// The next connection of the message received last.
    pub fn next_socket(&mut self) -> Option<OwnedFd> {
        self.sockets.pop_front()
    }

    /// Returns to a message that came early, with its descriptors.
    pub fn recall(&mut self, message: FromBroker, sockets: VecDeque<OwnedFd>) -> Order<OwnedFd> {
        self.sockets = sockets;
        self.side.take(message)
    }

    /// Counts sessions that have ended, and connections that could not be served.
    pub fn ended(&mut self, count: usize) {
        self.side.ended(count);
    }

    /// A session has ended whose client the broker has numbered.
    #[inline]
    pub fn left(&mut self, client: u32) {
        self.side.left(client);
    }

    /// Sends the broker a keepalive, with the next [`flush`](Self::flush).
    pub fn keep_alive(&mut self) {
        self.side.keep_alive();
    }

    /// Tells the broker to send no more connections, with the next [`flush`](Self::flush). False if
    /// that is settled already.
    pub fn leave(&mut self, now: u64) -> bool {
        self.side.leave(now)
    }

    /// True if the broker should send no more connections.
    pub fn is_leaving(&self) -> bool {
        self.side.is_leaving()
    }

    /// True if the broker may not have read yet that this worker leaves.
    pub fn awaits_farewell(&self) -> bool {
        self.side.awaits_farewell()
    }

    /// Has the broker do something for a caller, with the next [`flush`](Self::flush).
    pub fn send_on(&mut self, errand: Errand) {
        self.side.send_on(errand);
    }

    /// True if there is something to send.
    pub fn is_due(&self) -> bool {
        self.side.is_due()
    }

    /// Sends what is due. Returns the order that follows if the broker is gone.
    pub fn flush(&mut self) -> Order<OwnedFd> {
        if self.side.has_left() {
            match self.tell_left() {
                Ok(()) => {}
                Err(error) if channel::is_full(&error) => {
                    self.room = Interest::in_room(&error);
                    return Order::Nothing;
                }
                Err(error) => return self.failed("scm_send_msg: sendmsg", &error),
            }
        }
        while let Some(message) = self.side.due() {
            match self.channel.send(&message.encode(), None) {
                Ok(()) => self.side.said(message),
                Err(error) if channel::is_full(&error) => {
                    self.room = Interest::in_room(&error);
                    break;
                }
                Err(error) => return self.failed("scm_send_msg: sendmsg", &error),
            }
        }
        Order::Nothing
    }

    /// Sends the numbers of clients whose sessions have ended.
    #[cold]
    fn tell_left(&mut self) -> io::Result<()> {
        while let Some(message) = self.side.left_due() {
            self.channel.send(&message, None)?;
            self.side.said_left();
        }
        Ok(())
    }

    /// The broker is gone. Returns the order that follows from that.
    pub fn failed(&mut self, call: &str, error: &io::Error) -> Order<OwnedFd> {
        if !self.side.is_leaving() {
            log::message(&format!("{call}: {}", os::reason(error)));
        }
        self.side.lost()
    }

    /// Starts to watch the channel.
    pub fn register(&self, token: Token, events: &mut Loop) {
        events.register(&self.channel, token, Interest::READ);
    }

    /// Watches the channel for messages, and for room if something is due.
    pub fn watch(&self, events: &mut Loop) {
        let write = if self.side.is_due() { self.room } else { Interest::empty() };
        // A closed channel would be readable for ever.
        let read = if self.side.is_closed() { Interest::empty() } else { Interest::READ };
        events.set_interest(&self.channel, read | write);
    }

    /// Whether a worker that has read everything and has no session may exit.
    pub fn exit(&self, now: u64) -> Exit {
        self.side.exit(|| self.channel.unsent_bytes(), now)
    }

    /// Stops the broker from sending more, where the system can do that: the broker then picks
    /// another worker, even if it has not read that this one leaves. What it has sent already still
    /// has to be read.
    pub fn close(&mut self, events: &mut Loop) {
        if self.channel.end_receiving() {
            self.side.closed();
            self.watch(events);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let lost = self.side.waiting();
        if lost > 0 {
            log::message(&format!("connections closed, as the worker does not start: {lost}"));
        }
    }
}

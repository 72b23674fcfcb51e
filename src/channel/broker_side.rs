//! The broker's side of a channel: what a worker may say, and when. An attacker who takes over a
//! worker can send anything, so a message out of place gets that worker killed, and never harms the
//! broker.
//!
//! | message | Starting | Told | Ready | Leaving |
//! | --- | --- | --- | --- | --- |
//! | HELLO | first and once: answered, Told | offence | offence | answered if nothing came before |
//! | MAX | Ready | Ready | once | once, ignored |
//! | DONE | counts, Ready | counts, Ready | counts | counts |
//! | LEFT | numbers | numbers | numbers | numbers |
//! | DYING | Leaving | Leaving | Leaving | once |
//! | BAD_CFG | cannot start | cannot start | offence | ignored before MAX |
//! | KEEPALIVE | idle | idle | idle | idle |
//! | ERRAND | offence | offence | one for each caller it was sent | idle |
//!
//! Idle messages, and all others that change nothing, are limited in number. Our own workers are
//! held strictly to the table, as they are this program. Other programs are not, as the C brokers
//! never were strict: only a message that would do harm is an offence, and the rest is idle.
//!
//! No I/O; the caller has the clock.

use super::protocol::{Abilities, BadMessage, Errand, FromWorker};
use super::Peer;
use bitflags::bitflags;
use std::fmt;

/// The stage of a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing shows yet that it serves.
    Starting,
    /// It said HELLO; the answer that it needs for its start is on the way.
    Told,
    /// It serves.
    Ready,
    /// It was asked to leave, or said that it will.
    Leaving,
    /// It broke the rules, or its start hung, and it was killed. Its messages are ignored.
    Expelled,
}

/// What to do about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// This many of its connections have ended.
    Ended(usize),
    /// These clients' sessions have ended: see [`left`](super::protocol::left). If it has none of
    /// them, call [`BrokerSide::left_nothing`].
    Left,
    /// It serves from now on, at most this many connections.
    Limit(usize),
    /// It wants no more connections.
    Leaves,
    /// It cannot use its configuration, and will not start.
    CannotStart,
    /// It is our own program: answer with what only the broker may read.
    Answer,
    /// The monitor says what becomes of a caller.
    Errand(Errand),
    /// Log this, once for each worker.
    Remark(String),
    /// Kill the worker.
    Offence(Offence),
}

/// Why a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// BAD_CFG from a worker that serves.
    BadConfiguration,
    /// A message that is allowed once came again.
    Again(&'static str),
    /// HELLO after other messages.
    LateHello,
    /// It reports more connections as ended than it has.
    TooManyEnded {
        /// How many it reports.
        said: u32,
        /// How many it has.
        has: usize,
    },
    /// An impossible number of connections.
    Impossible(&'static str, i64),
    /// A message of unknown type.
    Unknown(u32),
    /// A datagram that is not a message.
    Malformed(BadMessage),
    /// Too many idle messages.
    Flood,
}

impl fmt::Display for Offence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Offence::BadConfiguration => out.write_str("BAD_CFG while it serves"),
            Offence::Again(name) => write!(out, "a second {name}"),
            Offence::LateHello => out.write_str("HELLO that was not its first message"),
            Offence::TooManyEnded { said, has } => {
                write!(out, "DONE for {said} connections, but has {has}")
            }
            Offence::Impossible(name, count) => write!(out, "{name} with {count}"),
            Offence::Unknown(number) => write!(out, "a message of unknown type {number}"),
            Offence::Malformed(bad) => write!(out, "what is no message: {bad}"),
            Offence::Flood => write!(out, "more than {TRIFLES} idle messages within a minute"),
        }
    }
}

/// The most idle messages in a minute; an honest worker sends one or two.
const TRIFLES: u32 = 200;
const MINUTE: u64 = 60_000;

bitflags! {
    /// What a worker has said so far, for messages that are allowed once.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Said: u8 {
        const ANYTHING = 1;
        const HELLO = 2;
        const MAX = 4;
        const DYING = 8;
    }
}

/// The broker's side of the channel to one worker.
#[derive(Clone, Debug)]
pub struct BrokerSide {
    peer: Peer,
    stage: Stage,
    said: Said,
    /// Callers that the monitor was sent, and has said nothing about.
    callers: usize,
    abilities: Abilities,
    trifles: u32,
    trifles_since: u64,
}

impl BrokerSide {
    /// For a worker that was just started. A worker that `exec` names is [`Peer::Foreign`] until it
    /// says HELLO.
    pub fn new(peer: Peer) -> BrokerSide {
        BrokerSide {
            peer,
            stage: Stage::Starting,
            said: Said::empty(),
            callers: 0,
            abilities: Abilities::default(),
            trifles: 0,
            trifles_since: 0,
        }
    }

    /// For a worker of a former image of the broker, which is leaving and has not sent anything.
    pub fn adopted() -> BrokerSide {
        BrokerSide { stage: Stage::Leaving, ..BrokerSide::new(Peer::Foreign) }
    }

    /// For one that the former image has heard: it has its answer to HELLO, or gets none.
    pub fn adopted_heard() -> BrokerSide {
        BrokerSide { said: Said::ANYTHING, ..BrokerSide::adopted() }
    }

    /// True if it has sent a message.
    pub fn has_been_heard(&self) -> bool {
        self.said.contains(Said::ANYTHING)
    }

    /// The stage of its life.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whose program it is, as far as is known.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// True if it understands CONNECTIONS.
    pub fn takes_connections(&self) -> bool {
        self.abilities.takes_connections
    }

    /// True if it tells which clients' sessions have ended.
    pub fn tells_clients(&self) -> bool {
        self.abilities.tells_clients
    }

    /// True if it is not ready yet.
    pub fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Told)
    }

    /// True if it gets no more connections.
    pub fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving | Stage::Expelled)
    }

    /// It evidently serves: it reads what it is sent, or has said MAX or DONE.
    pub fn serves(&mut self) {
        if self.is_starting() {
            self.stage = Stage::Ready;
        }
    }

    /// It was asked to leave.
    pub fn dismissed(&mut self) {
        if self.stage != Stage::Expelled {
            self.stage = Stage::Leaving;
        }
    }

    /// It was killed.
    pub fn expelled(&mut self) {
        self.stage = Stage::Expelled;
    }

    /// The worker has sent a message. `has` is how many connections it was given and has not
    /// reported as ended.
    pub fn hear(&mut self, message: Result<FromWorker, BadMessage>, has: usize, now: u64) -> Act {
        if self.stage == Stage::Expelled {
            return Act::Nothing;
        }
        let first = !self.has_been_heard();
        self.said |= Said::ANYTHING;
        match message {
            Ok(FromWorker::Hello(abilities)) => self.hello(abilities, first, now),
            Ok(FromWorker::Left(_)) => Act::Left,
            Ok(FromWorker::Max(max)) => self.max(max, now),
            Ok(FromWorker::Done(said)) => self.done(said, has, now),
            Ok(FromWorker::Dying) => self.dying(now),
            Ok(FromWorker::BadConfiguration) => match self.stage {
                Stage::Starting | Stage::Told => self.trifle(now, Act::CannotStart),
                // It was dismissed before it had read its configuration.
                Stage::Leaving if !self.said.contains(Said::MAX) => self.trifle(now, Act::Nothing),
                _ => Act::Offence(Offence::BadConfiguration),
            },
            Ok(FromWorker::KeepAlive) => self.trifle(now, Act::Nothing),
            Ok(FromWorker::Errand(errand)) => self.errand(errand, now),
            Ok(FromWorker::Unknown(number)) => self.unknown(number, Offence::Unknown(number), now),
            Err(bad) if self.peer == Peer::Ours => Act::Offence(Offence::Malformed(bad)),
            Err(bad) => self.trifle(now, Act::Remark(format!("scm_recv_msg: recvmsg: {bad}"))),
        }
    }

    fn hello(&mut self, abilities: Abilities, first: bool, now: u64) -> Act {
        match self.stage {
            _ if self.said.contains(Said::HELLO) => Act::Offence(Offence::Again("HELLO")),
            Stage::Starting | Stage::Leaving if first => {
                self.said |= Said::HELLO;
                self.peer = Peer::Ours;
                self.abilities = abilities;
                if self.stage == Stage::Starting {
                    self.stage = Stage::Told;
                }
                Act::Answer
            }
            _ => self.unknown(FromWorker::HELLO, Offence::LateHello, now),
        }
    }

    /// The monitor was sent a caller.
    pub fn sent_caller(&mut self) {
        self.callers += 1;
    }

    fn errand(&mut self, errand: Errand, now: u64) -> Act {
        match self.stage {
            Stage::Ready if self.callers > 0 => {
                self.callers -= 1;
                Act::Errand(errand)
            }
            // Its callers were given up when it was asked to leave.
            Stage::Leaving => self.trifle(now, Act::Nothing),
            _ => self.unknown(FromWorker::ERRAND, Offence::Unknown(FromWorker::ERRAND), now),
        }
    }

    fn dying(&mut self, now: u64) -> Act {
        match self.stage {
            _ if self.said.contains(Said::DYING) && self.peer == Peer::Ours => {
                Act::Offence(Offence::Again("DYING"))
            }
            _ if self.said.contains(Said::DYING) => self.trifle(now, Act::Nothing),
            stage => {
                self.said |= Said::DYING;
                self.stage = Stage::Leaving;
                // Broker and worker may decide at the same time that it leaves.
                if stage == Stage::Leaving {
                    Act::Nothing
                } else {
                    Act::Leaves
                }
            }
        }
    }

    fn done(&mut self, said: u32, has: usize, now: u64) -> Act {
        let count = said as usize;
        if self.peer == Peer::Ours && (count == 0 || count > has) {
            return Act::Offence(Offence::TooManyEnded { said, has });
        }
        self.serves();
        match count.min(has) {
            0 => self.trifle(now, Act::Nothing),
            ended => Act::Ended(ended),
        }
    }

    fn max(&mut self, max: i32, now: u64) -> Act {
        let again = self.said.contains(Said::MAX);
        self.said |= Said::MAX;
        if self.peer == Peer::Ours {
            if again {
                return Act::Offence(Offence::Again("MAX"));
            }
            if max < 0 {
                return Act::Offence(Offence::Impossible("MAX", max.into()));
            }
        }
        self.serves();
        let act = match self.stage {
            Stage::Ready => Act::Limit(usize::try_from(max).unwrap_or(0)),
            _ => Act::Nothing,
        };
        if again {
            return self.trifle(now, act);
        }
        act
    }

    /// A LEFT message named no client of which the worker has sessions.
    pub fn left_nothing(&mut self, now: u64) -> Act {
        self.trifle(now, Act::Nothing)
    }

    /// A message that means nothing here.
    fn unknown(&mut self, number: u32, offence: Offence, now: u64) -> Act {
        if self.peer == Peer::Ours {
            return Act::Offence(offence);
        }
        self.trifle(now, Act::Remark(format!("Child used unknown message type {number}")))
    }

    /// A message that changes nothing; there may not be many.
    fn trifle(&mut self, now: u64, act: Act) -> Act {
        if now.saturating_sub(self.trifles_since) >= MINUTE {
            (self.trifles, self.trifles_since) = (0, now);
        }
        self.trifles += 1;
        if self.trifles > TRIFLES {
            return Act::Offence(Offence::Flood);
        }
        act
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::protocol::Wants;
    use proptest::prelude::*;

    fn said(side: &mut BrokerSide, message: FromWorker, has: usize) -> Act {
        side.hear(Ok(message), has, 0)
    }

    fn ready(peer: Peer) -> BrokerSide {
        let mut side = BrokerSide::new(peer);
        if peer == Peer::Ours {
            assert_eq!(said(&mut side, FromWorker::Hello(Abilities::ALL), 0), Act::Answer);
        }
        assert_eq!(said(&mut side, FromWorker::Max(100), 0), Act::Limit(100));
        assert_eq!(side.stage(), Stage::Ready);
        side
    }

    #[test]
    fn a_life_without_blame() {
        for peer in [Peer::Ours, Peer::Foreign] {
            let mut side = ready(peer);
            assert_eq!(said(&mut side, FromWorker::Done(3), 5), Act::Ended(3));
            assert_eq!(said(&mut side, FromWorker::KeepAlive, 2), Act::Nothing);
            assert_eq!(said(&mut side, FromWorker::Dying, 2), Act::Leaves);
            assert_eq!(said(&mut side, FromWorker::Done(2), 2), Act::Ended(2));
        }
        // Broker and worker decide at the same time that it leaves.
        let mut side = ready(Peer::Ours);
        side.dismissed();
        assert_eq!(said(&mut side, FromWorker::Dying, 0), Act::Nothing);
    }

    #[test]
    fn one_that_is_dismissed_at_its_start_is_forgiven() {
        for last in [FromWorker::Max(5), FromWorker::BadConfiguration, FromWorker::Dying] {
            let mut side = BrokerSide::new(Peer::Ours);
            side.dismissed();
            assert_eq!(said(&mut side, FromWorker::Hello(Abilities::ALL), 0), Act::Answer);
            assert_eq!(said(&mut side, last, 0), Act::Nothing, "{last:?}");
        }
    }

    #[test]
    fn what_is_out_of_place_costs_the_place() {
        use Offence::*;
        let hello = FromWorker::Hello(Abilities::ALL);
        let ours = [
            (FromWorker::BadConfiguration, BadConfiguration),
            (FromWorker::Max(1), Again("MAX")),
            (hello, Again("HELLO")),
            (FromWorker::Done(0), TooManyEnded { said: 0, has: 2 }),
            (FromWorker::Done(3), TooManyEnded { said: 3, has: 2 }),
            (FromWorker::Unknown(42), Unknown(42)),
        ];
        for (message, offence) in ours {
            assert_eq!(said(&mut ready(Peer::Ours), message, 2), Act::Offence(offence));
        }
        let bad = BadMessage { length: 1, expected: 8 };
        let act = ready(Peer::Ours).hear(Err(bad), 0, 0);
        assert_eq!(act, Act::Offence(Malformed(bad)));
        let mut leaving = ready(Peer::Ours);
        said(&mut leaving, FromWorker::Dying, 0);
        assert_eq!(said(&mut leaving, FromWorker::Dying, 0), Act::Offence(Again("DYING")));
        let mut late = BrokerSide::new(Peer::Ours);
        said(&mut late, FromWorker::KeepAlive, 0);
        assert_eq!(said(&mut late, hello, 0), Act::Offence(LateHello));
    }

    #[test]
    fn programs_of_others_are_held_to_what_does_harm() {
        let mut side = ready(Peer::Foreign);
        let bad = FromWorker::BadConfiguration;
        assert_eq!(said(&mut side, bad, 0), Act::Offence(Offence::BadConfiguration));
        assert_eq!(said(&mut side, FromWorker::Done(5), 1), Act::Ended(1));
        assert_eq!(said(&mut side, FromWorker::Done(5), 0), Act::Nothing);
        assert_eq!(said(&mut side, FromWorker::Max(3), 0), Act::Limit(3));
        let hello = said(&mut side, FromWorker::Hello(Abilities::ALL), 0);
        assert_eq!(hello, Act::Remark("Child used unknown message type 64".to_owned()));
        assert_eq!(said(&mut BrokerSide::new(Peer::Foreign), bad, 0), Act::CannotStart);
    }

    #[test]
    fn idle_messages_are_counted_by_the_minute() {
        for peer in [Peer::Ours, Peer::Foreign] {
            let mut side = ready(peer);
            let mut floods = |now| {
                let heard = |_: &u32| side.hear(Ok(FromWorker::KeepAlive), 0, now) == Act::Nothing;
                (0..1000).take_while(heard).count() as u32
            };
            assert_eq!(floods(0), TRIFLES);
            assert_eq!(floods(MINUTE), TRIFLES);
        }
    }

    #[test]
    fn a_worker_of_a_former_image_gets_its_keys_once() {
        let hello = || Ok(FromWorker::Hello(Abilities::ALL));
        assert_eq!(BrokerSide::adopted().hear(hello(), 0, 0), Act::Answer);
        assert!(!matches!(BrokerSide::adopted_heard().hear(hello(), 0, 0), Act::Answer));
    }

    #[test]
    fn configurations_that_cannot_be_used_are_not_said_for_ever() {
        let mut side = BrokerSide::new(Peer::Foreign);
        let offence =
            |_| matches!(side.hear(Ok(FromWorker::BadConfiguration), 0, 0), Act::Offence(_));
        assert!((0..1000).any(offence));
    }

    fn message() -> impl Strategy<Value = Result<FromWorker, BadMessage>> {
        prop_oneof![
            4 => (0u32..4).prop_map(|count| Ok(FromWorker::Done(count))),
            1 => (-2..9).prop_map(|max| Ok(FromWorker::Max(max))),
            1 => Just(Ok(FromWorker::Hello(Abilities::ALL))),
            1 => Just(Ok(FromWorker::Left(1))),
            1 => Just(Ok(FromWorker::Dying)),
            1 => Just(Ok(FromWorker::BadConfiguration)),
            1 => Just(Ok(FromWorker::KeepAlive)),
            1 => (0u32..3).prop_map(|caller| {
                Ok(FromWorker::Errand(Errand { caller, wants: Wants::Reload }))
            }),
            1 => (8u32..99).prop_map(|number| Ok(FromWorker::Unknown(number))),
            1 => (0usize..8).prop_map(|length| Err(BadMessage { length, expected: 8 })),
        ]
    }

    proptest! {
        /// Whatever messages come in whatever order: secrets are sent once at most, and never to a
        /// worker that has served; only a worker that has not served can end the broker; counts
        /// stay consistent; no errand comes without a caller.
        #[test]
        fn any_order_of_messages(
            ours: bool,
            dismissed in prop::option::of(0usize..20),
            messages in prop::collection::vec((message(), 0usize..3), 0..60),
        ) {
            let peer = if ours { Peer::Ours } else { Peer::Foreign };
            let (mut side, mut has, mut told) = (BrokerSide::new(peer), 0usize, 0);
            // Callers, as a monitor gets them.
            let mut callers = 0;
            for (index, (message, given)) in messages.into_iter().enumerate() {
                if dismissed == Some(index) {
                    side.dismissed();
                }
                if !side.is_leaving() {
                    has += given;
                }
                let before = side.stage();
                if before == Stage::Ready && given == 2 {
                    side.sent_caller();
                    callers += 1;
                }
                match side.hear(message, has, 0) {
                    Act::Errand(_) => {
                        prop_assert!(before == Stage::Ready && callers > 0);
                        callers -= 1;
                    }
                    Act::Left => {}
                    Act::Answer => {
                        told += 1;
                        prop_assert!(told == 1 && index == 0);
                        prop_assert!(matches!(before, Stage::Starting | Stage::Leaving));
                    }
                    Act::Ended(count) => {
                        prop_assert!(count >= 1 && count <= has);
                        has -= count;
                    }
                    Act::Limit(_) => prop_assert_eq!(side.stage(), Stage::Ready),
                    Act::CannotStart => {
                        prop_assert!(matches!(before, Stage::Starting | Stage::Told));
                    }
                    Act::Leaves => prop_assert!(before != Stage::Leaving),
                    Act::Offence(_) => side.expelled(),
                    Act::Nothing | Act::Remark(_) => {}
                }
                if before == Stage::Expelled {
                    prop_assert_eq!(side.stage(), Stage::Expelled);
                }
            }
        }
    }
}

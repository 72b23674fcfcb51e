//! What a worker may say, and when. Whoever takes over a worker can send what it likes: a message
//! that is out of place costs that worker its place, and never the broker its life.
//!
//! No input or output. Our own workers are held to every word, as they are this program. Programs
//! of others are not: the C brokers never minded, so only what would do harm counts.

use super::protocol::{BadMessage, FromWorker};
use std::fmt;

/// How far a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has not shown yet that it serves.
    Starting,
    /// It serves.
    Ready,
    /// It was asked to leave, or said that it will.
    Leaving,
    /// It has broken the rules, or hung at its start, and was killed. Nothing it says counts.
    Expelled,
}

/// Whose program a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// This one.
    Ours,
    /// Another one, or not known yet: a relay that `exec` names tells with its HELLO.
    Foreign,
}

/// What is to be done about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// So many of its connections have ended.
    Ended(usize),
    /// It can handle so many connections, and serves from now on.
    Limit(usize),
    /// It wants no more connections.
    Leaves,
    /// It cannot use its configuration, and will not come up.
    CannotStart,
    /// It is of our family and wants to know what only the broker may read; set if it takes several
    /// connections at once.
    Answer(bool),
    /// To be logged, once for each worker.
    Remark(String),
    /// The worker is to go.
    Offence(Offence),
}

/// Why a worker has lost its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// BAD_CFG of one that serves.
    BadConfiguration,
    /// A message that comes once came again.
    Again(&'static str),
    /// HELLO is the first message, or none.
    LateHello,
    /// More connections have ended than it has.
    TooManyEnded {
        /// What it said.
        said: u32,
        /// What it has.
        has: usize,
    },
    /// A number of connections that cannot be.
    Impossible(&'static str, i64),
    /// A type that is not known.
    Unknown(u32),
    /// It is no message.
    Malformed(BadMessage),
    /// Messages that say nothing, one after the other.
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

/// Messages within a minute that say nothing; an honest worker sends one or two.
const TRIFLES: u32 = 200;
const MINUTE: u64 = 60_000;

/// What is known of a worker by what it has said.
#[derive(Clone, Debug)]
pub struct Conduct {
    family: Family,
    stage: Stage,
    /// It has said something.
    heard: bool,
    /// It has said HELLO.
    greeted: bool,
    /// It has said MAX.
    announced: bool,
    /// It has said DYING.
    farewell: bool,
    trifles: u32,
    trifles_since: u64,
}

impl Conduct {
    /// A worker that has just been started.
    pub fn new(family: Family) -> Conduct {
        Conduct {
            family,
            stage: Stage::Starting,
            heard: false,
            greeted: false,
            announced: false,
            farewell: false,
            trifles: 0,
            trifles_since: 0,
        }
    }

    /// A worker of a former image of the broker, on its way out. If that has `heard` anything of it, it
    /// has had its answer to HELLO, or gets none.
    pub fn adopted(heard: bool) -> Conduct {
        Conduct { stage: Stage::Leaving, heard, ..Conduct::new(Family::Foreign) }
    }

    /// It has said something.
    pub fn has_been_heard(&self) -> bool {
        self.heard
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whose program it is, as far as is known.
    pub fn family(&self) -> Family {
        self.family
    }

    /// It has said HELLO, and was answered.
    pub fn has_greeted(&self) -> bool {
        self.greeted
    }

    /// It gets no more connections.
    pub fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving | Stage::Expelled)
    }

    /// It was seen to serve: it takes what it is sent, or has lived for long.
    pub fn serves(&mut self) {
        if self.stage == Stage::Starting {
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

    /// It says something; `has` is how many connections it has been given and has not reported as
    /// ended.
    pub fn hear(&mut self, message: Result<FromWorker, BadMessage>, has: usize, now: u64) -> Act {
        if self.stage == Stage::Expelled {
            return Act::Nothing;
        }
        let first = !std::mem::replace(&mut self.heard, true);
        let ours = self.family == Family::Ours;
        match message {
            Err(bad) if ours => Act::Offence(Offence::Malformed(bad)),
            Err(bad) => self.trifle(now, Act::Remark(format!("scm_recv_msg: recvmsg: {bad}"))),
            Ok(FromWorker::Unknown(number)) if ours => Act::Offence(Offence::Unknown(number)),
            Ok(FromWorker::Unknown(number)) => self.unknown(number, now),
            Ok(FromWorker::KeepAlive) => self.trifle(now, Act::Nothing),
            Ok(FromWorker::Done(said)) => self.done(said, has, now),
            Ok(FromWorker::Max(max)) => self.max(max, now),
            Ok(FromWorker::Dying) => {
                if !std::mem::replace(&mut self.farewell, true) {
                    let leaves = self.stage != Stage::Leaving;
                    self.stage = Stage::Leaving;
                    return if leaves { Act::Leaves } else { Act::Nothing };
                }
                if ours {
                    return Act::Offence(Offence::Again("DYING"));
                }
                self.trifle(now, Act::Nothing)
            }
            Ok(FromWorker::BadConfiguration) => match self.stage {
                Stage::Starting => self.trifle(now, Act::CannotStart),
                // It was dismissed before it had read its configuration.
                Stage::Leaving if !self.announced => self.trifle(now, Act::Nothing),
                _ => Act::Offence(Offence::BadConfiguration),
            },
            Ok(FromWorker::Hello(_)) if self.greeted => Act::Offence(Offence::Again("HELLO")),
            Ok(FromWorker::Hello(takes)) if first && self.stage != Stage::Ready => {
                (self.greeted, self.family) = (true, Family::Ours);
                Act::Answer(takes)
            }
            Ok(FromWorker::Hello(_)) if ours => Act::Offence(Offence::LateHello),
            Ok(FromWorker::Hello(_)) => self.unknown(FromWorker::HELLO, now),
        }
    }

    fn done(&mut self, said: u32, has: usize, now: u64) -> Act {
        let count = said as usize;
        if self.family == Family::Ours && (count == 0 || count > has) {
            return Act::Offence(Offence::TooManyEnded { said, has });
        }
        self.serves();
        match count.min(has) {
            0 => self.trifle(now, Act::Nothing),
            ended => Act::Ended(ended),
        }
    }

    fn max(&mut self, max: i32, now: u64) -> Act {
        let again = std::mem::replace(&mut self.announced, true);
        if self.family == Family::Ours {
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

    fn unknown(&mut self, number: u32, now: u64) -> Act {
        self.trifle(now, Act::Remark(format!("Child used unknown message type {number}")))
    }

    /// A message that changes nothing, and of which there may not be many.
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
    use proptest::prelude::*;

    fn said(conduct: &mut Conduct, message: FromWorker, has: usize) -> Act {
        conduct.hear(Ok(message), has, 0)
    }

    fn ready(family: Family) -> Conduct {
        let mut conduct = Conduct::new(family);
        if family == Family::Ours {
            assert_eq!(said(&mut conduct, FromWorker::Hello(true), 0), Act::Answer(true));
        }
        assert_eq!(said(&mut conduct, FromWorker::Max(100), 0), Act::Limit(100));
        assert_eq!(conduct.stage(), Stage::Ready);
        conduct
    }

    #[test]
    fn a_life_without_blame() {
        for family in [Family::Ours, Family::Foreign] {
            let mut conduct = ready(family);
            assert_eq!(said(&mut conduct, FromWorker::Done(3), 5), Act::Ended(3));
            assert_eq!(said(&mut conduct, FromWorker::KeepAlive, 2), Act::Nothing);
            assert_eq!(said(&mut conduct, FromWorker::Dying, 2), Act::Leaves);
            assert_eq!(said(&mut conduct, FromWorker::Done(2), 2), Act::Ended(2));
        }
        // Both say it at the same time.
        let mut conduct = ready(Family::Ours);
        conduct.dismissed();
        assert_eq!(said(&mut conduct, FromWorker::Dying, 0), Act::Nothing);
    }

    #[test]
    fn one_that_is_dismissed_at_its_start_is_forgiven() {
        for last in [FromWorker::Max(5), FromWorker::BadConfiguration, FromWorker::Dying] {
            let mut conduct = Conduct::new(Family::Ours);
            conduct.dismissed();
            assert_eq!(said(&mut conduct, FromWorker::Hello(true), 0), Act::Answer(true));
            assert_eq!(said(&mut conduct, last, 0), Act::Nothing, "{last:?}");
        }
    }

    #[test]
    fn what_is_out_of_place_costs_the_place() {
        use Offence::*;
        let hello = FromWorker::Hello(true);
        let ours = [
            (FromWorker::BadConfiguration, BadConfiguration),
            (FromWorker::Max(1), Again("MAX")),
            (hello, Again("HELLO")),
            (FromWorker::Done(0), TooManyEnded { said: 0, has: 2 }),
            (FromWorker::Done(3), TooManyEnded { said: 3, has: 2 }),
            (FromWorker::Unknown(42), Unknown(42)),
        ];
        for (message, offence) in ours {
            assert_eq!(said(&mut ready(Family::Ours), message, 2), Act::Offence(offence));
        }
        let bad = BadMessage { length: 1, expected: 8 };
        let act = ready(Family::Ours).hear(Err(bad), 0, 0);
        assert_eq!(act, Act::Offence(Malformed(bad)));
        let mut leaving = ready(Family::Ours);
        said(&mut leaving, FromWorker::Dying, 0);
        assert_eq!(said(&mut leaving, FromWorker::Dying, 0), Act::Offence(Again("DYING")));
        let mut late = Conduct::new(Family::Ours);
        said(&mut late, FromWorker::KeepAlive, 0);
        assert_eq!(said(&mut late, hello, 0), Act::Offence(LateHello));
    }

    #[test]
    fn programs_of_others_are_held_to_what_does_harm() {
        let mut conduct = ready(Family::Foreign);
        let bad = FromWorker::BadConfiguration;
        assert_eq!(said(&mut conduct, bad, 0), Act::Offence(Offence::BadConfiguration));
        assert_eq!(said(&mut conduct, FromWorker::Done(5), 1), Act::Ended(1));
        assert_eq!(said(&mut conduct, FromWorker::Done(5), 0), Act::Nothing);
        assert_eq!(said(&mut conduct, FromWorker::Max(3), 0), Act::Limit(3));
        let hello = said(&mut conduct, FromWorker::Hello(true), 0);
        assert_eq!(hello, Act::Remark("Child used unknown message type 64".to_owned()));
        assert_eq!(said(&mut Conduct::new(Family::Foreign), bad, 0), Act::CannotStart);
    }

    #[test]
    fn idle_messages_are_counted_by_the_minute() {
        for family in [Family::Ours, Family::Foreign] {
            let mut conduct = ready(family);
            let mut floods = |now| {
                let heard =
                    |_: &u32| conduct.hear(Ok(FromWorker::KeepAlive), 0, now) == Act::Nothing;
                (0..1000).take_while(heard).count() as u32
            };
            assert_eq!(floods(0), TRIFLES);
            assert_eq!(floods(MINUTE), TRIFLES);
        }
    }

    #[test]
    fn a_worker_of_a_former_image_gets_its_keys_once() {
        let hello = || Ok(FromWorker::Hello(true));
        assert_eq!(Conduct::adopted(false).hear(hello(), 0, 0), Act::Answer(true));
        assert!(!matches!(Conduct::adopted(true).hear(hello(), 0, 0), Act::Answer(_)));
    }

    #[test]
    fn configurations_that_cannot_be_used_are_not_said_for_ever() {
        let mut conduct = Conduct::new(Family::Foreign);
        let offence =
            |_| matches!(conduct.hear(Ok(FromWorker::BadConfiguration), 0, 0), Act::Offence(_));
        assert!((0..1000).any(offence));
    }

    fn message() -> impl Strategy<Value = Result<FromWorker, BadMessage>> {
        prop_oneof![
            4 => (0u32..4).prop_map(|count| Ok(FromWorker::Done(count))),
            1 => (-2..9).prop_map(|max| Ok(FromWorker::Max(max))),
            1 => any::<bool>().prop_map(|takes| Ok(FromWorker::Hello(takes))),
            1 => Just(Ok(FromWorker::Dying)),
            1 => Just(Ok(FromWorker::BadConfiguration)),
            1 => Just(Ok(FromWorker::KeepAlive)),
            1 => (8u32..99).prop_map(|number| Ok(FromWorker::Unknown(number))),
            1 => (0usize..8).prop_map(|length| Err(BadMessage { length, expected: 8 })),
        ]
    }

    proptest! {
        /// Whatever comes in whatever order: keys are told once, and to nobody who has served;
        /// nothing ends a broker but a worker that has not served; counts stay what they are.
        #[test]
        fn any_order_of_messages(
            ours: bool,
            dismissed in prop::option::of(0usize..20),
            messages in prop::collection::vec((message(), 0usize..3), 0..60),
        ) {
            let family = if ours { Family::Ours } else { Family::Foreign };
            let (mut conduct, mut has, mut told) = (Conduct::new(family), 0usize, 0);
            for (index, (message, given)) in messages.into_iter().enumerate() {
                if dismissed == Some(index) {
                    conduct.dismissed();
                }
                if !conduct.is_leaving() {
                    has += given;
                }
                let before = conduct.stage();
                match conduct.hear(message, has, 0) {
                    Act::Answer(_) => {
                        told += 1;
                        prop_assert!(told == 1 && before != Stage::Ready && index == 0);
                    }
                    Act::Ended(count) => {
                        prop_assert!(count >= 1 && count <= has);
                        has -= count;
                    }
                    Act::Limit(_) => prop_assert_eq!(conduct.stage(), Stage::Ready),
                    Act::CannotStart => prop_assert_eq!(before, Stage::Starting),
                    Act::Leaves => prop_assert!(before != Stage::Leaving),
                    Act::Offence(_) => conduct.expelled(),
                    Act::Nothing | Act::Remark(_) => {}
                }
                if before == Stage::Expelled {
                    prop_assert_eq!(conduct.stage(), Stage::Expelled);
                }
            }
        }
    }
}

//! Rate limits for log lines that clients, remotes, workers and modules can trigger.
//!
//! Each kind of line has an allowance: a burst, then a steady rate. When it is used up the kind is
//! held for a while: its lines are only counted, and the count is logged at the end. So no outsider
//! can fill the log, and rare lines are never left out. Plain data; the caller supplies the time.

/// How many lines of one kind may come at once.
const BURST: u64 = 20;
/// How many milliseconds it takes the allowance to grow by one line.
const STEP: u64 = 1000;
/// How long a kind is held, in milliseconds. When the hold ends, its allowance has grown again.
const HOLD: u64 = 10_000;

macro_rules! kinds {
    ($($(#[$doc:meta])+ $name:ident = $what:literal,)+) => {
        /// What a line is about: lines of one kind share an allowance.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])+ $name,)+
        }

        const KINDS: &[Kind] = &[$(Kind::$name,)+];

        impl Kind {
            /// What a summary calls this kind's lines.
            pub fn what(self) -> &'static str {
                match self {
                    $(Kind::$name => $what,)+
                }
            }
        }
    };
}

kinds! {
    /// Connections that the access list denies.
    Denied = "connections denied by ACL",
    /// Connections beyond the limits of their clients.
    Client = "connections beyond the limits of clients",
    /// Limits reached and left.
    Limit = "limits reached and left",
    /// accept(2), and what happens to a connection until a worker has it.
    Accept = "connections that cannot be accepted",
    /// Datagrams that cannot be served.
    Datagram = "datagrams that cannot be served",
    /// TLS handshakes and records.
    Tls = "TLS failures",
    /// Connections that a worker cannot serve.
    Session = "connections that cannot be served",
    /// Remotes that become unreachable or reachable.
    Remote = "remotes that fail and recover",
    /// Admission: decisions and failures of modules and scripts.
    Admission = "admission by modules",
    /// Mistakes that modules make.
    Module = "mistakes of modules",
    /// Malformed messages between broker and workers.
    Channel = "messages of other processes",
    /// Workers that end or cannot be started.
    Worker = "workers that end or do not start",
    /// Listeners that fail to bind and try again.
    Listener = "listeners that fail and recover",
    /// Failures of the event loop.
    Events = "the event loop",
}

/// The state of a kind that is held: since when, and the lines counted so far.
#[derive(Clone, Copy, Debug)]
struct Held {
    since: u64,
    lines: u64,
}

/// The allowance of one kind, in milliseconds of [`STEP`].
#[derive(Clone, Copy, Debug)]
struct Allowance {
    credit: u64,
    at: u64,
    held: Option<Held>,
}

impl Allowance {
    const FULL: Allowance = Allowance { credit: BURST * STEP, at: 0, held: None };

    fn grow(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.at);
        self.credit = self.credit.saturating_add(elapsed).min(BURST * STEP);
        self.at = now;
    }
}

/// The count of lines left out of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What the lines were about.
    pub kind: Kind,
    /// How many lines.
    pub lines: u64,
    /// The period in which they were left out, in milliseconds.
    pub milliseconds: u64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.milliseconds.div_ceil(1000).max(1);
        write!(out, "{}: {} more lines left out in {seconds} s", self.kind.what(), self.lines)
    }
}

/// The allowances of all kinds. Times are milliseconds on a monotonic clock.
#[derive(Debug)]
pub struct Brake {
    allowances: [Allowance; KINDS.len()],
}

impl Default for Brake {
    fn default() -> Brake {
        Brake::new()
    }
}

impl Brake {
    /// Full allowances: nothing has been logged yet.
    pub const fn new() -> Brake {
        Brake { allowances: [Allowance::FULL; KINDS.len()] }
    }

    /// True if a line of this kind may be logged now. Otherwise counts it.
    pub fn pass(&mut self, kind: Kind, now: u64) -> bool {
        let allowance = &mut self.allowances[kind as usize];
        allowance.grow(now);
        if let Some(held) = &mut allowance.held {
            held.lines = held.lines.saturating_add(1);
            return false;
        }
        if allowance.credit < STEP {
            allowance.held = Some(Held { since: now, lines: 1 });
            return false;
        }
        allowance.credit -= STEP;
        true
    }

    /// Releases one kind whose hold is over. Call it until it returns `None`.
    pub fn release(&mut self, now: u64) -> Option<Summary> {
        self.take(now, |held| now.saturating_sub(held.since) >= HOLD)
    }

    /// Releases one kind that is held, however briefly; for the end of the process.
    pub fn end(&mut self, now: u64) -> Option<Summary> {
        self.take(now, |_| true)
    }

    fn take(&mut self, now: u64, due: impl Fn(&Held) -> bool) -> Option<Summary> {
        KINDS.iter().find_map(|&kind| {
            let held = self.allowances[kind as usize].held.take_if(|held| due(held))?;
            let milliseconds = now.saturating_sub(held.since);
            Some(Summary { kind, lines: held.lines, milliseconds })
        })
    }

    /// When the next hold ends.
    pub fn deadline(&self) -> Option<u64> {
        let held = self.allowances.iter().filter_map(|allowance| allowance.held);
        held.map(|held| held.since.saturating_add(HOLD)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(brake: &mut Brake, kind: Kind, lines: usize, now: u64) -> usize {
        (0..lines).filter(|_| brake.pass(kind, now)).count()
    }

    #[test]
    fn what_is_rare_is_never_left_out() {
        let mut brake = Brake::new();
        for second in 0..1000 {
            assert!(brake.pass(Kind::Denied, second * STEP));
        }
        assert_eq!(brake.deadline(), None);
        assert_eq!(brake.release(u64::MAX), None);
    }

    #[test]
    fn a_flood_is_counted_and_reported_when_it_is_released() {
        let mut brake = Brake::new();
        assert_eq!(passed(&mut brake, Kind::Denied, 50, 5000), 20);
        assert_eq!(brake.deadline(), Some(15_000));
        assert_eq!(brake.release(14_999), None);
        assert_eq!(passed(&mut brake, Kind::Denied, 5, 14_999), 0);
        let summary = brake.release(15_000).expect("a summary");
        assert_eq!(
            summary.to_string(),
            "connections denied by ACL: 35 more lines left out in 10 s"
        );
        assert_eq!(brake.release(15_000), None);
        // The allowance that has grown during the hold.
        assert_eq!(passed(&mut brake, Kind::Denied, 50, 15_000), 10);
    }

    #[test]
    fn kinds_do_not_hinder_each_other() {
        let mut brake = Brake::new();
        assert_eq!(passed(&mut brake, Kind::Tls, 1000, 0), 20);
        assert!(brake.pass(Kind::Limit, 0));
    }

    #[test]
    fn a_day_of_flood_is_bounded() {
        let mut brake = Brake::new();
        let (mut lines, mut counted, mut summaries) = (0, 0, 0);
        for now in (0..86_400_000).step_by(100) {
            while let Some(summary) = brake.release(now) {
                counted += summary.lines;
                summaries += 1;
            }
            lines += u64::from(brake.pass(Kind::Admission, now));
        }
        counted += brake.end(86_400_000).map_or(0, |summary| summary.lines);
        assert_eq!(lines + counted, 864_000);
        assert!(lines <= 86_400 + BURST && summaries <= 8_640, "{lines} {summaries}");
    }

    #[test]
    fn what_is_held_is_told_at_the_end() {
        let mut brake = Brake::new();
        passed(&mut brake, Kind::Limit, 21, 0);
        let summary = brake.end(0).expect("a summary");
        assert_eq!((summary.kind, summary.lines), (Kind::Limit, 1));
        assert_eq!(summary.to_string(), "limits reached and left: 1 more lines left out in 1 s");
        assert_eq!(brake.end(0), None);
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let mut brake = Brake::new();
        assert_eq!(passed(&mut brake, Kind::Remote, 30, 1_000_000), 20);
        assert_eq!(passed(&mut brake, Kind::Remote, 30, 0), 0);
        assert_eq!(brake.release(0), None);
        assert_eq!(brake.release(2_000_000).expect("a summary").lines, 40);
    }
}

//! What is counted, and where in a row.
//!
//! Processes of different versions may share a row's layout, so numbers do not change: new words
//! come at the end of an enumeration.

use super::super::REMOTES;

/// The most listeners with counters of their own; what others do is counted for the process only.
pub const LISTENERS: usize = 64;
/// Words of each part. Not all of them have a meaning yet.
const GENERAL_WORDS: usize = 128;
pub(super) const LISTENER_WORDS: usize = 32;
pub(super) const REMOTE_WORDS: usize = 48;

/// Words of a row. Pages that are never used take no memory.
pub(super) const LISTENERS_AT: usize = GENERAL_WORDS;
pub(super) const REMOTES_AT: usize = LISTENERS_AT + LISTENERS * LISTENER_WORDS;
pub(super) const ROW: usize = REMOTES_AT + REMOTES * REMOTE_WORDS;

/// Where the families of counters begin, in the part that they belong to.
const REFUSED_AT: usize = 32;
const HANDSHAKES_AT: usize = 48;
/// Words for the handshakes of one side.
const HANDSHAKE_WORDS: usize = 24;
const TLS_FAILED_AT: usize = 8;
pub(super) const DURATIONS_AT: usize = HANDSHAKES_AT + 2 * HANDSHAKE_WORDS;
const EXPIRED_AT: usize = 112;
const LISTENER_REFUSED_AT: usize = 16;
const FAILED_AT: usize = 16;
pub(super) const CONNECT_AT: usize = 24;

/// What is counted of sessions once only: in the part of their listener or, if that has no counters
/// of its own, in the process's part, where the words are the same. A process has done what is in
/// all of these parts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum OfSessions {
    /// Gauge: sessions that are open.
    Open = 1,
    /// Bytes that clients have sent, as carried to remotes.
    BytesUp = 2,
    /// Bytes that remotes have sent, as carried to clients.
    BytesDown = 3,
}

impl General {
    /// True if each listener has a part of it.
    pub(super) fn is_of_sessions(self) -> bool {
        matches!(self, General::Open | General::BytesUp | General::BytesDown)
    }
}

/// A counter, or gauge, of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum General {
    /// Connections that a worker was given.
    Accepted = 0,
    /// Gauge: sessions that are open; in the row itself, those of listeners without counters.
    Open = OfSessions::Open as usize,
    /// Bytes that clients have sent, as carried to remotes; in the row as above.
    BytesUp = OfSessions::BytesUp as usize,
    /// Bytes that remotes have sent, as carried to clients; in the row as above.
    BytesDown = OfSessions::BytesDown as usize,
    /// Gauge: the process's id.
    Pid = 4,
    /// Gauge: when the process has started, in seconds of the wall clock.
    Since = 5,
    /// Gauge: how far the process is; a [`Standing`].
    Standing = 6,
    /// Connections that the broker has taken from its listeners.
    Arrived = 7,
    /// Reloads that have led to a new configuration.
    Reloads = 8,
    /// Reloads that were refused because of mistakes.
    ReloadsFailed = 9,
    /// Workers that were started.
    WorkersStarted = 10,
    /// Workers that have ended without being asked to.
    WorkersDied = 11,
    /// Monitors that were started.
    MonitorsStarted = 12,
    /// Gauge: when the last reload was, in seconds of the wall clock.
    ReloadAt = 13,
    /// Gauge: the most connections of all workers together.
    Limit = 14,
    /// Gauge: connections that wait for a worker.
    Waiting = 15,
    /// Sessions that have had to wait for their bandwidth.
    Throttled = 16,
    /// OCSP responses that the monitor has fetched and that say that the certificate is good.
    StaplesGood = 17,
    /// Those that say that it is revoked.
    StaplesRevoked = 18,
    /// Attempts to fetch one that have failed.
    StaplesFailed = 19,
}

/// A counter of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum OfListener {
    /// Connections that were taken from it.
    Arrived = 0,
    /// Gauge: sessions of its clients that are open.
    Open = OfSessions::Open as usize,
    /// Bytes that its clients have sent, as carried to remotes.
    BytesUp = OfSessions::BytesUp as usize,
    /// Bytes carried to its clients.
    BytesDown = OfSessions::BytesDown as usize,
    /// Gauge: 1 if it is bound.
    Bound = 4,
}

/// A counter of a remote. How many sessions use it now is in the zone's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum OfRemote {
    /// Sessions that were connected to it.
    Sessions = 0,
    /// Bytes sent to it.
    BytesUp = 1,
    /// Bytes received from it.
    BytesDown = 2,
    /// Sessions that have ended while they were being connected to it.
    Abandoned = 3,
    /// Probes that have succeeded.
    ProbesPassed = 4,
    /// Probes that have failed.
    ProbesFailed = 5,
}

/// Declares an enumeration of numbered words, with all of them and their names.
macro_rules! words {
    ($(#[$doc:meta])+ $name:ident { $($(#[$each:meta])+ $word:ident = $number:literal, $text:literal;)+ }) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum $name {
            $($(#[$each])+ $word = $number,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$word,)+];

            /// As figures call it.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$word => $text,)+
                }
            }
        }
    };
}

words! {
    /// Why a connection was refused.
    Refusal {
        /// The access list denies its address.
        Acl = 0, "acl";
        /// All workers have as many connections as they may have.
        Overload = 1, "overload";
        /// Its sender may not send PROXY headers, or has sent none or a wrong one.
        Proxy = 2, "proxy";
        /// The modules or scripts have said so.
        Authorization = 3, "authorization";
        /// No remote could be reached.
        NoRemote = 4, "no_remote";
        /// Its TLS handshake has failed.
        Tls = 5, "tls";
        /// This process was short of something.
        Resources = 6, "resources";
        /// Its client has as many sessions as it may.
        ClientSessions = 7, "client_sessions";
        /// It has said nothing, or not enough, in time.
        Timeout = 8, "timeout";
        /// The client has left before a remote was reached.
        Left = 9, "client_left";
        /// A route rejects it, or leads nowhere.
        Route = 10, "route";
        /// The worker had to end, or the remote was taken out, before one was reached.
        Drained = 11, "drained";
        /// All remotes that would do have as many sessions as they may.
        RemotesFull = 12, "remotes_full";
        /// Its client connects more often than it may.
        ClientRate = 13, "client_rate";
    }
}

words! {
    /// Which limit of time has ended a session.
    Expiry {
        /// `idle timeout`
        Idle = 0, "idle";
        /// `session timeout`
        Session = 1, "session";
        /// `first byte timeout`
        FirstByte = 2, "first_byte";
        /// `half-closed timeout`
        HalfClosed = 3, "half_closed";
        /// `queue timeout`
        Queue = 4, "queue";
    }
}

words! {
    /// Why a remote could not be reached.
    Failure {
        /// Nobody listens there.
        Refused = 0, "refused";
        /// It did not answer in time.
        Timeout = 1, "timeout";
        /// There is no way to it.
        Unreachable = 2, "unreachable";
        /// The TLS handshake has failed.
        Tls = 3, "tls";
        /// This host was short of something, ports or descriptors.
        Host = 4, "host";
        /// Anything else.
        Other = 5, "other";
        /// It has ended a session at once, without an answer.
        CutShort = 6, "cut_short";
    }
}

words! {
    /// Versions of TLS.
    TlsVersion {
        /// TLS 1.0
        Tls10 = 0, "TLSv1.0";
        /// TLS 1.1
        Tls11 = 1, "TLSv1.1";
        /// TLS 1.2
        Tls12 = 2, "TLSv1.2";
        /// TLS 1.3
        Tls13 = 3, "TLSv1.3";
    }
}

words! {
    /// Why a TLS handshake has failed.
    TlsFailure {
        /// It was not done in time.
        Timeout = 0, "timeout";
        /// The other side has closed the connection.
        Closed = 1, "closed";
        /// The certificate of the other side was refused.
        Certificate = 2, "certificate";
        /// No version or cipher suits both sides, or the other side speaks no TLS.
        Protocol = 3, "protocol";
        /// The other side has sent an alert.
        Alert = 4, "alert";
        /// Anything else.
        Other = 5, "other";
    }
}

words! {
    /// With whom TLS is spoken.
    Side {
        /// With clients.
        Client = 0, "client";
        /// With remotes.
        Remote = 1, "remote";
    }
}

words! {
    /// Who handles the TLS records of a session.
    TlsRecords {
        /// The relay itself.
        Own = 0, "own";
        /// OpenSSL.
        Openssl = 1, "openssl";
        /// The kernel.
        Kernel = 2, "kernel";
    }
}

words! {
    /// How far a process is.
    Standing {
        /// It starts.
        Starting = 0, "starting";
        /// It serves.
        Serving = 1, "serving";
        /// It takes no more connections, and ends with its last session.
        Leaving = 2, "leaving";
    }
}

impl TlsFailure {
    /// The reason in a text of the TLS library, or of ours.
    pub fn of(text: &str) -> TlsFailure {
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        // An alert may be about a certificate, but it is the other side that says so.
        if has(&["timeout"]) {
            TlsFailure::Timeout
        } else if has(&["has ended", "reset by peer", "Broken pipe", "unexpected eof"]) {
            TlsFailure::Closed
        } else if has(&["alert"]) {
            TlsFailure::Alert
        } else if has(&["certificate", "verif", "hostname"]) {
            TlsFailure::Certificate
        } else if has(&["version", "protocol", "cipher", "http request", "record", "packet"]) {
            TlsFailure::Protocol
        } else {
            TlsFailure::Other
        }
    }
}

impl Standing {
    /// From a word, whatever is in it.
    pub(super) fn of(word: u64) -> Standing {
        match word {
            1 => Standing::Serving,
            2 => Standing::Leaving,
            _ => Standing::Starting,
        }
    }
}

/// A histogram: how often something took how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histogram {
    /// Sessions, from the client's arrival to the end.
    Duration,
    /// Connecting to the remote with this row in the zone, TLS included.
    Connect(usize),
}

impl Histogram {
    /// The upper bounds of its buckets, in milliseconds. There is one more bucket, for all above.
    #[inline]
    pub fn bounds(self) -> &'static [u64] {
        match self {
            Histogram::Duration => {
                &[10, 100, 1_000, 10_000, 60_000, 600_000, 3_600_000, 21_600_000, 86_400_000]
            }
            Histogram::Connect(_) => &[1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000],
        }
    }

    /// The bucket of a value.
    #[inline]
    pub(super) fn bucket(self, milliseconds: u64) -> usize {
        self.bounds().iter().take_while(|&&bound| milliseconds > bound).count()
    }

    /// The place of the sum, behind the buckets.
    #[inline]
    pub(super) fn sum(self) -> usize {
        self.bounds().len() + 1
    }

    /// Where its words begin in a row: the buckets, and then the sum.
    fn start(self) -> Option<usize> {
        match self {
            Histogram::Duration => Some(DURATIONS_AT),
            Histogram::Connect(remote) => of_remote(remote, CONNECT_AT),
        }
    }
}

/// A place in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of the process.
    General(General),
    /// Of a listener, by its number.
    Listener(usize, OfListener),
    /// Of a remote, by its row in the zone.
    Remote(usize, OfRemote),
    /// Connections that were refused.
    Refused(Refusal),
    /// Sessions that a limit of time has ended.
    Expired(Expiry),
    /// Connections of a listener that were refused.
    ListenerRefused(usize, Refusal),
    /// Attempts to connect to a remote that have failed.
    Failed(usize, Failure),
    /// TLS handshakes.
    Handshake(Side, TlsVersion),
    /// TLS handshakes that have resumed a session; they are among those above.
    Resumed(Side),
    /// TLS handshakes that have failed.
    TlsFailed(Side, TlsFailure),
    /// Sessions that have ended, by who had the TLS records of that side.
    TlsRecords(Side, TlsRecords),
    /// Values of a histogram in a bucket, by its number.
    Bucket(Histogram, usize),
    /// The sum of all values of a histogram, in milliseconds.
    Sum(Histogram),
}

fn of_listener(listener: usize, word: usize) -> Option<usize> {
    (listener < LISTENERS).then(|| LISTENERS_AT + listener * LISTENER_WORDS + word)
}

fn of_remote(remote: usize, word: usize) -> Option<usize> {
    (remote < REMOTES).then(|| REMOTES_AT + remote * REMOTE_WORDS + word)
}

fn of_side(side: Side, word: usize) -> usize {
    HANDSHAKES_AT + side as usize * HANDSHAKE_WORDS + word
}

/// The word of [`Place::Resumed`], after those of versions.
const RESUMED: usize = 7;
/// Words of [`Place::TlsRecords`], after those of failures.
const TLS_RECORDS_AT: usize = 16;

impl Place {
    /// The words of a row that make up this figure: none for a listener or remote without counters.
    pub(super) fn words(self) -> impl Iterator<Item = usize> {
        let listeners = match self {
            Place::General(counter) if counter.is_of_sessions() => LISTENERS,
            _ => 0,
        };
        let word = self.word();
        let of_listener = move |listener| Some(LISTENERS_AT + listener * LISTENER_WORDS + word?);
        word.into_iter().chain((0..listeners).filter_map(of_listener))
    }

    /// The word of a row; `None` for a listener or remote without counters.
    #[inline]
    pub(super) fn word(self) -> Option<usize> {
        match self {
            Place::General(counter) => Some(counter as usize),
            Place::Listener(listener, counter) => of_listener(listener, counter as usize),
            Place::Remote(remote, counter) => of_remote(remote, counter as usize),
            Place::Refused(why) => Some(REFUSED_AT + why as usize),
            Place::Expired(why) => Some(EXPIRED_AT + why as usize),
            Place::ListenerRefused(listener, why) => {
                of_listener(listener, LISTENER_REFUSED_AT + why as usize)
            }
            Place::Failed(remote, why) => of_remote(remote, FAILED_AT + why as usize),
            Place::Handshake(side, version) => Some(of_side(side, version as usize)),
            Place::Resumed(side) => Some(of_side(side, RESUMED)),
            Place::TlsFailed(side, why) => Some(of_side(side, TLS_FAILED_AT + why as usize)),
            Place::TlsRecords(side, who) => Some(of_side(side, TLS_RECORDS_AT + who as usize)),
            Place::Bucket(histogram, bucket) => {
                let bucket = bucket.min(histogram.sum() - 1);
                Some(histogram.start()? + bucket)
            }
            Place::Sum(histogram) => Some(histogram.start()? + histogram.sum()),
        }
    }
}

/// True for words that say how many there are now.
pub(super) fn is_gauge(word: usize) -> bool {
    const GAUGES: [General; 7] = [
        General::Open,
        General::Pid,
        General::Since,
        General::Standing,
        General::ReloadAt,
        General::Limit,
        General::Waiting,
    ];
    const LISTENER_GAUGES: [OfListener; 2] = [OfListener::Open, OfListener::Bound];
    match word {
        0..GENERAL_WORDS => GAUGES.iter().any(|&gauge| gauge as usize == word),
        LISTENERS_AT..REMOTES_AT => {
            let word = (word - LISTENERS_AT) % LISTENER_WORDS;
            LISTENER_GAUGES.iter().any(|&gauge| gauge as usize == word)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn places_are_places_of_their_own() {
        let mut all: Vec<Place> = (0..20)
            .map(|word| match word {
                0 => General::Accepted,
                1 => General::Open,
                2 => General::BytesUp,
                3 => General::BytesDown,
                4 => General::Pid,
                5 => General::Since,
                6 => General::Standing,
                7 => General::Arrived,
                8 => General::Reloads,
                9 => General::ReloadsFailed,
                10 => General::WorkersStarted,
                11 => General::WorkersDied,
                12 => General::MonitorsStarted,
                13 => General::ReloadAt,
                14 => General::Limit,
                15 => General::Waiting,
                16 => General::Throttled,
                17 => General::StaplesGood,
                18 => General::StaplesRevoked,
                _ => General::StaplesFailed,
            })
            .map(Place::General)
            .collect();
        all.extend(Refusal::ALL.iter().map(|&why| Place::Refused(why)));
        all.extend(Expiry::ALL.iter().map(|&why| Place::Expired(why)));
        for &side in Side::ALL {
            all.extend(TlsVersion::ALL.iter().map(|&version| Place::Handshake(side, version)));
            all.push(Place::Resumed(side));
            all.extend(TlsFailure::ALL.iter().map(|&why| Place::TlsFailed(side, why)));
            all.extend(TlsRecords::ALL.iter().map(|&who| Place::TlsRecords(side, who)));
        }
        for histogram in
            [Histogram::Duration, Histogram::Connect(0), Histogram::Connect(REMOTES - 1)]
        {
            let buckets = 0..=histogram.bounds().len();
            all.extend(buckets.map(|bucket| Place::Bucket(histogram, bucket)));
            all.push(Place::Sum(histogram));
        }
        for listener in [0, LISTENERS - 1] {
            all.extend(Refusal::ALL.iter().map(|&why| Place::ListenerRefused(listener, why)));
            all.push(Place::Listener(listener, OfListener::Arrived));
            all.push(Place::Listener(listener, OfListener::Bound));
        }
        for remote in [0, REMOTES - 1] {
            all.extend(Failure::ALL.iter().map(|&why| Place::Failed(remote, why)));
            all.push(Place::Remote(remote, OfRemote::Sessions));
            all.push(Place::Remote(remote, OfRemote::ProbesFailed));
        }
        let words: BTreeSet<usize> = all.iter().filter_map(|place| place.word()).collect();
        assert_eq!(words.len(), all.len());
        assert!(words.iter().all(|&word| word < ROW));
        // Each family stays in its part.
        assert!(Place::Sum(Histogram::Duration).word() < Some(GENERAL_WORDS));
        assert!(Place::Expired(Expiry::Queue).word() < Some(GENERAL_WORDS));
        let last = Place::Sum(Histogram::Connect(0)).word();
        assert!(last < Some(REMOTES_AT + REMOTE_WORDS));
        assert_eq!(Place::Listener(LISTENERS, OfListener::Arrived).word(), None);
        assert_eq!(Place::Remote(usize::MAX, OfRemote::Sessions).word(), None);
    }

    #[test]
    fn reasons_are_found_in_texts() {
        for (text, expected) in [
            ("handshake timeout", TlsFailure::Timeout),
            ("the connection has ended", TlsFailure::Closed),
            ("Connection reset by peer", TlsFailure::Closed),
            ("ssl/tls alert certificate unknown", TlsFailure::Alert),
            ("certificate verify failed", TlsFailure::Certificate),
            ("no shared cipher", TlsFailure::Protocol),
            ("wrong version number", TlsFailure::Protocol),
            ("out of memory", TlsFailure::Other),
        ] {
            assert_eq!(TlsFailure::of(text), expected, "{text}");
        }
    }

    #[test]
    fn gauges_are_known() {
        let gauge = |place: Place| place.word().is_some_and(is_gauge);
        assert!(gauge(Place::General(General::Open)));
        assert!(gauge(Place::Listener(7, OfListener::Bound)));
        assert!(!gauge(Place::General(General::Accepted)));
        assert!(!gauge(Place::Listener(7, OfListener::BytesUp)));
        assert!(!gauge(Place::Remote(1, OfRemote::BytesUp)));
    }
}

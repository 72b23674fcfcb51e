//! The overview: what is known of remotes, listeners, workers and errors at one moment, as plain
//! data. The status page, the metrics and the control socket show it.

use super::json::Json;
use super::shared::{Known, Shared};
use crate::os;
use crate::upstream::health::{Reason, Standing as Found, WHOLE};
use crate::upstream::wish::{Lasting, Service, Wish};
use crate::upstream::zone::counters::{
    Expiry, Failure, General, Histogram, Member, OfListener, OfRemote, Place, Refusal, Role, Side,
    TlsFailure, TlsRecords, TlsVersion, LISTENERS,
};
use crate::upstream::zone::notes::Note;
use crate::upstream::zone::{Zone, FOREVER};

/// What is known at one moment. Counters only grow while the broker lives.
#[derive(Debug)]
pub(super) struct Overview {
    /// The version of this program.
    pub(super) version: &'static str,
    /// When this was found, in seconds of the wall clock.
    pub(super) time: u64,
    pub(super) totals: Totals,
    /// In the order of their places.
    pub(super) remotes: Vec<Remote>,
    /// In the order of their numbers.
    pub(super) listeners: Vec<Listener>,
    /// Those that take part in the zone: broker and monitor too.
    pub(super) processes: Vec<Member>,
    /// The newest first.
    pub(super) errors: Vec<Note>,
}

/// Figures that belong to no remote or listener.
#[derive(Debug)]
pub(super) struct Totals {
    /// Connections taken from listeners.
    pub(super) arrived: u64,
    /// Connections given to workers.
    pub(super) accepted: u64,
    pub(super) refused: Vec<(Refusal, u64)>,
    pub(super) expired: Vec<(Expiry, u64)>,
    /// Sessions that are open.
    pub(super) open: u64,
    /// Connections that wait for a worker.
    pub(super) waiting: u64,
    /// The most connections of all workers together; 0 if that is not known.
    pub(super) limit: u64,
    /// Sessions that have had to wait for their bandwidth.
    pub(super) throttled: u64,
    /// Bytes carried from clients to remotes, and from remotes to clients.
    pub(super) bytes: [u64; 2],
    pub(super) durations: Spread,
    pub(super) handshakes: Vec<Handshakes>,
    /// OCSP responses that say good and revoked, and attempts to fetch one that have failed.
    pub(super) staples: [u64; 3],
    pub(super) reloads: u64,
    pub(super) reloads_failed: u64,
    /// When the last reload was, in seconds of the wall clock; `None` without one.
    pub(super) reload_at: Option<u64>,
    pub(super) workers_started: u64,
    pub(super) workers_died: u64,
    pub(super) monitors_started: u64,
}

/// TLS handshakes of one side.
#[derive(Debug)]
pub(super) struct Handshakes {
    pub(super) side: Side,
    pub(super) versions: Vec<(TlsVersion, u64)>,
    pub(super) resumed: u64,
    pub(super) failed: Vec<(TlsFailure, u64)>,
    /// Sessions that have ended, by who had their records.
    pub(super) records: Vec<(TlsRecords, u64)>,
}

/// A histogram.
#[derive(Debug)]
pub(super) struct Spread {
    /// The upper bounds of the buckets, in milliseconds; there is one more bucket, for all above.
    pub(super) bounds: &'static [u64],
    /// How many values each bucket has.
    pub(super) buckets: Vec<u64>,
    /// The sum of all values, in milliseconds.
    pub(super) sum: u64,
}

impl Spread {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, &count| sum.wrapping_add(count))
    }
}

/// Whether a remote gets sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Up,
    /// Its probes fail, or it was not probed yet and counts as down until then.
    Down,
    /// Sessions could not reach it, so it gets none for a while.
    Failed,
    /// An operator has taken it out: no new sessions.
    Drained,
    /// An operator has taken it out: no sessions.
    Disabled,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Down => "down",
            State::Failed => "failed",
            State::Drained => "drained",
            State::Disabled => "disabled",
        }
    }
}

/// A remote.
#[derive(Debug)]
pub(super) struct Remote {
    /// Its place: it keeps it as long as it is there.
    pub(super) place: usize,
    /// Its row in the zone.
    pub(super) row: usize,
    /// Its name in messages: address, port, and host name.
    pub(super) name: String,
    /// The address alone.
    pub(super) address: String,
    pub(super) tags: Vec<String>,
    /// As configured.
    pub(super) weight: u32,
    /// What an operator has decided about it.
    pub(super) wish: Wish,
    pub(super) backup: bool,
    /// It is probed.
    pub(super) checked: bool,
    pub(super) state: State,
    /// Why it is as it is, in words.
    pub(super) why: String,
    /// When the verdict of its probes last changed, in seconds of the wall clock; `None` if it is
    /// not probed.
    pub(super) since: Option<u64>,
    /// Milliseconds until it is tried again; `None` if it has not failed, or stays failed.
    pub(super) retry_in: Option<u64>,
    /// Its share of the sessions that it would get, in percent: below 100 during a slow start.
    pub(super) share: u32,
    /// Sessions that use it now.
    pub(super) open: u64,
    /// Sessions that were connected to it.
    pub(super) sessions: u64,
    /// Bytes sent to it, and received from it.
    pub(super) bytes: [u64; 2],
    pub(super) selected: u64,
    pub(super) failed: Vec<(Failure, u64)>,
    pub(super) connect_times: Spread,
    pub(super) probes_passed: u64,
    pub(super) probes_failed: u64,
}

/// A listener.
#[derive(Debug)]
pub(super) struct Listener {
    /// Protocol and address.
    pub(super) name: String,
    pub(super) bound: bool,
    pub(super) arrived: u64,
    pub(super) open: u64,
    pub(super) bytes: [u64; 2],
    pub(super) refused: Vec<(Refusal, u64)>,
}

/// Reads figures in the order in which they are asked for, all at one moment.
struct Figures<'a> {
    zone: &'a Zone,
}

impl Figures<'_> {
    fn read<const N: usize>(&self, places: [Place; N]) -> [u64; N] {
        let figures = self.zone.figures(&places);
        std::array::from_fn(|index| figures.get(index).copied().unwrap_or(0))
    }

    fn each<T: Copy>(&self, all: &[T], place: impl Fn(T) -> Place) -> Vec<(T, u64)> {
        let places: Vec<Place> = all.iter().map(|&each| place(each)).collect();
        all.iter().copied().zip(self.zone.figures(&places)).collect()
    }

    fn spread(&self, histogram: Histogram) -> Spread {
        let bounds = histogram.bounds();
        let buckets = (0..=bounds.len()).map(|bucket| Place::Bucket(histogram, bucket));
        let places: Vec<Place> = buckets.chain([Place::Sum(histogram)]).collect();
        let mut buckets = self.zone.figures(&places);
        let sum = buckets.pop().unwrap_or(0);
        Spread { bounds, buckets, sum }
    }
}

impl Overview {
    /// What is known now.
    pub(super) fn of(shared: &Shared) -> Overview {
        let figures = Figures { zone: &shared.zone };
        let remotes = shared.remotes();
        let listeners = shared.briefing.listeners.iter().take(LISTENERS).enumerate();
        Overview {
            version: env!("CARGO_PKG_VERSION"),
            time: os::wall_clock(),
            totals: Totals::of(&figures),
            remotes: remotes.map(|(place, known)| Remote::of(place, known, &figures)).collect(),
            listeners: listeners
                .map(|(number, name)| Listener::of(number, name, &figures))
                .collect(),
            processes: shared.zone.members(),
            errors: shared.zone.notes(),
        }
    }

    /// The workers.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Member> {
        self.processes.iter().filter(|member| member.role == Role::Worker)
    }

    /// True if a remote can get sessions.
    pub(super) fn is_serving(&self) -> bool {
        self.remotes.iter().any(|remote| remote.state == State::Up)
    }
}

impl Totals {
    fn of(figures: &Figures<'_>) -> Totals {
        use General::*;
        let all = [
            Arrived,
            Accepted,
            Open,
            Waiting,
            Limit,
            Throttled,
            BytesUp,
            BytesDown,
            Reloads,
            ReloadsFailed,
            ReloadAt,
            WorkersStarted,
            WorkersDied,
            MonitorsStarted,
        ];
        let [arrived, accepted, open, waiting, limit, throttled, up, down, reloads, reloads_failed, reload_at, workers_started, workers_died, monitors_started] =
            figures.read(all.map(Place::General));
        let staples = [StaplesGood, StaplesRevoked, StaplesFailed].map(Place::General);
        let handshakes = Side::ALL.iter().map(|&side| Handshakes {
            side,
            versions: figures.each(TlsVersion::ALL, |version| Place::Handshake(side, version)),
            resumed: figures.read([Place::Resumed(side)])[0],
            failed: figures.each(TlsFailure::ALL, |why| Place::TlsFailed(side, why)),
            records: figures.each(TlsRecords::ALL, |who| Place::TlsRecords(side, who)),
        });
        Totals {
            arrived,
            accepted,
            refused: figures.each(Refusal::ALL, Place::Refused),
            expired: figures.each(Expiry::ALL, Place::Expired),
            open,
            waiting,
            limit,
            throttled,
            staples: figures.read(staples),
            bytes: [up, down],
            durations: figures.spread(Histogram::Duration),
            handshakes: handshakes.collect(),
            reloads,
            reloads_failed,
            reload_at: (reload_at != 0).then_some(reload_at),
            workers_started,
            workers_died,
            monitors_started,
        }
    }
}

impl Remote {
    fn of(place: usize, known: &Known, figures: &Figures<'_>) -> Remote {
        let (remote, row) = (&known.remote, known.row);
        let zone = figures.zone;
        let (state, health) = (zone.state(row), zone.health(row));
        let check = remote.check.as_ref();
        let now = os::monotonic_clock();
        let marked = state.retry_at > now;
        let retry_in = (marked && state.retry_at != FOREVER).then(|| state.retry_at - now);
        let wish = zone.wish(row);
        let standing = match check {
            _ if wish.service == Service::Drained => State::Drained,
            _ if wish.service == Service::Disabled => State::Disabled,
            Some(check) if health.is_down(check.start) => State::Down,
            _ if marked => State::Failed,
            _ => State::Up,
        };
        let why = match (standing, check) {
            (State::Drained | State::Disabled, _) => match wish.service_lasts {
                Lasting::Always => "by hand".to_owned(),
                Lasting::UntilReload => "by hand, until the next reload".to_owned(),
            },
            (State::Failed, _) => "sessions could not reach it".to_owned(),
            (_, None) => "not probed".to_owned(),
            (_, Some(_)) if health.standing == Found::Unknown => "not probed yet".to_owned(),
            (_, Some(_)) => words(health.reason).to_owned(),
        };
        let [sessions, up, down, abandoned, probes_passed, probes_failed] = figures.read(
            [
                OfRemote::Sessions,
                OfRemote::BytesUp,
                OfRemote::BytesDown,
                OfRemote::Abandoned,
                OfRemote::ProbesPassed,
                OfRemote::ProbesFailed,
            ]
            .map(|counter| Place::Remote(row, counter)),
        );
        let failed = figures.each(Failure::ALL, |why| Place::Failed(row, why));
        // Counted by how it went, so that sessions do not count it twice.
        let not_reached = failed.iter().filter(|&&(why, _)| why != Failure::CutShort);
        let not_reached: u64 = not_reached.map(|&(_, count)| count).sum();
        Remote {
            place,
            row,
            name: known.name(),
            address: remote.address.to_string(),
            tags: remote.tags.clone(),
            weight: remote.weight,
            wish,
            backup: remote.backup,
            checked: check.is_some(),
            state: standing,
            why,
            since: check.map(|_| u64::from(health.since)).filter(|&since| since != 0),
            retry_in,
            share: u32::from(health.share) * 100 / u32::from(WHOLE),
            open: state.used,
            sessions,
            bytes: [up, down],
            selected: sessions.wrapping_add(not_reached).wrapping_add(abandoned),
            failed,
            connect_times: figures.spread(Histogram::Connect(row)),
            probes_passed,
            probes_failed,
        }
    }
}

impl Listener {
    fn of(number: usize, name: &str, figures: &Figures<'_>) -> Listener {
        let [arrived, open, up, down, bound] = figures.read(
            [
                OfListener::Arrived,
                OfListener::Open,
                OfListener::BytesUp,
                OfListener::BytesDown,
                OfListener::Bound,
            ]
            .map(|counter| Place::Listener(number, counter)),
        );
        Listener {
            name: name.to_owned(),
            bound: bound != 0,
            arrived,
            open,
            bytes: [up, down],
            refused: figures.each(Refusal::ALL, |why| Place::ListenerRefused(number, why)),
        }
    }
}

/// What a reason means.
fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::Start => "not probed yet",
        Reason::Passed => "its probes succeed",
        Reason::Connect => "it cannot be connected to",
        Reason::Timeout => "no answer in time",
        Reason::Tls => "the TLS handshake has failed",
        Reason::Closed => "it has closed the connection",
        Reason::Answer => "its answer does not match",
        Reason::Status => "its HTTP status is not accepted",
    }
}

/// A part of the overview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Totals,
    Remotes,
    Listeners,
    Processes,
    Errors,
}

impl Part {
    pub(super) const ALL: &'static [Part] =
        &[Part::Totals, Part::Remotes, Part::Listeners, Part::Processes, Part::Errors];
}

impl Overview {
    /// All of it as JSON.
    pub(super) fn to_json(&self) -> String {
        Json::of(|json| self.write(Part::ALL, json))
    }

    /// Parts of it as JSON, as the answer to a client of the control socket.
    pub(super) fn answer(&self, parts: &[Part]) -> String {
        Json::of(|json| {
            json.name("ok").boolean(true);
            self.write(parts, json);
        })
    }

    fn write(&self, parts: &[Part], json: &mut Json) {
        json.name("version").string(self.version);
        json.name("time").number(self.time);
        for part in parts {
            match part {
                Part::Totals => json.name("totals").object(|json| self.totals.write(json)),
                Part::Remotes => json.name("remotes").array(|json| {
                    self.remotes.iter().for_each(|remote| json.object(|json| remote.write(json)));
                }),
                Part::Listeners => json.name("listeners").array(|json| {
                    let all = self.listeners.iter();
                    all.for_each(|listener| json.object(|json| listener.write(json)));
                }),
                Part::Processes => json.name("processes").array(|json| {
                    let all = self.processes.iter();
                    all.for_each(|member| json.object(|json| process(member, json)));
                }),
                Part::Errors => json.name("errors").array(|json| {
                    self.errors.iter().for_each(|note| json.object(|json| error(note, json)));
                }),
            }
        }
    }
}

impl Totals {
    fn write(&self, json: &mut Json) {
        json.name("connections_accepted").number(self.arrived);
        json.name("connections_refused").object(|json| {
            self.refused.iter().for_each(|&(why, count)| json.name(why.name()).number(count));
        });
        json.name("sessions_expired").object(|json| {
            self.expired.iter().for_each(|&(why, count)| json.name(why.name()).number(count));
        });
        json.name("sessions_throttled").number(self.throttled);
        json.name("sessions_open").number(self.open);
        json.name("connections_waiting").number(self.waiting);
        json.name("connections_limit").number(self.limit);
        bytes(self.bytes, json);
        json.name("session_duration_seconds").object(|json| self.durations.write(json));
        json.name("tls").object(|json| {
            for side in &self.handshakes {
                json.name(side.side.name()).object(|json| side.write(json));
            }
        });
        json.name("reloads").number(self.reloads);
        json.name("reloads_failed").number(self.reloads_failed);
        json.name("last_reload").number_or_null(self.reload_at);
        json.name("workers_started").number(self.workers_started);
        json.name("workers_died").number(self.workers_died);
        json.name("monitors_started").number(self.monitors_started);
    }
}

/// Bytes to remotes and to clients.
fn bytes([up, down]: [u64; 2], json: &mut Json) {
    json.name("bytes_to_remotes").number(up);
    json.name("bytes_to_clients").number(down);
}

impl Handshakes {
    fn write(&self, json: &mut Json) {
        json.name("handshakes").object(|json| {
            self.versions.iter().for_each(|&(version, n)| json.name(version.name()).number(n));
        });
        json.name("resumed").number(self.resumed);
        json.name("failed").object(|json| {
            self.failed.iter().for_each(|&(why, count)| json.name(why.name()).number(count));
        });
        json.name("records").object(|json| {
            self.records.iter().for_each(|&(who, count)| json.name(who.name()).number(count));
        });
    }
}

impl Spread {
    fn write(&self, json: &mut Json) {
        json.name("count").number(self.count());
        json.name("sum").seconds(self.sum);
    }
}

impl Remote {
    fn write(&self, json: &mut Json) {
        json.name("name").string(&self.name);
        json.name("address").string(&self.address);
        json.name("tags").array(|json| self.tags.iter().for_each(|tag| json.string(tag)));
        json.name("weight").number(self.weight.into());
        json.name("weight_by_hand").number_or_null(self.wish.weight.map(u64::from));
        let until_reload = self.wish.weight_lasts == Lasting::UntilReload;
        json.name("weight_until_reload").boolean(until_reload);
        json.name("backup").boolean(self.backup);
        json.name("state").string(self.state.name());
        json.name("why").string(&self.why);
        json.name("probed").boolean(self.checked);
        json.name("since").number_or_null(self.since);
        json.name("retry_in_seconds").number_or_null(self.retry_in.map(|ms| ms.div_ceil(1000)));
        json.name("share_percent").number(self.share.into());
        json.name("sessions_open").number(self.open);
        json.name("sessions").number(self.sessions);
        bytes(self.bytes, json);
        json.name("selected").number(self.selected);
        json.name("connect_failures").object(|json| {
            self.failed.iter().for_each(|&(why, count)| json.name(why.name()).number(count));
        });
        json.name("connect_seconds").object(|json| self.connect_times.write(json));
        json.name("probes_passed").number(self.probes_passed);
        json.name("probes_failed").number(self.probes_failed);
    }
}

impl Listener {
    fn write(&self, json: &mut Json) {
        json.name("name").string(&self.name);
        json.name("bound").boolean(self.bound);
        json.name("connections_accepted").number(self.arrived);
        json.name("connections_refused").object(|json| {
            self.refused.iter().for_each(|&(why, count)| json.name(why.name()).number(count));
        });
        json.name("sessions_open").number(self.open);
        bytes(self.bytes, json);
    }
}

fn process(member: &Member, json: &mut Json) {
    json.name("role").string(member.role.name());
    json.name("pid").number(member.pid);
    json.name("state").string(member.standing.name());
    json.name("since").number(member.since);
    json.name("sessions_open").number(member.open);
    json.name("connections").number(member.accepted);
    bytes(member.bytes, json);
}

fn error(note: &Note, json: &mut Json) {
    json.name("time").number(note.time);
    json.name("role").string(note.role.name());
    json.name("pid").number(note.pid);
    json.name("text").string(&note.text);
}

//! Counts what sessions do, in this worker's row of the zone.

use super::access::Outcome;
use super::allotment::Limit;
use super::pair::{End, Pair};
use super::shared::Shared;
use super::tally::Tally;
use crate::tls::policy::Handler;
use crate::tls::stream::{Negotiated, Stream};
use crate::upstream::remote::RemoteId;
use crate::upstream::zone::counters::{
    Expiry, Failure, OfRemote, OfSessions, Place, Refusal, Row, SessionCounters, Side, TlsFailure,
    TlsRecords, TlsVersion,
};

const SESSION_BYTES: [OfSessions; 2] = [OfSessions::BytesUp, OfSessions::BytesDown];
const REMOTE_BYTES: [OfRemote; 2] = [OfRemote::BytesUp, OfRemote::BytesDown];

impl Shared {
    /// A session begins, for a client of this listener.
    pub(super) fn count_begin(&mut self, index: u32, listener: Option<u16>, now: u64) {
        let Some(row) = self.counters.row() else {
            return;
        };
        self.tallies.begin(index, Tally { listener, begun: now, ..Tally::default() });
        row.sessions(listener).add(OfSessions::Open, 1);
    }

    /// A connection of this listener is not relayed.
    pub(super) fn count_refusal(&self, listener: Option<u16>, why: Refusal) {
        self.counters.add(Place::Refused(why), 1);
        if let Some(listener) = listener {
            self.counters.add(Place::ListenerRefused(listener.into(), why), 1);
        }
    }

    /// A session was connected to this remote, which took so many milliseconds, with this TLS.
    pub(super) fn count_connection(
        &mut self,
        index: u32,
        remote: RemoteId,
        stream: Option<&Stream>,
        taken: u64,
    ) {
        let (Some(row), Some(tally)) = (self.counters.row(), self.tallies.of(index)) else {
            return;
        };
        tally.row = self.registry.row(remote).and_then(|row| u16::try_from(row).ok());
        if let Some(remote) = row.remote(tally.row) {
            remote.connected(taken);
        }
        if let Some(stream) = stream {
            self.count_handshake(Side::Remote, stream);
        }
    }

    /// A session has ended while it was being connected to this remote.
    pub(super) fn count_abandoned(&self, remote: RemoteId) {
        if let Some(row) = self.registry.row(remote) {
            self.counters.add(Place::Remote(row, OfRemote::Abandoned), 1);
        }
    }

    /// A remote could not be reached, or has ended a session at once.
    pub(super) fn count_failure(&self, remote: RemoteId, why: Failure, text: &str) {
        if !self.counters.are_kept() {
            return;
        }
        if let Some(row) = self.registry.row(remote) {
            self.counters.add(Place::Failed(row, why), 1);
        }
        if why == Failure::Tls {
            self.count_failed_handshake(Side::Remote, text);
        }
    }

    /// A TLS handshake is done.
    pub(super) fn count_handshake(&self, side: Side, stream: &Stream) {
        if !self.counters.are_kept() {
            return;
        }
        if let Some(Negotiated { version, resumed }) = stream.negotiated() {
            let known = TlsVersion::ALL.iter().find(|known| known.name() == version);
            if let Some(&version) = known {
                self.counters.add(Place::Handshake(side, version), 1);
            }
            if resumed {
                self.counters.add(Place::Resumed(side), 1);
            }
        }
    }

    /// A TLS handshake has failed.
    pub(super) fn count_failed_handshake(&self, side: Side, text: &str) {
        self.counters.add(Place::TlsFailed(side, TlsFailure::of(text)), 1);
    }

    /// A session has ended. `open`: how many are left.
    pub(super) fn count_end(
        &mut self,
        index: u32,
        pair: Option<&Pair>,
        outcome: &Outcome,
        now: u64,
    ) {
        let (Some(row), Some(tally)) = (self.counters.row(), self.tallies.of(index)) else {
            return;
        };
        let counters = row.sessions(tally.listener);
        if let Some(pair) = pair {
            count_bytes(row, counters, tally, pair);
        }
        counters.add(OfSessions::Open, 1u64.wrapping_neg());
        row.lasted(now.saturating_sub(tally.begun));
        let listener = tally.listener;
        if let Outcome::Limited(limit) = outcome {
            let why = match limit {
                Limit::Idle => Expiry::Idle,
                Limit::Session => Expiry::Session,
                Limit::FirstByte => Expiry::FirstByte,
                Limit::HalfClosed => Expiry::HalfClosed,
                Limit::Queue => Expiry::Queue,
            };
            row.add(Place::Expired(why), 1);
        }
        if let Some(pair) = pair {
            self.count_records(pair);
        } else {
            let why = match outcome {
                Outcome::Refused(why, _) => *why,
                Outcome::NoRemote => Refusal::NoRemote,
                Outcome::Full => Refusal::RemotesFull,
                Outcome::Limited(_) => Refusal::Timeout,
                Outcome::Closed | Outcome::Broken(End::Client | End::Upstream) => Refusal::Left,
                Outcome::Drained | Outcome::Down | Outcome::Disabled | Outcome::Ended => {
                    Refusal::Drained
                }
            };
            self.count_refusal(listener, why);
        }
    }

    /// A session has ended: counts who had its TLS records.
    fn count_records(&self, pair: &Pair) {
        let Some(tls) = &pair.tls else {
            return;
        };
        for (side, stream) in [(Side::Client, &tls.client), (Side::Remote, &tls.upstream)] {
            if let Some(stream) = stream {
                let who = match stream.handler() {
                    Handler::Own => TlsRecords::Own,
                    Handler::Openssl => TlsRecords::Openssl,
                    Handler::Kernel => TlsRecords::Kernel,
                };
                self.counters.add(Place::TlsRecords(side, who), 1);
            }
        }
    }

    /// Counts what a session has carried since it was last looked at. Sessions count for themselves;
    /// this is done from time to time, so that moving bytes costs nothing more, and at their end.
    pub(super) fn count_bytes(&mut self, index: u32, pair: &Pair) {
        if let (Some(row), Some(tally)) = (self.counters.row(), self.tallies.of(index)) {
            count_bytes(row, row.sessions(tally.listener), tally, pair);
        }
    }
}

/// Counts what a session has carried since it was last counted.
#[inline]
fn count_bytes(row: Row<'_>, counters: SessionCounters<'_>, tally: &mut Tally, pair: &Pair) {
    let bytes = [pair.up.bytes, pair.down.bytes];
    let before = std::mem::replace(&mut tally.bytes, bytes);
    let remote = row.remote(tally.row);
    for way in 0..2 {
        let count = bytes[way].wrapping_sub(before[way]);
        counters.add(SESSION_BYTES[way], count);
        if let Some(remote) = remote {
            remote.add(REMOTE_BYTES[way], count);
        }
    }
}

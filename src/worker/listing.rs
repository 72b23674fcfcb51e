//! A session as the monitor shows it.

use super::session::{Session, State};
use crate::os::socket::Addressed;
use crate::upstream::registry::Registry;
use crate::upstream::zone::mail::{Listed, Order, Stage};

/// What comes first in a list that is too long: the smallest.
pub(super) fn rank(session: &Session, begun: u64, order: Order) -> u64 {
    match order {
        Order::Age => begun,
        Order::Idle => session.active,
        Order::Bytes => {
            let [up, down] = bytes(session);
            u64::MAX - up.saturating_add(down)
        }
    }
}

fn bytes(session: &Session) -> [u64; 2] {
    session.pair().map_or([0; 2], |pair| [pair.up.bytes, pair.down.bytes])
}

/// A session with its number, and when it has begun; `now` is the clock of the loop.
pub(super) fn entry(
    (index, begun): (u32, u64),
    session: &Session,
    registry: &Registry,
    now: u64,
) -> Listed {
    let stage = match &session.state {
        State::Arrived(_) | State::Introducing(_) | State::Detecting(_) | State::Accepting(_) => {
            Stage::Handshake
        }
        State::Authorizing { .. } => Stage::Authorizing,
        State::Choosing(_) | State::Short { .. } | State::Queued { .. } => Stage::Waiting,
        State::Dialing { .. } => Stage::Connecting,
        State::Relaying { .. } => Stage::Relaying,
        State::Breaking { .. } | State::Lingering { .. } | State::Over => Stage::Closing,
    };
    let pair = session.pair();
    let remote = pair.map(|pair| pair.remote);
    // What a proxy has told counts, as for the access list.
    let told = pair.and_then(|pair| pair.tls.as_ref()?.address.clone());
    let client = told.or_else(|| session.client.peer_address());
    let listener = session.client.local_address();
    let address = remote.and_then(|id| registry.get(id)).map(|remote| remote.address().to_string());
    let name = |address: Option<crate::os::address::Address>| {
        address.map_or_else(|| "local".to_owned(), |address| address.to_string())
    };
    Listed {
        index,
        begun,
        age: now.saturating_sub(begun),
        idle: now.saturating_sub(session.active),
        bytes: bytes(session),
        stage,
        row: remote.and_then(|id| registry.row(id)),
        texts: [name(client), name(listener), address.unwrap_or_default()],
    }
}

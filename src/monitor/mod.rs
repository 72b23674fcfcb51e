//! The monitor: what has to be done beside the sessions. It probes remotes, looks up their names, and
//! writes into the zone which of them are up, and where they are.
//!
//! [`parts`] is the monitor as such: its parts, and what they share. Each part is a file, has the
//! token kinds that `kind` gives it, and knows nothing of the others. [`process`] is the process
//! around it, with its channel to the broker; in single-process mode there is none, and the monitor
//! runs on the loop of the broker and the worker.
//!
//! `control` answers tcprelayctl, with the overview of `view`, changes by hand, and what workers say
//! about their sessions.
//!
//! A probe (`probe`) is one conversation with a remote. `probes` decides when to probe which,
//! and what follows from it. Likewise a `lookup` is one conversation with name servers, and `names`
//! decides when to look up which name; a `fetch` is one with an OCSP responder, and `staples` decides
//! when to ask it about which of our certificates.

#![forbid(unsafe_code)]

mod control;
mod fetch;
mod history;
pub mod http;
mod json;
mod kind;
pub mod lookup;
mod metrics;
mod names;
mod page;
pub mod parts;
mod probe;
mod probes;
pub mod process;
mod shared;
mod staples;
mod status;
mod time;
// The control socket shows more of it than the status page.
#[allow(dead_code)]
mod view;

/// True if a client of the control socket may send this line: the reader of requests, for tests that
/// feed it garbage.
pub fn is_request(line: &[u8]) -> bool {
    control::is_request(line)
}

/// True if this is a whole HTTP answer of an OCSP responder: the reader of answers, for tests that
/// feed it garbage.
pub fn is_answer(data: &[u8], ended: bool) -> bool {
    matches!(fetch::read(data, ended), Ok(fetch::Heard::Whole(_)))
}

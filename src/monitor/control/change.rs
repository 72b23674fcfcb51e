//! Changes by hand: remotes are taken out, put back, and given other weights.

use crate::config::balance::Scope;
use crate::monitor::shared::{Known, Shared};
use crate::os::log;
use crate::upstream::wish::{Lasting, Service, Wish};
use serde_json::{json, Value};

/// The most remotes that a message names.
const MOST_NAMED: usize = 10;

/// What is to be changed about a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Service(Service),
    /// `None`: the configured one.
    Weight(Option<u32>),
}

impl Change {
    fn apply(self, before: Wish, lasts: Lasting) -> Wish {
        match self {
            Change::Service(service) => Wish { service, service_lasts: lasts, ..before },
            Change::Weight(weight) => Wish { weight, weight_lasts: lasts, ..before },
        }
    }

    fn words(self, lasts: Lasting) -> String {
        let until = if lasts == Lasting::UntilReload { ", until the next reload" } else { "" };
        match self {
            Change::Service(Service::Normal) => "enabled by hand".to_owned(),
            Change::Service(Service::Drained) => format!("drained by hand{until}"),
            Change::Service(Service::Disabled) => format!("disabled by hand{until}"),
            Change::Weight(None) => "has its configured weight again".to_owned(),
            Change::Weight(Some(weight)) => format!("has weight {weight} by hand{until}"),
        }
    }
}

/// Changes all remotes that a word stands for. Returns the answer.
pub(super) fn change(
    word: &str,
    change: Change,
    lasts: Lasting,
    shared: &Shared,
) -> Result<Value, String> {
    if shared.settings.balance.scope == Scope::Worker {
        return Err(
            "balance scope = worker: workers share nothing that could be changed".to_owned()
        );
    }
    let meant: Vec<&Known> = find(word, shared);
    if meant.is_empty() {
        return Err(unknown(word, shared));
    }
    let mut names = Vec::new();
    for known in meant {
        let before = shared.zone.wish(known.row);
        let after = change.apply(before, lasts);
        shared.zone.set_wish(known.row, after);
        if before.encode() != after.encode() {
            log::message(&format!("{}: {}", known.name(), change.words(lasts)));
        }
        names.push(known.name());
    }
    Ok(json!({ "ok": true, "remotes": names }))
}

/// The remotes that a word stands for: an address, with or without its port, a host name, also with
/// a port, or a tag.
pub(super) fn find<'a>(word: &str, shared: &'a Shared) -> Vec<&'a Known> {
    let all = || shared.remotes().map(|(_, known)| known);
    let exact: Vec<&Known> = all().filter(|known| is_exactly(word, known)).collect();
    match exact.is_empty() {
        true => all().filter(|known| is_about(word, known)).collect(),
        false => exact,
    }
}

/// The forms in which one remote can be named.
fn is_exactly(word: &str, known: &Known) -> bool {
    let address = &known.remote.address;
    let port = address.port();
    let ip = || address.ip().map(|ip| format!("{ip}:{port}"));
    let host = || known.remote.host.as_ref().map(|host| format!("{host}:{port}"));
    word == address.to_string()
        || word == known.name()
        || ip().is_some_and(|text| text == word)
        || host().is_some_and(|text| text == word)
}

/// What several remotes may have in common.
fn is_about(word: &str, known: &Known) -> bool {
    let remote = &known.remote;
    remote.host.as_deref() == Some(word)
        || remote.address.ip().is_some_and(|ip| ip.to_string() == word)
        || remote.tags.iter().any(|tag| tag == word)
}

fn unknown(word: &str, shared: &Shared) -> String {
    let mut names: Vec<String> = shared.remotes().map(|(_, known)| known.name()).collect();
    if names.is_empty() {
        return format!("no remote '{word}': there is none at all");
    }
    let more = names.len() > MOST_NAMED;
    names.truncate(MOST_NAMED);
    let more = if more { " and more" } else { "" };
    format!("no remote or tag '{word}', known are: {}{more}", names.join(", "))
}

//! Sessions: workers are asked which they have, and to end one. They answer within a second, if they
//! are not stuck; a client is told which of them are.

use super::change::find;
use crate::monitor::shared::Shared;
use crate::upstream::zone::mail::{Letter, Listed, Order};
use serde_json::{json, Value};
use std::cmp::Reverse;

/// How long workers may take, in milliseconds. They look into their boxes once a second.
const PATIENCE: u64 = 2500;
/// The most sessions in an answer.
pub(super) const MOST_SHOWN: usize = 10_000;

/// Which sessions are to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Only those with this remote: an address, a host name or a tag.
    pub(super) remote: Option<String>,
    /// Only those whose client's address contains this text.
    pub(super) client: Option<String>,
    pub(super) order: Order,
    /// At most so many.
    pub(super) top: usize,
}

/// A session, as clients name it: the id of its worker, its number there, and when it has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pid: u64,
    index: u32,
    begun: u64,
}

impl Id {
    pub(super) fn parse(text: &str) -> Option<Id> {
        let mut parts = text.split('.');
        let pid = parts.next()?.parse().ok()?;
        let index = parts.next()?.parse().ok()?;
        let begun = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Id { pid, index, begun })
    }

    fn text(&self) -> String {
        format!("{}.{}.{:x}", self.pid, self.index, self.begun)
    }
}

/// What workers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    List(Wanted),
    End(Id),
}

/// A worker that was asked.
struct Asked {
    slot: usize,
    pid: u64,
    number: u64,
}

/// A job that is being done.
pub(super) struct Round {
    asked: Vec<Asked>,
    deadline: u64,
}

impl Round {
    /// Asks the workers. `now` is the clock of the loop.
    pub(super) fn begin(job: &Job, shared: &Shared, now: u64) -> Round {
        let workers = shared.zone.workers().into_iter();
        let (letter, only) = match job {
            Job::List(wanted) => (Letter::List(wanted.order), None),
            Job::End(Id { pid, index, begun }) => {
                (Letter::End { index: *index, begun: *begun }, Some(*pid))
            }
        };
        let asked = workers
            // One without sessions does not look into its box.
            .filter(|&(_, pid, open)| open > 0 && only.is_none_or(|only| only == pid))
            .map(|(slot, pid, _)| Asked { slot, pid, number: shared.zone.post(slot, letter) });
        Round { asked: asked.collect(), deadline: now + PATIENCE }
    }

    /// True if all workers have answered that will.
    pub(super) fn is_over(&self, shared: &Shared, now: u64) -> bool {
        now >= self.deadline || self.silent(shared).is_empty()
    }

    /// Workers that have not answered, and still have sessions.
    fn silent(&self, shared: &Shared) -> Vec<u64> {
        let workers = shared.zone.workers();
        let has_sessions = |asked: &&Asked| {
            workers
                .iter()
                .any(|&(slot, pid, open)| (slot, pid) == (asked.slot, asked.pid) && open > 0)
        };
        let waits = |asked: &&Asked| shared.zone.answered(asked.slot, asked.number).is_none();
        self.asked.iter().filter(waits).filter(has_sessions).map(|asked| asked.pid).collect()
    }

    /// The answer to the job, or to another one that asks for a list as well.
    pub(super) fn answer(&self, job: &Job, shared: &Shared) -> Result<Value, String> {
        match job {
            Job::List(wanted) => Ok(self.list(wanted, shared)),
            Job::End(id) => self.ended(id, shared),
        }
    }

    fn ended(&self, id: &Id, shared: &Shared) -> Result<Value, String> {
        let ended = self.asked.iter().any(|asked| {
            shared.zone.answered(asked.slot, asked.number).is_some_and(|count| count > 0)
        });
        match ended {
            true => Ok(json!({ "ok": true, "session": id.text() })),
            false if !self.silent(shared).is_empty() => {
                Err(format!("the worker {} does not answer", id.pid))
            }
            false => Err(format!("there is no session {} any more", id.text())),
        }
    }

    fn list(&self, wanted: &Wanted, shared: &Shared) -> Value {
        let (mut total, mut all) = (0, Vec::new());
        for asked in &self.asked {
            if let Some(count) = shared.zone.answered(asked.slot, asked.number) {
                total += count;
                let listed = shared.zone.listed(asked.slot).into_iter();
                all.extend(listed.map(|session| (asked.pid, session)));
            }
        }
        let rows: Option<Vec<usize>> = wanted
            .remote
            .as_ref()
            .map(|word| find(word, shared).iter().map(|known| known.row).collect());
        let fits = |(_, session): &(u64, Listed)| {
            let [client, _, remote] = &session.texts;
            let by_remote = rows.as_ref().is_none_or(|rows| {
                // A remote of a former configuration is known to its workers only.
                session.row.is_some_and(|row| rows.contains(&row))
                    || wanted.remote.as_ref() == Some(remote)
            });
            by_remote && wanted.client.as_ref().is_none_or(|part| client.contains(&**part))
        };
        all.retain(fits);
        let found = all.len();
        match wanted.order {
            Order::Age => all.sort_by_key(|(_, session)| Reverse(session.age)),
            Order::Idle => all.sort_by_key(|(_, session)| Reverse(session.idle)),
            Order::Bytes => all.sort_by_key(|(_, session)| {
                Reverse(session.bytes[0].saturating_add(session.bytes[1]))
            }),
        }
        all.truncate(wanted.top);
        let sessions: Vec<Value> = all.iter().map(|(pid, session)| show(*pid, session)).collect();
        json!({
            "ok": true,
            "open": total,
            "found": found,
            "silent_workers": self.silent(shared),
            "sessions": sessions,
        })
    }
}

fn show(pid: u64, session: &Listed) -> Value {
    let &Listed { index, begun, age, idle, bytes: [up, down], stage, .. } = session;
    let [client, listener, remote] = &session.texts;
    json!({
        "id": Id { pid, index, begun }.text(),
        "pid": pid,
        "client": client,
        "listener": listener,
        "remote": remote,
        "state": stage.name(),
        "age_seconds": age / 1000,
        "idle_seconds": idle / 1000,
        "bytes_to_remote": up,
        "bytes_to_client": down,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_a_name() {
        let id = Id { pid: 4711, index: 3, begun: 0xabc };
        assert_eq!((&*id.text(), Id::parse("4711.3.abc")), ("4711.3.abc", Some(id)));
        for wrong in
            ["", "4711", "4711.3", "4711.3.abc.1", "-1.3.abc", "4711.3.xyz", "1.4294967296.0"]
        {
            assert_eq!(Id::parse(wrong), None, "{wrong}");
        }
    }
}

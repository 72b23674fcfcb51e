//! The overview and its parts, as text.

use super::tables::{bytes, count, each, number, parts, plain, span, sum, words, Edge, Table};
use serde_json::Value;

/// How long ago a time of the wall clock was; nothing without one.
fn since(time: &Value, now: u64) -> String {
    let time = time.as_u64().filter(|&time| time != 0);
    time.map_or_else(String::new, |time| span(now.saturating_sub(time)))
}

/// All of it.
pub(super) fn overview(answer: &Value) -> String {
    let (totals, now) = (&answer["totals"], number(&answer["time"]));
    let broker = each(&answer["processes"]).iter().find(|process| process["role"] == "broker");
    let mut text = format!("tcprelay {}", words(&answer["version"]));
    if let Some(broker) = broker {
        text += &format!(", broker {}, up {}", broker["pid"], since(&broker["since"], now));
    }
    let refused = &totals["connections_refused"];
    let mut sessions = format!("{} open", count(number(&totals["sessions_open"]), "session"));
    if let limit @ 1.. = number(&totals["connections_limit"]) {
        sessions += &format!(" of {limit}");
    }
    sessions += &format!(", {} accepted", number(&totals["connections_accepted"]));
    if let waiting @ 1.. = number(&totals["connections_waiting"]) {
        sessions += &format!(", {waiting} waiting");
    }
    if sum(refused) > 0 {
        sessions += &format!(", {} refused ({})", sum(refused), parts(refused));
    }
    let expired = &totals["sessions_expired"];
    if sum(expired) > 0 {
        sessions += &format!(", {} ended by a limit of time ({})", sum(expired), parts(expired));
    }
    if let throttled @ 1.. = number(&totals["sessions_throttled"]) {
        sessions += &format!(", {throttled} throttled");
    }
    text += &format!(
        "\n{sessions}\n{} to remotes, {} to clients\n",
        bytes(number(&totals["bytes_to_remotes"])),
        bytes(number(&totals["bytes_to_clients"]))
    );
    text += &format!(
        "{}, {} failed{}; {} started, {} died\n",
        count(number(&totals["reloads"]), "reload"),
        number(&totals["reloads_failed"]),
        match totals["last_reload"].as_u64() {
            Some(time) => format!(", the last {} ago", span(now.saturating_sub(time))),
            None => String::new(),
        },
        count(number(&totals["workers_started"]), "worker"),
        number(&totals["workers_died"]),
    );
    for part in [remotes(answer), listeners(answer), workers(answer)] {
        text += &format!("\n{part}");
    }
    let errors = each(&answer["errors"]);
    if let Some(last) = errors.first() {
        text += &format!(
            "\nLast of {} ({} ago): {}\n",
            count(errors.len() as u64, "error"),
            since(&last["time"], now),
            plain(&words(&last["text"]))
        );
    }
    text
}

pub(super) fn remotes(answer: &Value) -> String {
    let now = number(&answer["time"]);
    let mut table = Table::new(&[
        ("REMOTE", Edge::Left),
        ("STATE", Edge::Left),
        ("SINCE", Edge::Left),
        ("WEIGHT", Edge::Right),
        ("OPEN", Edge::Right),
        ("SESSIONS", Edge::Right),
        ("FAILED", Edge::Right),
        ("SENT", Edge::Right),
        ("RECEIVED", Edge::Right),
        ("TAGS", Edge::Left),
        ("WHY", Edge::Left),
    ]);
    for remote in each(&answer["remotes"]) {
        let weight = match remote["weight_by_hand"].as_u64() {
            Some(weight) => format!("{weight} (not {})", remote["weight"]),
            None => remote["weight"].to_string(),
        };
        let mut state = words(&remote["state"]);
        if let share @ ..100 = number(&remote["share_percent"]) {
            if state == "up" {
                state += &format!(" {share}%");
            }
        }
        if remote["backup"] == true {
            state += " backup";
        }
        let tags: Vec<String> = each(&remote["tags"]).iter().map(words).collect();
        table.add(vec![
            words(&remote["name"]),
            state,
            since(&remote["since"], now),
            weight,
            remote["sessions_open"].to_string(),
            remote["sessions"].to_string(),
            sum(&remote["connect_failures"]).to_string(),
            bytes(number(&remote["bytes_to_remotes"])),
            bytes(number(&remote["bytes_to_clients"])),
            tags.join(","),
            words(&remote["why"]),
        ]);
    }
    table.text()
}

pub(super) fn listeners(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("LISTENER", Edge::Left),
        ("STATE", Edge::Left),
        ("OPEN", Edge::Right),
        ("ACCEPTED", Edge::Right),
        ("REFUSED", Edge::Right),
        ("RECEIVED", Edge::Right),
        ("SENT", Edge::Right),
    ]);
    for listener in each(&answer["listeners"]) {
        let state = if listener["bound"] == true { "bound" } else { "not bound" };
        let refused = &listener["connections_refused"];
        table.add(vec![
            words(&listener["name"]),
            state.to_owned(),
            listener["sessions_open"].to_string(),
            listener["connections_accepted"].to_string(),
            match sum(refused) {
                0 => "0".to_owned(),
                all => format!("{all} ({})", parts(refused)),
            },
            bytes(number(&listener["bytes_to_remotes"])),
            bytes(number(&listener["bytes_to_clients"])),
        ]);
    }
    table.text()
}

pub(super) fn workers(answer: &Value) -> String {
    let now = number(&answer["time"]);
    let mut table = Table::new(&[
        ("PID", Edge::Right),
        ("ROLE", Edge::Left),
        ("STATE", Edge::Left),
        ("AGE", Edge::Left),
        ("OPEN", Edge::Right),
        ("ACCEPTED", Edge::Right),
        ("TO REMOTES", Edge::Right),
        ("TO CLIENTS", Edge::Right),
    ]);
    for process in each(&answer["processes"]) {
        let serves = process["role"] == "worker";
        let only_of_workers = |text: String| if serves { text } else { String::new() };
        table.add(vec![
            process["pid"].to_string(),
            words(&process["role"]),
            words(&process["state"]),
            since(&process["since"], now),
            only_of_workers(process["sessions_open"].to_string()),
            only_of_workers(process["connections"].to_string()),
            only_of_workers(bytes(number(&process["bytes_to_remotes"]))),
            only_of_workers(bytes(number(&process["bytes_to_clients"]))),
        ]);
    }
    table.text()
}

pub(super) fn sessions(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("SESSION", Edge::Left),
        ("CLIENT", Edge::Left),
        ("LISTENER", Edge::Left),
        ("REMOTE", Edge::Left),
        ("STATE", Edge::Left),
        ("AGE", Edge::Left),
        ("IDLE", Edge::Left),
        ("SENT", Edge::Right),
        ("RECEIVED", Edge::Right),
    ]);
    let all = each(&answer["sessions"]);
    for session in all {
        table.add(vec![
            words(&session["id"]),
            words(&session["client"]),
            words(&session["listener"]),
            words(&session["remote"]),
            words(&session["state"]),
            span(number(&session["age_seconds"])),
            span(number(&session["idle_seconds"])),
            bytes(number(&session["bytes_to_remote"])),
            bytes(number(&session["bytes_to_client"])),
        ]);
    }
    let mut text = table.text();
    text += &format!("{} of {} open\n", count(all.len() as u64, "session"), answer["open"]);
    for pid in each(&answer["silent_workers"]) {
        text += &format!("worker {pid} does not answer\n");
    }
    text
}

/// The live view: totals, and for each remote what happens in a second. `former` is an earlier
/// answer, and how many seconds ago that was.
pub(super) fn top(answer: &Value, former: Option<(&Value, f64)>) -> String {
    let rate = |now: &Value, name: &str, before: Option<&Value>| {
        let ((_, seconds), before) = former.zip(before)?;
        let grown = number(&now[name]).saturating_sub(number(&before[name]));
        Some(grown as f64 / seconds.max(0.001))
    };
    let whole = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
    let carried = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| bytes(rate as u64) + "/s");
    let (totals, before) = (&answer["totals"], former.map(|(answer, _)| &answer["totals"]));
    let mut text = format!(
        "{} open, {} accepted a second; {} to remotes, {} to clients\n\n",
        count(number(&totals["sessions_open"]), "session"),
        whole(rate(totals, "connections_accepted", before)),
        carried(rate(totals, "bytes_to_remotes", before)),
        carried(rate(totals, "bytes_to_clients", before)),
    );
    let mut table = Table::new(&[
        ("REMOTE", Edge::Left),
        ("STATE", Edge::Left),
        ("OPEN", Edge::Right),
        ("NEW/S", Edge::Right),
        ("SENT", Edge::Right),
        ("RECEIVED", Edge::Right),
    ]);
    for remote in each(&answer["remotes"]) {
        let known = former.and_then(|(answer, _)| {
            let all = each(&answer["remotes"]).iter();
            all.clone().find(|former| former["name"] == remote["name"])
        });
        table.add(vec![
            words(&remote["name"]),
            words(&remote["state"]),
            remote["sessions_open"].to_string(),
            whole(rate(remote, "sessions", known)),
            carried(rate(remote, "bytes_to_remotes", known)),
            carried(rate(remote, "bytes_to_clients", known)),
        ]);
    }
    text += &table.text();
    text
}

pub(super) fn errors(answer: &Value) -> String {
    let now = number(&answer["time"]);
    if each(&answer["errors"]).is_empty() {
        return "no errors\n".to_owned();
    }
    let mut table = Table::new(&[
        ("AGO", Edge::Left),
        ("PID", Edge::Right),
        ("ROLE", Edge::Left),
        ("MESSAGE", Edge::Left),
    ]);
    for note in each(&answer["errors"]) {
        table.add(vec![
            since(&note["time"], now),
            note["pid"].to_string(),
            words(&note["role"]),
            words(&note["text"]),
        ]);
    }
    table.text()
}

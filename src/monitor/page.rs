//! The overview as a page for people: HTML with its style, script and drawings inside. It says all
//! in words, so that it can be heard as well as seen, and needs no script to be read.

use super::history::{History, Sample};
use super::time::Moment;
use super::view::{Listener, Overview, Remote, State};
use crate::upstream::zone::counters::{Member, Standing};
use crate::upstream::zone::notes::Note;
use std::fmt::{self, Display, Write};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Fields of the response: nothing but this page's own style and script is used, and no other page
/// may show it in a frame. The hashes are those of the two files; tests/status.rs compares them.
pub(super) const FIELDS: &str = concat!(
    "Content-Security-Policy: default-src 'none'; img-src data:; connect-src 'self'; ",
    "style-src 'sha256-WIw/D5KE9wHr83Owg3Vq5SPfOpQrLzA6rMpCxlLSMM8='; ",
    "script-src 'sha256-7yUoUDBCZWgBCNyYAoTLHAmb8eg6hL3seN2qIxNK/Jw='; ",
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
    "Referrer-Policy: no-referrer\r\n"
);

/// An empty picture, so that browsers ask for none.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E";

/// Text as HTML shows it, also within quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                c => out.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A number of bytes for people, with the number itself for machines.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "<data value=\"{}\">{}</data>", self.0, binary(self.0))
    }
}

/// `1.5 MiB`
fn binary(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        if scaled < 1024.0 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, next);
    }
    format!("{scaled:.1} {unit}")
}

/// `3 min` since a time, both in seconds.
fn age(now: u64, since: u64) -> String {
    match now.saturating_sub(since) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86400),
    }
}

/// The page.
pub(super) fn page(overview: &Overview, history: &History) -> String {
    let (summary, class) = summary(overview);
    let mut html = String::with_capacity(16 * 1024);
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>tcprelay: {}</title>\n<link rel=\"icon\" href=\"{ICON}\">\n\
         <noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n\
         <p id=\"stale\" role=\"alert\" hidden>No answer: what is shown is not up to date.</p>\n\
         <header>\n<h1>tcprelay</h1>\n\
         <p id=\"state\" role=\"status\"><span class=\"{class}\">{}</span></p>\n</header>\n\
         <main id=\"content\">\n",
        Escaped(&summary),
        Escaped(&summary)
    );
    totals(&mut html, overview);
    remotes(&mut html, overview, history);
    listeners(&mut html, &overview.listeners);
    workers(&mut html, overview);
    errors(&mut html, &overview.errors);
    let moment = Moment::of(overview.time);
    let _ = write!(
        html,
        "<p class=\"soft\">Version {}, <time datetime=\"{}\">{}</time>. The same as \
         <a href=\"/status.json\">JSON</a> and as <a href=\"/metrics\">metrics</a>.</p>\n</main>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>\n",
        overview.version,
        moment.machine(),
        moment.people()
    );
    html
}

/// The state of all remotes in a sentence, and how it is shown.
fn summary(overview: &Overview) -> (String, &'static str) {
    let all = overview.remotes.len();
    let out: Vec<&Remote> =
        overview.remotes.iter().filter(|remote| remote.state != State::Up).collect();
    match (all, &out[..]) {
        (0, _) => ("There are no remotes".to_owned(), "bad"),
        (1, []) => ("The remote is up".to_owned(), "good"),
        (_, []) => (format!("All {all} remotes are up"), "good"),
        (_, [one]) if all > 1 => (format!("1 of {all} remotes is out: {}", one.name), "warn"),
        (_, some) if some.len() < all => {
            (format!("{} of {all} remotes are out", some.len()), "warn")
        }
        _ => ("No remote is up".to_owned(), "bad"),
    }
}

fn totals(html: &mut String, overview: &Overview) {
    let totals = &overview.totals;
    let refused: u64 = totals.refused.iter().map(|&(_, count)| count).fold(0, u64::wrapping_add);
    let expired: u64 = totals.expired.iter().map(|&(_, count)| count).fold(0, u64::wrapping_add);
    html.push_str("<dl>\n");
    let mut item = |key: &str, name: &str, value: &dyn Display| {
        let _ = writeln!(html, "<div><dt>{name}</dt><dd data-key=\"{key}\">{value}</dd></div>");
    };
    item("sessions_open", "Open sessions", &totals.open);
    item("connections_accepted", "Connections accepted", &totals.arrived);
    item("connections_refused", "Connections refused", &refused);
    item("sessions_expired", "Ended by a limit of time", &expired);
    item("bytes_to_remotes", "Sent to remotes", &Bytes(totals.bytes[0]));
    item("bytes_to_clients", "Sent to clients", &Bytes(totals.bytes[1]));
    item("reloads", "Reloads", &totals.reloads);
    html.push_str("</dl>\n");
}

/// A table's beginning: heading, and the names of its columns. Those that begin with `#` are for
/// numbers. The roles say that it is a table where narrow screens show cards.
fn table(html: &mut String, id: &str, title: &str, columns: &[&str]) {
    let _ = write!(
        html,
        "<section aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>\n\
         <table id=\"{id}\" role=\"table\" aria-labelledby=\"{id}-title\">\n\
         <thead role=\"rowgroup\"><tr role=\"row\">"
    );
    for column in columns {
        let (class, name) = match column.strip_prefix('#') {
            Some(name) => (" class=\"number\"", name),
            None => ("", *column),
        };
        let _ = write!(html, "<th scope=\"col\" role=\"columnheader\"{class}>{name}</th>");
    }
    html.push_str("</tr></thead>\n<tbody role=\"rowgroup\">\n");
}

fn end_table(html: &mut String) {
    html.push_str("</tbody>\n</table>\n</section>\n");
}

fn row(html: &mut String, name: &str) {
    let _ = write!(
        html,
        "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\">{}</th>",
        Escaped(name)
    );
}

fn cell(html: &mut String, label: &str, key: &str, class: &str, value: &dyn Display) {
    let _ = write!(
        html,
        "<td role=\"cell\" data-label=\"{label}\" data-key=\"{key}\" class=\"{class}\">\
         <span>{value}</span></td>"
    );
}

fn remotes(html: &mut String, overview: &Overview, history: &History) {
    let columns = [
        "Remote",
        "State",
        "#Open",
        "Open sessions, last 10 min",
        "#Sessions",
        "#Sent",
        "#Received",
        "Bytes per second, last 10 min",
        "#Failures",
    ];
    table(html, "remotes", "Remotes", &columns);
    for remote in &overview.remotes {
        row(html, &remote.name);
        let (class, sign) = match remote.state {
            State::Up => ("good", "▲"),
            State::Down => ("bad", "▼"),
            State::Failed => ("bad", "◆"),
            State::Drained | State::Disabled => ("warn", "■"),
        };
        let since = remote.since.map(|since| format!(", for {}", age(overview.time, since)));
        let retry = remote.retry_in.map(|ms| format!(", tried again in {} s", ms.div_ceil(1000)));
        let state = format!(
            "<span class=\"{class}\"><span aria-hidden=\"true\">{sign} </span>\
             <span data-key=\"state\">{}</span></span>{} <span class=\"soft text\">{}{}</span>",
            remote.state.name(),
            since.unwrap_or_default(),
            Escaped(&remote.why),
            retry.unwrap_or_default(),
        );
        cell(html, "State", "why", "", &state);
        cell(html, "Open", "sessions_open", "number", &remote.open);
        let samples: Vec<Sample> = history.of(remote.row).collect();
        let open: Vec<(u64, u64)> =
            samples.iter().map(|sample| (sample.time, sample.open)).collect();
        let line = line("Open sessions", &open, |count| count.to_string());
        cell(html, "Last 10 min", "", "", &line);
        cell(html, "Sessions", "sessions", "number", &remote.sessions);
        cell(html, "Sent", "bytes_to_remotes", "number", &Bytes(remote.bytes[0]));
        cell(html, "Received", "bytes_to_clients", "number", &Bytes(remote.bytes[1]));
        let rate = rate(&samples);
        let line = self::line("Bytes per second", &rate, binary);
        cell(html, "Bytes per second", "", "", &line);
        let failures: u64 = remote.failed.iter().map(|&(_, count)| count).sum();
        cell(html, "Failures", "connect_failures", "number", &failures);
        html.push_str("</tr>\n");
    }
    end_table(html);
}

/// Bytes per second between samples.
fn rate(samples: &[Sample]) -> Vec<(u64, u64)> {
    let between = |pair: &[Sample]| {
        let time = pair[1].time.saturating_sub(pair[0].time).max(1);
        let bytes = pair[1].bytes.saturating_sub(pair[0].bytes);
        (pair[1].time, bytes.saturating_mul(1000) / time)
    };
    samples.windows(2).map(between).collect()
}

/// A line through values at their times, as a drawing that says in words what it shows.
fn line(what: &str, values: &[(u64, u64)], show: impl Fn(u64) -> String) -> String {
    let Some(&(end, last)) = values.last() else {
        return "<span class=\"soft\">no data yet</span>".to_owned();
    };
    let most = values.iter().map(|&(_, value)| value).max().unwrap_or(0);
    let width = History::SPAN / 1000;
    let mut points = String::new();
    for &(time, value) in values {
        let x = width.saturating_sub(end.saturating_sub(time) / 1000);
        // A value of 0 is at the bottom.
        let y = 30.0 - 28.0 * value as f64 / most.max(1) as f64;
        let _ = write!(points, "{x},{y:.1} ");
    }
    if let [_] = values {
        let _ = write!(points, "{},{}", width - 1, if most > 0 { 2 } else { 30 });
    }
    format!(
        "<svg viewBox=\"0 0 {width} 31\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{what} in the last ten minutes: now {}, at most {}\">\
         <polyline points=\"{}\"/></svg>",
        show(last),
        show(most),
        points.trim_end()
    )
}

fn listeners(html: &mut String, listeners: &[Listener]) {
    let columns =
        ["Listener", "State", "#Open", "#Accepted", "#Refused", "#To remotes", "#To clients"];
    table(html, "listeners", "Listeners", &columns);
    for listener in listeners {
        row(html, &listener.name);
        let state = match listener.bound {
            true => "<span class=\"good\">bound</span>",
            false => "<span class=\"bad\">not bound</span>",
        };
        cell(html, "State", "bound", "", &state);
        cell(html, "Open", "sessions_open", "number", &listener.open);
        cell(html, "Accepted", "connections_accepted", "number", &listener.arrived);
        let refused: u64 = listener.refused.iter().map(|&(_, count)| count).sum();
        cell(html, "Refused", "connections_refused", "number", &refused);
        cell(html, "To remotes", "bytes_to_remotes", "number", &Bytes(listener.bytes[0]));
        cell(html, "To clients", "bytes_to_clients", "number", &Bytes(listener.bytes[1]));
        html.push_str("</tr>\n");
    }
    end_table(html);
}

fn workers(html: &mut String, overview: &Overview) {
    table(html, "workers", "Workers", &["Process", "State", "#Open", "#Connections", "#Bytes"]);
    for worker in overview.workers() {
        let Member { pid, since, standing, open, accepted, bytes, .. } = worker;
        row(html, &pid.to_string());
        let class = match standing {
            Standing::Serving => "good",
            Standing::Starting | Standing::Leaving => "warn",
        };
        let state = format!(
            "<span class=\"{class}\">{}</span>, started {} ago",
            standing.name(),
            age(overview.time, *since)
        );
        cell(html, "State", "state", "", &state);
        cell(html, "Open", "sessions_open", "number", open);
        cell(html, "Connections", "connections", "number", accepted);
        cell(html, "Bytes", "bytes", "number", &Bytes(bytes[0].saturating_add(bytes[1])));
        html.push_str("</tr>\n");
    }
    end_table(html);
}

fn errors(html: &mut String, errors: &[Note]) {
    /// Errors that are shown; all of them are in the JSON.
    const SHOWN: usize = 20;
    if errors.is_empty() {
        html.push_str("<h2>Last errors</h2>\n<p class=\"soft\">None.</p>\n");
        return;
    }
    table(html, "errors", "Last errors", &["Time", "Process", "Message"]);
    for note in errors.iter().take(SHOWN) {
        row(html, &Moment::of(note.time).people());
        cell(html, "Process", "process", "", &format!("{} {}", note.role.name(), note.pid));
        cell(html, "Message", "text", "text", &Escaped(&note.text));
        html.push_str("</tr>\n");
    }
    end_table(html);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_text() {
        let text = Escaped("<script>alert('x & \"y\"')</script>").to_string();
        assert_eq!(text, "&lt;script&gt;alert(&#39;x &amp; &quot;y&quot;&#39;)&lt;/script&gt;");
    }

    #[test]
    fn numbers_are_for_people() {
        let bytes = [0, 1023, 1024, 1_572_864, u64::MAX].map(binary);
        assert_eq!(bytes, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "16.0 EiB"]);
        assert_eq!(Bytes(2048).to_string(), "<data value=\"2048\">2.0 KiB</data>");
        let ages = [5, 120, 7200, 200_000].map(|seconds| age(300_000, 300_000 - seconds));
        assert_eq!(ages, ["5 s", "2 min", "2 h", "2 days"]);
    }

    #[test]
    fn lines_go_to_the_right_edge() {
        let text = line("Things", &[(10_000, 0), (20_000, 4), (30_000, 2)], |n| n.to_string());
        assert!(text.contains("points=\"580,30.0 590,2.0 600,16.0\""), "{text}");
        assert!(text.contains("Things in the last ten minutes: now 2, at most 4"), "{text}");
        assert!(line("Things", &[], |n| n.to_string()).contains("no data yet"));
        let samples = [(0, 100), (10_000, 5100), (20_000, 100)];
        let samples = samples.map(|(time, bytes)| Sample { time, open: 0, bytes });
        assert_eq!(rate(&samples), [(10_000, 500), (20_000, 0)]);
    }
}

//! The overview as metrics, in the text format of Prometheus (version 0.0.4) and in OpenMetrics
//! (version 1.0.0). Names and units follow Prometheus' guide; docs/metrics.md has them all.

use super::http::preference;
use super::view::{Overview, Spread, State};
use crate::upstream::zone::counters::Standing;
use std::fmt::{Display, Write};

/// A format for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Prometheus,
    OpenMetrics,
}

const OPEN_METRICS: &str = "application/openmetrics-text";

impl Format {
    /// What a client wants by its Accept fields. Who accepts both equally gets the older one.
    pub(super) fn wanted(accept: &str) -> Format {
        let open = preference(accept, OPEN_METRICS);
        match accept.contains(OPEN_METRICS) && open > 0 && open >= preference(accept, "text/plain")
        {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    /// Its media type.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

struct Writer {
    text: String,
    format: Format,
    /// The name of the samples of the family.
    sample: String,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Writer {
    /// Begins a family of metrics. `name` has no suffix for counters.
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let open = self.format == Format::OpenMetrics;
        self.sample = match kind {
            Kind::Counter => format!("tcprelay_{name}_total"),
            Kind::Info => format!("tcprelay_{name}_info"),
            Kind::Gauge | Kind::Histogram => format!("tcprelay_{name}"),
        };
        let family = if open { format!("tcprelay_{name}") } else { self.sample.clone() };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => {
                if open {
                    "info"
                } else {
                    "gauge"
                }
            }
        };
        let _ = writeln!(self.text, "# TYPE {family} {kind}");
        if let (true, Some(unit)) =
            (open, ["seconds", "bytes"].iter().find(|unit| family.ends_with(*unit)))
        {
            let _ = writeln!(self.text, "# UNIT {family} {unit}");
        }
        let _ = writeln!(self.text, "# HELP {family} {help}");
    }

    fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, value);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        self.text.push_str(&self.sample);
        self.text.push_str(suffix);
        for (number, (name, value)) in labels.iter().enumerate() {
            self.text.push(if number == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '"' | '\\' => self.text.extend(['\\', c]),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }

    fn histogram(&mut self, labels: Labels<'_>, spread: &Spread) {
        let mut sum = 0u64;
        for (index, count) in spread.buckets.iter().enumerate() {
            sum = sum.wrapping_add(*count);
            let bound =
                spread.bounds.get(index).map_or_else(|| "+Inf".to_owned(), |&ms| seconds(ms));
            let labels: Vec<_> = labels.iter().copied().chain([("le", &*bound)]).collect();
            self.line("_bucket", &labels, sum);
        }
        self.line("_sum", labels, seconds(spread.sum));
        self.line("_count", labels, sum);
    }
}

/// Milliseconds as a decimal number of seconds, with a point as OpenMetrics wants it in bounds.
fn seconds(milliseconds: u64) -> String {
    let text = format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') {
        format!("{short}0")
    } else {
        short.to_owned()
    }
}

/// Names that are the same are told apart: a time series may be there once.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = std::collections::HashMap::<&str, usize>::new();
    names
        .map(|name| {
            let count = seen.entry(name).or_default();
            *count += 1;
            if *count == 1 {
                name.to_owned()
            } else {
                format!("{name} #{count}")
            }
        })
        .collect()
}

const DIRECTIONS: [&str; 2] = ["to_remote", "to_client"];

/// The metrics as text.
pub(super) fn text(overview: &Overview, format: Format) -> String {
    let mut writer = Writer { text: String::new(), format, sample: String::new() };
    processes(&mut writer, overview);
    sessions(&mut writer, overview);
    listeners(&mut writer, overview);
    remotes(&mut writer, overview);
    handshakes(&mut writer, overview);
    if format == Format::OpenMetrics {
        writer.text.push_str("# EOF\n");
    }
    writer.text
}

fn processes(writer: &mut Writer, overview: &Overview) {
    let totals = &overview.totals;
    writer.family("build", Kind::Info, "The version of this program.");
    writer.sample(&[("version", overview.version)], 1);
    writer.family("workers", Kind::Gauge, "Worker processes by state.");
    for &state in Standing::ALL {
        let count = overview.workers().filter(|worker| worker.standing == state).count();
        writer.sample(&[("state", state.name())], count);
    }
    writer.family("workers_started", Kind::Counter, "Worker processes that were started.");
    writer.sample(&[], totals.workers_started);
    let help = "Worker processes that have ended without being asked to.";
    writer.family("workers_died", Kind::Counter, help);
    writer.sample(&[], totals.workers_died);
    writer.family("monitors_started", Kind::Counter, "Monitor processes that were started.");
    writer.sample(&[], totals.monitors_started);
    writer.family("config_reloads", Kind::Counter, "Reloads of the configuration by result.");
    writer.sample(&[("result", "success")], totals.reloads);
    writer.sample(&[("result", "failure")], totals.reloads_failed);
    if let Some(time) = totals.reload_at {
        let help = "When the configuration was last reloaded with success.";
        writer.family("config_last_reload_success_timestamp_seconds", Kind::Gauge, help);
        writer.sample(&[], time);
    }
}

fn sessions(writer: &mut Writer, overview: &Overview) {
    let totals = &overview.totals;
    writer.family("open_sessions", Kind::Gauge, "Sessions that are open.");
    writer.sample(&[], totals.open);
    writer.family("waiting_connections", Kind::Gauge, "Connections that wait for a worker.");
    writer.sample(&[], totals.waiting);
    writer.family("sessions_limit", Kind::Gauge, "The most sessions of all workers together.");
    writer.sample(&[], totals.limit);
    let help = "Connections that were given to workers.";
    writer.family("sessions_started", Kind::Counter, help);
    writer.sample(&[], totals.accepted);
    let help = "Sessions that a limit of time has ended, by limit.";
    writer.family("sessions_expired", Kind::Counter, help);
    for (why, count) in &totals.expired {
        writer.sample(&[("limit", why.name())], count);
    }
    let help = "Sessions that have had to wait for their bandwidth.";
    writer.family("sessions_throttled", Kind::Counter, help);
    writer.sample(&[], totals.throttled);
    writer.family("bytes", Kind::Counter, "Bytes that sessions have carried.");
    for (direction, count) in DIRECTIONS.iter().zip(totals.bytes) {
        writer.sample(&[("direction", direction)], count);
    }
    let help = "How long sessions have lasted, from the client's arrival to the end.";
    writer.family("session_duration_seconds", Kind::Histogram, help);
    writer.histogram(&[], &totals.durations);
}

fn listeners(writer: &mut Writer, overview: &Overview) {
    let names = distinct(overview.listeners.iter().map(|listener| &*listener.name));
    let all: Vec<_> = names.iter().map(String::as_str).zip(&overview.listeners).collect();
    let totals = &overview.totals;
    writer.family("listener_bound", Kind::Gauge, "1 if the listener's socket is bound.");
    for (name, listener) in &all {
        writer.sample(&[("listener", name)], u8::from(listener.bound));
    }
    let help = "Connections that were accepted, before any of them is refused.";
    writer.family("connections_accepted", Kind::Counter, help);
    for (name, listener) in &all {
        writer.sample(&[("listener", name)], listener.arrived);
    }
    // Listeners beyond those with counters of their own, and those of a former configuration.
    let sum = all.iter().map(|(_, listener)| listener.arrived).fold(0, u64::wrapping_add);
    let other = totals.arrived.saturating_sub(sum);
    if other > 0 {
        writer.sample(&[("listener", "")], other);
    }
    let help = "Connections that were not relayed, by reason.";
    writer.family("connections_refused", Kind::Counter, help);
    for (name, listener) in &all {
        for (why, count) in &listener.refused {
            writer.sample(&[("listener", name), ("reason", why.name())], count);
        }
    }
    for (place, (why, total)) in totals.refused.iter().enumerate() {
        let known = all.iter().filter_map(|(_, listener)| Some(listener.refused.get(place)?.1));
        let other = total.saturating_sub(known.fold(0, u64::wrapping_add));
        if other > 0 {
            writer.sample(&[("listener", ""), ("reason", why.name())], other);
        }
    }
    writer.family("listener_open_sessions", Kind::Gauge, "Sessions that are open, by listener.");
    for (name, listener) in &all {
        writer.sample(&[("listener", name)], listener.open);
    }
    writer.family(
        "listener_bytes",
        Kind::Counter,
        "Bytes that sessions have carried, by listener.",
    );
    for (name, listener) in &all {
        for (direction, count) in DIRECTIONS.iter().zip(listener.bytes) {
            writer.sample(&[("listener", name), ("direction", direction)], count);
        }
    }
}

fn remotes(writer: &mut Writer, overview: &Overview) {
    let names = distinct(overview.remotes.iter().map(|remote| &*remote.name));
    let all: Vec<_> = names.iter().map(String::as_str).zip(&overview.remotes).collect();
    let help = "1 if the remote can get sessions: its probes succeed, and sessions can reach it.";
    writer.family("remote_up", Kind::Gauge, help);
    for (name, remote) in &all {
        let labels = [("remote", *name), ("tag", &remote.tags.join(","))];
        writer.sample(&labels, u8::from(remote.state == State::Up));
    }
    let each = |writer: &mut Writer, name: &str, kind, help: &str, value: &dyn Fn(usize) -> u64| {
        writer.family(name, kind, help);
        for (place, (name, _)) in all.iter().enumerate() {
            writer.sample(&[("remote", *name)], value(place));
        }
    };
    let remotes = &overview.remotes;
    each(writer, "remote_weight", Kind::Gauge, "The weight of the remote.", &|place| {
        remotes[place].weight.into()
    });
    let help = "Sessions that use the remote.";
    each(writer, "remote_open_sessions", Kind::Gauge, help, &|place| remotes[place].open);
    let help = "Sessions that were connected to the remote.";
    each(writer, "remote_sessions", Kind::Counter, help, &|place| remotes[place].sessions);
    let help = "How often the remote was selected for a session.";
    each(writer, "remote_selections", Kind::Counter, help, &|place| remotes[place].selected);
    writer.family("remote_bytes", Kind::Counter, "Bytes that sessions have carried, by remote.");
    for (name, remote) in &all {
        for (direction, count) in DIRECTIONS.iter().zip(remote.bytes) {
            writer.sample(&[("remote", *name), ("direction", direction)], count);
        }
    }
    let help = "Attempts to reach the remote that have failed, by reason.";
    writer.family("remote_connect_failures", Kind::Counter, help);
    for (name, remote) in &all {
        for (why, count) in &remote.failed {
            writer.sample(&[("remote", *name), ("reason", why.name())], count);
        }
    }
    let help = "How long it has taken to connect to the remote, TLS included.";
    writer.family("remote_connect_duration_seconds", Kind::Histogram, help);
    for (name, remote) in &all {
        writer.histogram(&[("remote", *name)], &remote.connect_times);
    }
    writer.family("remote_probes", Kind::Counter, "Probes of the remote by result.");
    for (name, remote) in all.iter().filter(|(_, remote)| remote.checked) {
        writer.sample(&[("remote", *name), ("result", "success")], remote.probes_passed);
        writer.sample(&[("remote", *name), ("result", "failure")], remote.probes_failed);
    }
}

fn handshakes(writer: &mut Writer, overview: &Overview) {
    let sides = &overview.totals.handshakes;
    let help = "TLS handshakes, by the side with which TLS is spoken, and by version.";
    writer.family("tls_handshakes", Kind::Counter, help);
    for side in sides {
        for (version, count) in &side.versions {
            writer.sample(&[("side", side.side.name()), ("version", version.name())], count);
        }
    }
    let help = "TLS handshakes that have resumed a session.";
    writer.family("tls_resumptions", Kind::Counter, help);
    for side in sides {
        writer.sample(&[("side", side.side.name())], side.resumed);
    }
    let help = "TLS handshakes that have failed, by reason.";
    writer.family("tls_handshake_failures", Kind::Counter, help);
    for side in sides {
        for (why, count) in &side.failed {
            writer.sample(&[("side", side.side.name()), ("reason", why.name())], count);
        }
    }
    let help = "Questions to OCSP responders about our certificates, by result.";
    writer.family("ocsp_fetches", Kind::Counter, help);
    for (result, count) in ["good", "revoked", "failed"].into_iter().zip(overview.totals.staples) {
        writer.sample(&[("result", result)], count);
    }
    let help = "Sessions with TLS that have ended, by who had their records.";
    writer.family("tls_sessions", Kind::Counter, help);
    for side in sides {
        for (who, count) in &side.records {
            writer.sample(&[("side", side.side.name()), ("records", who.name())], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_clients_choice() {
        let both = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
        assert_eq!(Format::wanted(both), Format::OpenMetrics);
        for accept in ["", "*/*", "text/html", "text/plain", "application/openmetrics-text;q=0"] {
            assert_eq!(Format::wanted(accept), Format::Prometheus, "{accept}");
        }
    }

    #[test]
    fn seconds_are_decimal() {
        assert_eq!([1, 1000, 1500, 86_400_000].map(seconds), ["0.001", "1.0", "1.5", "86400.0"]);
    }

    #[test]
    fn labels_are_quoted_and_distinct() {
        let mut writer =
            Writer { text: String::new(), format: Format::OpenMetrics, sample: String::new() };
        writer.family("x_bytes", Kind::Counter, "Help.");
        writer.sample(&[("a", "b\"\\\nc"), ("d", "")], 7);
        assert_eq!(
            writer.text,
            "# TYPE tcprelay_x_bytes counter\n# UNIT tcprelay_x_bytes bytes\n\
             # HELP tcprelay_x_bytes Help.\ntcprelay_x_bytes_total{a=\"b\\\"\\\\\\nc\",d=\"\"} 7\n"
        );
        assert_eq!(distinct(["a", "b", "a"].into_iter()), ["a", "b", "a #2"]);
    }

    #[test]
    fn buckets_of_a_histogram_are_cumulative() {
        let mut writer =
            Writer { text: String::new(), format: Format::Prometheus, sample: "x".to_owned() };
        let spread = Spread { bounds: &[1, 2000], buckets: vec![1, 2, 3], sum: 5005 };
        writer.histogram(&[("r", "s")], &spread);
        assert_eq!(
            writer.text,
            "x_bucket{r=\"s\",le=\"0.001\"} 1\nx_bucket{r=\"s\",le=\"2.0\"} 3\n\
             x_bucket{r=\"s\",le=\"+Inf\"} 6\nx_sum{r=\"s\"} 5.005\nx_count{r=\"s\"} 6\n"
        );
    }
}

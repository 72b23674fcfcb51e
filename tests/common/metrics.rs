//! What the metrics of a relay say.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Samples by their names with labels.
pub type Figures = BTreeMap<String, f64>;

/// What is on the status page on this port; `None` if nobody answers.
pub fn figures(port: u16) -> Option<Figures> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    if length.and_then(|length| length.parse().ok()) != Some(body.len()) {
        // The monitor has died meanwhile.
        return None;
    }
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("name and value");
        (name.to_owned(), value.parse().expect("a number"))
    });
    Some(samples.collect())
}

/// The sum of samples whose names begin so.
pub fn sum(figures: &Figures, name: &str) -> f64 {
    let found: Vec<f64> = figures
        .iter()
        .filter(|(known, _)| known.starts_with(name))
        .map(|(_, value)| *value)
        .collect();
    assert!(!found.is_empty(), "there is no {name}: {:?}", figures.keys().collect::<Vec<_>>());
    found.iter().sum()
}

/// Fails if something that only grows has become less. What has vanished may begin again.
pub fn check_growth(before: &Figures, now: &Figures) {
    for (name, value) in now {
        let family = name.split('{').next().unwrap_or_default();
        let counts = ["_total", "_bucket", "_count", "_sum"];
        let counts = counts.iter().any(|end| family.ends_with(end));
        let former = before.get(name).copied().unwrap_or(0.0);
        assert!(!counts || *value >= former, "{name}: {value} after {former}");
    }
}

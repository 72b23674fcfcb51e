//! What the broker tells the monitor about itself, once: as bytes, as it may be longer than a
//! message.

/// What the monitor is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Briefing {
    /// The addresses of the listeners; the number of a listener is its index.
    pub listeners: Vec<String>,
}

impl Briefing {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for listener in &self.listeners {
            // A path may contain anything.
            let line: String =
                listener.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            data.extend_from_slice(format!("listener {line}\n").as_bytes());
        }
        data
    }

    /// From bytes. What is not understood is left out.
    pub fn decode(data: &[u8]) -> Briefing {
        let text = String::from_utf8_lossy(data);
        let listeners = text.lines().filter_map(|line| line.strip_prefix("listener "));
        Briefing { listeners: listeners.map(str::to_owned).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives() {
        let listeners = ["TCP 127.0.0.1:80", "UNIX /run/a b", "x\ny", ""].map(str::to_owned);
        let briefing = Briefing { listeners: listeners.to_vec() };
        let told = Briefing::decode(&briefing.encode());
        assert_eq!(told.listeners, ["TCP 127.0.0.1:80", "UNIX /run/a b", "x?y", ""]);
        assert_eq!(Briefing::decode(b"\xff\nother 1\n"), Briefing::default());
    }
}

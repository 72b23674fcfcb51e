//! A brake on log lines that clients can cause.

/// Lines that may be logged in one period.
const LINES: u32 = 20;
/// Length of a period in milliseconds.
const PERIOD: u64 = 1000;

/// Counts lines.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    since: u64,
    lines: u32,
}

impl Throttle {
    /// The line with what is to be said about those before it that were left out, or `None` if
    /// this one is left out as well. `now` in milliseconds.
    pub(super) fn pass(&mut self, line: String, now: u64) -> Option<String> {
        let mut left_out = 0;
        if now.saturating_sub(self.since) >= PERIOD {
            left_out = self.lines.saturating_sub(LINES);
            (self.since, self.lines) = (now, 0);
        }
        self.lines = self.lines.saturating_add(1);
        match left_out {
            _ if self.lines > LINES => None,
            0 => Some(line),
            _ => Some(format!("{line} ({left_out} more of this kind before)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let mut throttle = Throttle::default();
        let passed = (0..50).filter_map(|_| throttle.pass("x".into(), 5000)).count();
        assert_eq!(passed, 20);
        assert_eq!(throttle.pass("y".into(), 6000).unwrap(), "y (30 more of this kind before)");
        assert_eq!(throttle.pass("z".into(), 6001).unwrap(), "z");
    }
}

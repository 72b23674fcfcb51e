//! Waits with deadlines. Where time itself has to pass, the name of the wait says why.

use super::is_gone;
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` returns a value; panics with `what` after [`PATIENCE`].
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, condition).unwrap_or_else(|| panic!("timed out waiting for {what}"))
}

/// Waits until `condition` returns a value, but no longer than `limit`.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        let value = condition();
        if value.is_some() || Instant::now() >= end {
            return value;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a process has ended, but no longer than `limit`.
pub fn ends_within(limit: Duration, pid: i32) -> bool {
    within(limit, || is_gone(pid).then_some(())).is_some()
}

/// Lets a period pass in which something must not happen. The caller checks afterwards that it did
/// not; anything that is to happen is awaited with [`wait_for`].
pub fn nothing_happens_for(period: Duration) {
    thread::sleep(period);
}

/// Lets a time of the configuration pass, such as a retry delay.
pub fn outlast(period: Duration) {
    thread::sleep(period);
}

/// Lets some time pass, another one in each round, so that what comes next hits any point of
/// something short.
pub fn stagger(delay: Duration) {
    thread::sleep(delay);
}

/// The pause of a client or remote that sends, reads or comes now and then.
pub fn pace(period: Duration) {
    thread::sleep(period);
}

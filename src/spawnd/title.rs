//! When the process title is set anew: at once, but not with every connection of many.

use crate::event::{Loop, Token};

/// Titles follow each other at this distance at least, in milliseconds.
const PERIOD: u64 = 10;

/// What the title shows, and when it was set.
#[derive(Debug)]
pub struct Title<T> {
    shown: Option<T>,
    set_at: u64,
    /// Of the timer for what is not shown yet.
    token: Token,
    armed: bool,
}

impl<T: PartialEq> Title<T> {
    /// Nothing is shown yet. `token`: of the timer, whose end is to be told by
    /// [`expired`](Self::expired).
    pub fn new(token: Token) -> Title<T> {
        Title { shown: None, set_at: 0, token, armed: false }
    }

    /// True if the title is to be set now, to show `state`.
    pub fn is_due(&mut self, state: T, events: &mut Loop) -> bool {
        if self.armed || self.shown.as_ref() == Some(&state) {
            return false;
        }
        let next = self.set_at + PERIOD;
        if self.shown.is_some() && events.now() < next {
            self.armed = true;
            events.arm(self.token, next);
            return false;
        }
        self.set_at = events.now();
        self.shown = Some(state);
        true
    }

    /// The timer has expired.
    pub fn expired(&mut self) {
        self.armed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Choice;

    #[test]
    fn the_first_change_shows_at_once_and_the_last_one_soon() {
        let mut events = Loop::new(&Choice::from_setting(None)).expect("a loop");
        let token = Token::new(1, 7);
        let mut title = Title::new(token);
        assert!(title.is_due(0, &mut events));
        assert!(!title.is_due(0, &mut events));
        for state in 1..100 {
            assert!(!title.is_due(state, &mut events), "too early");
        }
        let found = loop {
            events.wait(None).expect("a wait");
            if let Some((_, found)) = events.next_expired() {
                break found;
            }
        };
        assert_eq!(found, token);
        title.expired();
        assert!(title.is_due(99, &mut events));
        assert!(!title.is_due(99, &mut events));
    }
}

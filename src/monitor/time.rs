//! Points in time for people, in UTC.

use crate::os::calendar::{self, LocalTime, MONTHS};

/// A point in time, as the calendar shows it in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(LocalTime);

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
/// The end of the year 9999: what is later is shown as that.
const LAST: u64 = 253_402_300_799;

impl Moment {
    /// From seconds since 1970.
    pub(super) fn of(seconds: u64) -> Moment {
        Moment(calendar::universal_time(seconds.min(LAST) as i64))
    }

    /// As HTTP writes it (RFC 9110 section 5.6.7).
    pub(super) fn http(self) -> String {
        let LocalTime { day, month, year, weekday, .. } = self.0;
        let (weekday, month) = (WEEKDAYS[usize::from(weekday)], MONTHS[usize::from(month)]);
        format!("{weekday}, {day:02} {month} {year:04} {} GMT", self.0.clock_text())
    }

    /// Date and time for people.
    pub(super) fn people(self) -> String {
        format!("{} {} UTC", self.0.day_text(), self.0.clock_text())
    }

    /// Date and time (RFC 3339), for machines.
    pub(super) fn machine(self) -> String {
        format!("{}T{}Z", self.0.day_text(), self.0.clock_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(Moment::of(784_111_777).http(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(Moment::of(0).http(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(Moment::of(951_782_400).machine(), "2000-02-29T00:00:00Z");
        assert_eq!(Moment::of(1_709_251_199).people(), "2024-02-29 23:59:59 UTC");
        assert_eq!(Moment::of(4_107_542_400).machine(), "2100-03-01T00:00:00Z");
        assert_eq!(Moment::of(u64::MAX).machine(), "9999-12-31T23:59:59Z");
    }
}

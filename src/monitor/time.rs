//! Points in time for people, in UTC.

/// A point in time, as the calendar shows it in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    year: u64,
    /// 1 to 12.
    month: u64,
    day: u64,
    /// 0 is Thursday, as 1970 began on one.
    weekday: u64,
    /// Of the day.
    seconds: u64,
}

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The days of 400 years, and of a year that begins in March.
const ERA: u64 = 146_097;
/// Days from 1 March of the year 0 to 1970.
const BEFORE: u64 = 719_468;
/// The end of the year 9999: what is later is shown as that.
const LAST: u64 = 253_402_300_799;

impl Moment {
    /// From seconds since 1970.
    pub(super) fn of(seconds: u64) -> Moment {
        let seconds = seconds.min(LAST);
        let days = seconds / 86400;
        // Years are counted from March, so that leap days come last.
        let shifted = days + BEFORE;
        let day_of_era = shifted % ERA;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + shifted / ERA * 400 + u64::from(month <= 2);
        Moment { year, month, day, weekday: days % 7, seconds: seconds % 86400 }
    }

    fn clock(self) -> String {
        let seconds = self.seconds;
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }

    /// As HTTP writes it (RFC 9110 section 5.6.7).
    pub(super) fn http(self) -> String {
        let (weekday, month) = (WEEKDAYS[self.weekday as usize], MONTHS[self.month as usize - 1]);
        format!("{weekday}, {:02} {month} {:04} {} GMT", self.day, self.year, self.clock())
    }

    /// Date and time (RFC 3339), for machines.
    pub(super) fn machine(self) -> String {
        format!("{:04}-{:02}-{:02}T{}Z", self.year, self.month, self.day, self.clock())
    }

    /// Date and time for people.
    pub(super) fn people(self) -> String {
        format!("{:04}-{:02}-{:02} {} UTC", self.year, self.month, self.day, self.clock())
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

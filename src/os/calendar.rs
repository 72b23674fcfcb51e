//! Points in time as clock and calendar show them.

/// A point in time as clock and calendar show it, in the local time zone or in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// 0 to 60.
    pub second: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 23.
    pub hour: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Months since January, 0 to 11.
    pub month: u8,
    /// The year, as people write it.
    pub year: i64,
    /// Days since Sunday, 0 to 6.
    pub weekday: u8,
}

/// The names of months, in English.
pub const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl LocalTime {
    /// The day, as RFC 3339 has it: `2026-11-29`.
    pub fn day_text(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month + 1, self.day)
    }

    /// The time of the day: `23:59:59`.
    pub fn clock_text(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second)
    }
}

/// localtime(3) of seconds since 1970; `None` if the year cannot be represented.
pub fn local_time(seconds: i64) -> Option<LocalTime> {
    #[allow(deprecated, reason = "its size is to change with musl 1.2, which does no harm here")]
    let seconds = libc::time_t::try_from(seconds).ok()?;
    // SAFETY: struct tm is plain data, for which all zeroes is a valid value: integers, and on some
    // systems a pointer, which is then null.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both arguments outlive the call; localtime_r(3) writes into the second.
    if unsafe { libc::localtime_r(&seconds, &mut parts) }.is_null() {
        return None;
    }
    Some(of(&parts))
}

/// Seconds since 1970 in UTC. Not by gmtime(3), which takes a lock in some C libraries: a child that
/// logs before it executes a program must not wait for one.
pub fn universal_time(seconds: i64) -> LocalTime {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years begin with March here, so that the leap day is the last: each 400 years have as many
    // days, and each five months have 153, starting with March or August.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (400 * era + year, month + 2),
        _ => (400 * era + year + 1, month - 10),
    };
    LocalTime {
        second: (second % 60) as u8,
        minute: (second / 60 % 60) as u8,
        hour: (second / 3600) as u8,
        day: day as u8,
        month: month as u8,
        year,
        // 1970 began on a Thursday.
        weekday: (days + 4).rem_euclid(7) as u8,
    }
}

fn of(parts: &libc::tm) -> LocalTime {
    LocalTime {
        second: parts.tm_sec as u8,
        minute: parts.tm_min as u8,
        hour: parts.tm_hour as u8,
        day: parts.tm_mday as u8,
        month: parts.tm_mon as u8,
        year: i64::from(parts.tm_year) + 1900,
        weekday: parts.tm_wday as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// The C library agrees, before 1970 as well.
        #[test]
        fn universal_time_is_that_of_the_c_library(seconds in -62_167_219_200i64..253_402_300_800) {
            // SAFETY: plain data, as in `local_time`.
            let mut parts: libc::tm = unsafe { std::mem::zeroed() };
            // SAFETY: both arguments outlive the call; gmtime_r(3) writes into the second.
            let made = unsafe { libc::gmtime_r(&seconds, &mut parts) };
            assert!(!made.is_null());
            assert_eq!(universal_time(seconds), of(&parts));
        }
    }
}

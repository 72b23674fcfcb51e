//! Local time.

/// A point in time as the local clock and calendar show it.
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
    /// Days since Sunday, 0 to 6.
    pub weekday: u8,
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

/// Like [`local_time`], in UTC: gmtime(3).
pub fn universal_time(seconds: i64) -> Option<LocalTime> {
    #[allow(deprecated, reason = "its size is to change with musl 1.2, which does no harm here")]
    let seconds = libc::time_t::try_from(seconds).ok()?;
    // SAFETY: as above.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both arguments outlive the call; gmtime_r(3) writes into the second.
    if unsafe { libc::gmtime_r(&seconds, &mut parts) }.is_null() {
        return None;
    }
    Some(of(&parts))
}

fn of(parts: &libc::tm) -> LocalTime {
    LocalTime {
        second: parts.tm_sec as u8,
        minute: parts.tm_min as u8,
        hour: parts.tm_hour as u8,
        day: parts.tm_mday as u8,
        month: parts.tm_mon as u8,
        weekday: parts.tm_wday as u8,
    }
}

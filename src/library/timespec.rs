//! Time specifications of tac_plus: UUCP style if they start with a letter, `cron` style otherwise.

use super::cron::{Times, Unrecognized};

const MINUTES_OF_DAY: u32 = 24 * 60;

/// The style of a specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Five fields of crontab(5).
    Cron,
    /// `Wk0800-1700,Sa`
    Uucp,
}

impl Style {
    /// The style of a specification.
    pub fn of(spec: &[u8]) -> Style {
        match spec.first() {
            Some(first) if first.is_ascii_alphabetic() => Style::Uucp,
            _ => Style::Cron,
        }
    }

    /// The name of the style.
    pub fn name(self) -> &'static str {
        match self {
            Style::Cron => "cron",
            Style::Uucp => "uucp",
        }
    }
}

/// The error message for a specification that cannot be read.
pub fn complaint(spec: &[u8]) -> String {
    let (style, spec) = (Style::of(spec).name(), String::from_utf8_lossy(spec));
    format!("Unrecognized '{style}' style time specification '{spec}'")
}

/// When an answer found at `now` expires, in seconds since 1970: at the end of its minute. `second`
/// is the second of the minute at `now`.
pub fn valid_until(now: i64, second: u8) -> i64 {
    now - i64::from(second.min(59)) + 60
}

/// True if an answer that expires at `until` is valid at `now`. It is not if the clock was set back
/// to before the answer's minute.
pub fn holds(until: i64, now: i64) -> bool {
    (until.saturating_sub(60)..until).contains(&now)
}

/// Reads a specification of either style. A time matches if it is in any of the sets.
pub fn parse(spec: &[u8]) -> Result<Vec<Times>, Unrecognized> {
    match Style::of(spec) {
        Style::Cron => Times::parse(spec).map(|times| vec![times]),
        Style::Uucp => parse_uucp(spec),
    }
}

/// Reads UUCP style: parts separated by `,` or `|`. A part is `Su`, `Mo`, `Tu`, `We`, `Th`, `Fr`,
/// `Sa`, `Wk` (Monday to Friday), `Wd` (weekend) or `Any`, in any case, and may go on with
/// `HHMM-HHMM`, both ends included. A range whose end is not after its start covers midnight to the
/// end and the start to midnight, both on the named days.
///
/// A set of times has the same minutes in every hour, so a range may need three sets.
pub fn parse_uucp(spec: &[u8]) -> Result<Vec<Times>, Unrecognized> {
    let mut sets = Vec::new();
    for part in spec.split(|byte| b",|".contains(byte)).filter(|part| !part.is_empty()) {
        let (weekdays, range) = days(part)?;
        if range.is_empty() {
            sets.push(Times { weekdays, ..Times::ANY });
            continue;
        }
        let [h1, h2, m1, m2, b'-', h3, h4, m3, m4] = *range else {
            return Err(Unrecognized);
        };
        let from = minute_of_day([h1, h2, m1, m2])?;
        let to = minute_of_day([h3, h4, m3, m4])?;
        if from < to {
            push_range(&mut sets, from, to, weekdays);
        } else {
            push_range(&mut sets, from, MINUTES_OF_DAY - 1, weekdays);
            push_range(&mut sets, 0, to, weekdays);
        }
    }
    Ok(sets)
}

/// The weekdays at the start of a part, and the rest of it.
fn days(part: &[u8]) -> Result<(u64, &[u8]), Unrecognized> {
    const CODES: [(&[u8], u64); 10] = [
        (b"su", 1),
        (b"mo", 1 << 1),
        (b"tu", 1 << 2),
        (b"we", 1 << 3),
        (b"th", 1 << 4),
        (b"fr", 1 << 5),
        (b"sa", 1 << 6),
        (b"wk", 0b011_1110),
        (b"wd", 0b100_0001),
        (b"any", 0b111_1111),
    ];
    CODES
        .iter()
        .find_map(|&(code, days)| {
            let (head, rest) = part.split_at_checked(code.len())?;
            head.eq_ignore_ascii_case(code).then_some((days, rest))
        })
        .ok_or(Unrecognized)
}

fn minute_of_day(digits: [u8; 4]) -> Result<u32, Unrecognized> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Unrecognized);
    }
    let [h1, h2, m1, m2] = digits.map(|digit| u32::from(digit - b'0'));
    let (hour, minute) = (10 * h1 + h2, 10 * m1 + m2);
    match hour < 24 && minute < 60 {
        true => Ok(60 * hour + minute),
        false => Err(Unrecognized),
    }
}

/// Adds the minutes `from` to `to` of a day: a partial first hour, a partial last hour, and the
/// whole hours between them.
fn push_range(sets: &mut Vec<Times>, from: u32, to: u32, weekdays: u64) {
    let mut push = |hours: (u32, u32), minutes: (u32, u32)| {
        sets.push(Times { minutes: bits(minutes), hours: bits(hours), weekdays, ..Times::ANY });
    };
    let (mut first, mut last) = (from / 60, to / 60);
    if first == last {
        return push((first, last), (from % 60, to % 60));
    }
    if !from.is_multiple_of(60) {
        push((first, first), (from % 60, 59));
        first += 1;
    }
    if to % 60 < 59 {
        push((last, last), (0, to % 60));
        last -= 1;
    }
    if first <= last {
        push((first, last), (0, 59));
    }
}

/// The bits `from` to `to`, both less than 63.
fn bits((from, to): (u32, u32)) -> u64 {
    (2 << to) - (1 << from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::calendar::LocalTime;
    use proptest::prelude::*;

    fn matches(spec: &str, weekday: u8, minute_of_day: u32) -> bool {
        let (hour, minute) = ((minute_of_day / 60) as u8, (minute_of_day % 60) as u8);
        let time = LocalTime { second: 0, minute, hour, day: 1, month: 0, year: 2025, weekday };
        parse(spec.as_bytes()).unwrap().iter().any(|times| times.contain(&time))
    }

    #[test]
    fn weekdays_have_codes() {
        for (spec, expected) in [
            ("Su", [true, false, false, false, false, false, false]),
            ("wk", [false, true, true, true, true, true, false]),
            ("Wd", [true, false, false, false, false, false, true]),
            ("Mo|Fr,sa", [false, true, false, false, false, true, true]),
            ("Any", [true; 7]),
        ] {
            for (weekday, expected) in expected.into_iter().enumerate() {
                assert_eq!(matches(spec, weekday as u8, 700), expected, "{spec} {weekday}");
            }
        }
    }

    #[test]
    fn ranges_accumulate_and_are_exact() {
        let spec = "Wk0855-2305,Sa1000-1015";
        assert!(!matches(spec, 1, 8 * 60 + 54) && matches(spec, 1, 8 * 60 + 55));
        assert!(matches(spec, 5, 23 * 60 + 5) && !matches(spec, 5, 23 * 60 + 6));
        assert!(matches(spec, 6, 10 * 60 + 15) && !matches(spec, 6, 10 * 60 + 16));
        assert!(!matches(spec, 0, 700));
        assert!(matches("Any2300-0700", 3, 0) && matches("Any2300-0700", 3, 23 * 60));
        assert!(!matches("Any2300-0700", 3, 12 * 60));
    }

    #[test]
    fn style_is_that_of_the_first_character() {
        assert!(matches("30 8 * * *", 1, 8 * 60 + 30));
        assert_eq!(Style::of(b"Any").name(), "uucp");
        assert_eq!(Style::of(b"").name(), "cron");
        for spec in ["Xx", "Wk08", "Wk0855-2460", "Wk0860-0900", "Wk0855-0900x", "Wk 855-0900", "W"]
        {
            assert_eq!(parse(spec.as_bytes()), Err(Unrecognized), "{spec}");
        }
    }

    proptest! {
        #[test]
        fn every_minute_of_a_range(from in 0u32..1440, to in 0u32..1440, asked in 0u32..1440) {
            let text = |minute: u32| format!("{:02}{:02}", minute / 60, minute % 60);
            let spec = format!("Any{}-{}", text(from), text(to));
            let expected = match from < to {
                true => (from..=to).contains(&asked),
                false => asked >= from || asked <= to,
            };
            prop_assert_eq!(matches(&spec, 2, asked), expected);
        }
    }
}

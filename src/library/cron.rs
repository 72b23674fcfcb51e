//! Sets of times as crontab(5) writes them: minute, hour, day of the month, month and weekday.

use crate::os::calendar::LocalTime;

/// A set of times, to the minute: those with each of the five parts in its set. Bit n of a set
/// stands for the value n of the field of `struct tm`, so months count from 0 and weekdays from
/// Sunday.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// 0 to 59.
    pub minutes: u64,
    /// 0 to 23.
    pub hours: u64,
    /// 1 to 31.
    pub days: u64,
    /// 0 to 11.
    pub months: u64,
    /// 0 to 6.
    pub weekdays: u64,
}

/// The text is not a set of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrecognized;

impl Times {
    /// All times.
    pub const ANY: Times = Times {
        minutes: (1 << 60) - 1,
        hours: (1 << 24) - 1,
        days: (1 << 32) - 2,
        months: (1 << 12) - 1,
        weekdays: (1 << 7) - 1,
    };

    /// True if `time` is in the set.
    pub fn contain(&self, time: &LocalTime) -> bool {
        let has = |set: u64, value: u8| set.checked_shr(value.into()).unwrap_or(0) & 1 == 1;
        has(self.minutes, time.minute)
            && has(self.hours, time.hour)
            && has(self.days, time.day)
            && has(self.months, time.month)
            && has(self.weekdays, time.weekday)
    }

    /// Reads five fields separated by white space. A field is `*`, or a list with commas of
    /// numbers, three-letter names and ranges of these; only months and weekdays have names.
    /// Missing fields are empty sets, and anything after the fifth field is ignored.
    ///
    /// Months are 1 to 12. Weekdays count modulo 7, so that 0 and 7 are Sunday. Too large a number
    /// means the last day or month, or a minute or hour that never comes. A range that ends before
    /// it starts is empty, except that it wraps around the week or year if its end is a name. An
    /// unknown name means January or Sunday.
    pub fn parse(text: &[u8]) -> Result<Times, Unrecognized> {
        let mut sets = [0; 5];
        let fields = text.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        for ((field, set), text) in
            FIELDS.iter().zip(&mut sets).zip(fields.filter(|text| !text.is_empty()))
        {
            for item in text.split(|&byte| byte == b',').filter(|item| !item.is_empty()) {
                *set |= if item == b"*" { u64::MAX } else { field.range(item)? };
            }
        }
        let [minutes, hours, days, months, weekdays] = sets;
        Ok(Times {
            minutes: minutes & Times::ANY.minutes,
            hours: hours & Times::ANY.hours,
            days: days & Times::ANY.days,
            months: months >> 1 & Times::ANY.months,
            weekdays: weekdays & Times::ANY.weekdays,
        })
    }
}

/// The differences between the five fields.
struct Field {
    /// Limits a number to the range of the set.
    bound: fn(u32) -> u32,
    /// The value of the first name, and the names.
    names: (u32, &'static [&'static str]),
}

const MONTHS: &[&str] =
    &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { bound: |minute| minute.min(60), names: (0, &[]) },
    Field { bound: |hour| hour.min(24), names: (0, &[]) },
    Field { bound: |day| day.min(31), names: (0, &[]) },
    Field { bound: |month| month.min(12), names: (1, MONTHS) },
    Field { bound: |weekday| weekday % 7, names: (0, WEEKDAYS) },
];

/// The bits `from` to `to`; none if `to` is smaller.
fn bits(from: u32, to: u32) -> u64 {
    (from..=to).fold(0, |set, bit| set | 1 << bit)
}

impl Field {
    /// A value, or a range of two values. A missing number is 0.
    fn range(&self, item: &[u8]) -> Result<u64, Unrecognized> {
        let mut parts = item.split(|&byte| byte == b'-').map(|part| self.value(part));
        let (mut from, (mut to, mut named)) = (None, parts.next().unwrap_or(Err(Unrecognized))?);
        for part in parts {
            from = Some(to);
            (to, named) = part?;
        }
        let (first, names) = self.names;
        Ok(match from {
            Some(from) if named && to < from => {
                bits(from, first + names.len() as u32 - 1) | bits(first, to)
            }
            from => bits(from.unwrap_or(to), to),
        })
    }

    /// A number or a name, and whether it is a name.
    fn value(&self, text: &[u8]) -> Result<(u32, bool), Unrecognized> {
        if text.iter().all(u8::is_ascii_digit) {
            let value = text.iter().fold(0u32, |value, digit| {
                value.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
            });
            return Ok(((self.bound)(value), false));
        }
        let (first, names) = self.names;
        if names.is_empty() || text[0].is_ascii_digit() || text.len() > 3 {
            return Err(Unrecognized);
        }
        let found = names.iter().position(|name| name.as_bytes().eq_ignore_ascii_case(text));
        Ok((first + found.unwrap_or(0) as u32, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Times {
        Times::parse(text.as_bytes()).unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn fields_are_lists_of_ranges() {
        let times = parse("0,15,30-32 * 1-3,31 * *");
        assert_eq!(times.minutes, 1 | 1 << 15 | 0b111 << 30);
        assert_eq!(times.days, 0b1110 | 1 << 31);
        assert_eq!(
            Times { minutes: 0, days: 0, ..times },
            Times { minutes: 0, days: 0, ..Times::ANY }
        );
        assert_eq!(parse("  *\t* * *  * ignored"), Times::ANY);
        assert_eq!(parse("5"), Times { minutes: 1 << 5, ..Times::default() });
        assert_eq!(parse(""), Times::default());
    }

    #[test]
    fn month_numbers_and_names_are_the_same() {
        let months = |field: &str| parse(&format!("* * * {field} *")).months;
        assert_eq!(months("1"), months("Jan"));
        assert_eq!(months("12"), months("DEC"));
        assert_eq!(months("1-12"), Times::ANY.months);
        assert_eq!(months("jan"), 1);
        assert_eq!(months("nov-feb"), 0b1100_0000_0011);
        assert_eq!(months("11-feb"), months("nov-feb"));
        assert_eq!(months("13"), months("12"));
        assert_eq!(months("0"), 0);
    }

    #[test]
    fn weekdays_wrap() {
        let weekdays = |field: &str| parse(&format!("* * * * {field}")).weekdays;
        assert_eq!(weekdays("0"), weekdays("7"));
        assert_eq!(weekdays("mon-fri"), 0b011_1110);
        assert_eq!(weekdays("1-5"), 0b011_1110);
        assert_eq!(weekdays("fri-mon"), 0b110_0011);
        assert_eq!(weekdays("5-1"), 0);
        assert_eq!(weekdays("xyz"), 1);
    }

    #[test]
    fn numbers_out_of_range() {
        assert_eq!(parse("75 25 99 * *"), parse("60 24 31 * *"));
        assert_eq!(parse("58-99999999999999999999 * * * *").minutes, 0b11 << 58);
        assert_eq!(parse("60 24 0 * *"), Times { minutes: 0, hours: 0, days: 0, ..Times::ANY });
        for text in ["x", "* y", "*/5", "1x", "* * * * monday", "1 2 3 4 5mon"] {
            assert_eq!(Times::parse(text.as_bytes()), Err(Unrecognized), "{text}");
        }
    }

    #[test]
    fn all_five_parts_must_match() {
        let time = LocalTime {
            second: 0,
            minute: 30,
            hour: 8,
            day: 24,
            month: 11,
            year: 2025,
            weekday: 3,
        };
        assert!(Times::ANY.contain(&time));
        assert!(parse("30 8 24 12 wed").contain(&time));
        for text in ["31 8 24 12 3", "30 9 24 12 3", "30 8 25 12 3", "30 8 24 11 3", "30 8 24 12 4"]
        {
            assert!(!parse(text).contain(&time), "{text}");
        }
        assert!(!Times::ANY.contain(&LocalTime { minute: 255, ..time }));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-z*,\\- ]{0,40}") {
            let _ = Times::parse(text.as_bytes());
        }
    }
}

//! Reading an instant, by the rules of `_since`.
//!
//! What is given less precisely than in microseconds is taken as its beginning, and what is given more
//! precisely is cut off: whoever asks for what changed since then gets rather too much than too little.

use super::{Instant, Interval};
use std::str::FromStr;

/// The text is not an instant. Says what is wrong with it and what would be right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidInstant {
    /// A year, a month or a day.
    #[error(
        "'{0}' is a date without a time: write an instant with a time zone, such as 2024-05-01T00:00:00Z"
    )]
    Date(String),
    /// There is no time zone.
    #[error("'{0}' has no time zone: end it with Z, or with an offset such as +02:00 ('+' is %2B in a URL)")]
    NoZone(String),
    /// Anything else.
    #[error("'{0}' is not an instant: write one such as 2024-05-01T12:30:00.5+02:00 ('+' is %2B in a URL)")]
    Malformed(String),
}

/// How much of a value is repeated in an error.
const SHOWN: usize = 60;

impl FromStr for Instant {
    type Err = InvalidInstant;

    /// Reads an instant as `_since` takes it: with a time zone; seconds may be missing; of a fraction of
    /// more than six digits the rest is cut off; a blank before the offset is a `+` that got lost in a URL.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        };
        let mut reader = Reader(text.as_bytes());
        let parsed = reader.instant();
        match (parsed, reader.0) {
            (Read::Instant(interval), []) => Ok(interval.start),
            (Read::Date(_), []) => Err(InvalidInstant::Date(shown())),
            (Read::NoZone(_), []) => Err(InvalidInstant::NoZone(shown())),
            _ => Err(InvalidInstant::Malformed(shown())),
        }
    }
}

impl FromStr for Interval {
    type Err = InvalidInstant;

    /// Reads a FHIR date, dateTime or instant: <https://hl7.org/fhir/R4/datatypes.html#dateTime>. It is
    /// as wide as its precision; without a time zone it is in UTC.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reader = Reader(text.as_bytes());
        match (reader.instant(), reader.0) {
            (Read::Instant(interval) | Read::Date(interval) | Read::NoZone(interval), []) => Ok(interval),
            _ => Err(InvalidInstant::Malformed(text.chars().take(SHOWN).collect())),
        }
    }
}

/// What was read.
enum Read {
    Instant(Interval),
    Date(Interval),
    NoZone(Interval),
    Malformed,
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn instant(&mut self) -> Read {
        let Some(year) = self.number(4, 1, 9999) else { return Read::Malformed };
        if self.0.is_empty() {
            return Read::Date(dates((year, 1, 1), (year + 1, 1, 1)));
        }
        let Some(month) = self.after(b'-', 2, 1, 12) else { return Read::Malformed };
        if self.0.is_empty() {
            let next = if month == 12 { (year + 1, 1, 1) } else { (year, month + 1, 1) };
            return Read::Date(dates((year, month, 1), next));
        }
        let Some(day) = self.after(b'-', 2, 1, days(year, month)) else { return Read::Malformed };
        if self.0.is_empty() {
            let day = days_since_1970(year, month, day);
            return Read::Date(of(day * DAY, DAY));
        }
        let (Some(hour), Some(minute)) = (self.after(b'T', 2, 0, 23), self.after(b':', 2, 0, 59)) else {
            return Read::Malformed;
        };
        let (mut second, mut micros, mut width) = (0, 0, 60_000_000);
        if self.0.first() == Some(&b':') {
            // In a leap second the clocks that stamp go through the 59th again.
            match self.after(b':', 2, 0, 60) {
                Some(read) => second = read.min(59),
                None => return Read::Malformed,
            }
            width = 1_000_000;
            if self.take(b'.') {
                match self.fraction() {
                    Some(read) => (micros, width) = read,
                    None => return Read::Malformed,
                }
            }
        }
        let no_zone = self.0.is_empty();
        let offset = if no_zone { Some(0) } else { self.offset() };
        let Some(offset) = offset else { return Read::Malformed };
        let minutes = days_since_1970(year, month, day) * 1_440 + hour * 60 + minute - offset;
        let read = of((minutes * 60 + second) * 1_000_000 + micros, width);
        if no_zone { Read::NoZone(read) } else { Read::Instant(read) }
    }

    /// Minutes east of Greenwich.
    fn offset(&mut self) -> Option<i64> {
        if self.take(b'Z') {
            return Some(0);
        }
        let sign = if self.take(b'-') {
            -1
        } else if self.take(b'+') || self.take(b' ') {
            1
        } else {
            return None;
        };
        let hours = self.number(2, 0, 14)?;
        let minutes = self.after(b':', 2, 0, if hours == 14 { 0 } else { 59 })?;
        Some(sign * (hours * 60 + minutes))
    }

    /// Microseconds, and how many of them the last digit stands for: one at least.
    fn fraction(&mut self) -> Option<(i64, i64)> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0'));
        let micros = padded.take(6).fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        let width = (length..6).fold(1, |width, _| width * 10);
        (length > 0).then_some((micros, width))
    }

    fn after(&mut self, separator: u8, length: usize, min: i64, max: i64) -> Option<i64> {
        if self.take(separator) { self.number(length, min, max) } else { None }
    }

    fn number(&mut self, length: usize, min: i64, max: i64) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(length)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.0 = rest;
        let number = digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        (min..=max).contains(&number).then_some(number)
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }
}

/// A day in microseconds.
const DAY: i64 = 86_400_000_000;

/// From an instant on, so many microseconds.
const fn of(start: i64, width: i64) -> Interval {
    Interval { start: Instant::from_unix_micros(start), end: Instant::from_unix_micros(start + width) }
}

/// From one day to before another.
fn dates(from: (i64, i64, i64), to: (i64, i64, i64)) -> Interval {
    let day = |(year, month, day)| Instant::from_unix_micros(days_since_1970(year, month, day) * DAY);
    Interval { start: day(from), end: day(to) }
}

/// How many days a month has.
fn days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The inverse of [`super::civil`].
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year_from_march = year - i64::from(month <= 2);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    year_from_march * 365 + year_from_march.div_euclid(4) - year_from_march.div_euclid(100)
        + year_from_march.div_euclid(400)
        + day_of_year
        - 719_468
}

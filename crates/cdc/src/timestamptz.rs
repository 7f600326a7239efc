//! Postgres' `timestamptz` in both its forms: eight bytes from an ordinary connection, text from the log.

use bytes::{BufMut, BytesMut};
use fhir::Instant;
use std::error::Error;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// A `timestamptz` in binary form, to the microsecond. [`Instant::MIN`] is `-infinity`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Timestamptz(pub(crate) Instant);

impl Timestamptz {
    /// The instant, or the nearest within FHIR's calendar, all of which Postgres takes.
    pub(crate) fn within_calendar(at: Instant) -> Self {
        Self(at.clamp(Instant::YEAR_ONE, Instant::YEAR_9999))
    }
}

impl ToSql for Timestamptz {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i64(self.0.to_postgres());
        Ok(IsNull::No)
    }

    fn accepts(data_type: &Type) -> bool {
        *data_type == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Timestamptz {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Instant::from_postgres(i64::from_be_bytes(raw.try_into()?))))
    }

    fn accepts(data_type: &Type) -> bool {
        *data_type == Type::TIMESTAMPTZ
    }
}

/// Reads the text form that `DateStyle = ISO` gives, `2026-11-22 21:16:00.123456+00`, with any offset.
/// `None` for everything else: other styles, `infinity`, years before Christ.
pub(crate) fn parse(text: &[u8]) -> Option<Instant> {
    let mut reader = Reader(text);
    let year = reader.digits(4, 6)?;
    reader.byte(b'-')?;
    let month = reader.digits(2, 2)?;
    reader.byte(b'-')?;
    let day = reader.digits(2, 2)?;
    reader.byte(b' ').or_else(|| reader.byte(b'T'))?;
    let hour = reader.digits(2, 2)?;
    reader.byte(b':')?;
    let minute = reader.digits(2, 2)?;
    reader.byte(b':')?;
    let second = reader.digits(2, 2)?;
    let micros = if reader.byte(b'.').is_some() { reader.fraction()? } else { 0 };
    let offset = reader.offset()?;
    let in_calendar = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !reader.0.is_empty() || !in_calendar || year == 0 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Six digits of a year and two of an hour are far from what an i64 of microseconds holds.
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(Instant::from_unix_micros(seconds * 1_000_000 + micros))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self, expected: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        (*first == expected).then(|| self.0 = rest)
    }

    /// A number of so many digits.
    fn digits(&mut self, least: usize, most: usize) -> Option<i64> {
        let count = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    /// One to six digits after the point, in microseconds.
    fn fraction(&mut self) -> Option<i64> {
        let before = self.0.len();
        let digits = self.digits(1, 6)?;
        let count = before - self.0.len();
        Some((count..6).fold(digits, |number, _| number * 10))
    }

    /// `+05`, `-03:30` or `+00:19:32`, in seconds; `Z` as well.
    fn offset(&mut self) -> Option<i64> {
        if self.byte(b'Z').is_some() {
            return Some(0);
        }
        let sign = if self.byte(b'-').is_some() { -1 } else { self.byte(b'+').map(|()| 1)? };
        let mut seconds = self.digits(2, 2)? * 3600;
        for unit in [60, 1] {
            if self.byte(b':').is_some() {
                let part = self.digits(2, 2)?;
                if part > 59 {
                    return None;
                }
                seconds += part * unit;
            } else {
                break;
            }
        }
        Some(sign * seconds)
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + is_leap(year) as i64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, in years that begin in March and eras of 400 of them,
/// so that leap days come last and all eras are alike.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets_and_fractions_of_every_length() {
        let expected = Instant::from_unix_micros(1_795_382_160_120_000);
        for text in [
            "2026-11-22 21:16:00.12+00",
            "2026-11-22 21:16:00.120000+00",
            "2026-11-22T21:16:00.12Z",
            "2026-11-23 02:46:00.12+05:30",
            "2026-11-22 17:46:00.12-03:30",
            "2026-11-22 21:35:32.12+00:19:32",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "infinity",
            "-infinity",
            "2026-11-22",
            "2026-11-22 21:16:00",
            "2026-11-22 21:16:00+00 BC",
            "2026-02-29 00:00:00+00",
            "2026-13-01 00:00:00+00",
            "2026-11-22 24:00:00+00",
            "2026-11-22 21:16:00.1234567+00",
            "2026-11-22 21:16:00.+00",
            "0000-01-01 00:00:00+00",
            "Sun Nov 22 21:16:00 2026 UTC",
            "11/22/2026 21:16:00 UTC",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_every_instant_of_a_calendar(micros in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let at = Instant::from_unix_micros(micros);
            prop_assert_eq!(parse(at.to_fhir().as_bytes()), Some(at));
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&text);
        }
    }
}

//! Instants: what `meta.lastUpdated`, `_since` and `transactionTime` are made of.
//!
//! Counted in whole microseconds, as Postgres counts them, so that a stamp survives the way from the
//! column to the client and back without rounding.

mod parse;

pub use parse::InvalidInstant;
use std::fmt;

/// A moment, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(i64);

/// What a date or time given to some precision stands for: from `start` to before `end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Interval {
    /// The first instant in it.
    pub start: Instant,
    /// The first instant after it.
    pub end: Instant,
}

/// Postgres counts from 2000-01-01T00:00:00Z.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// The length of an instant as it is written.
const FHIR_LENGTH: usize = "0001-01-01T00:00:00.000000Z".len();
/// 0001-01-01T00:00:00Z.
const FHIR_MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z.
const FHIR_MAX: i64 = 253_402_300_799_999_999;

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Counts in years that
/// begin in March and in eras of 400 of them, so that leap days come last and all eras are alike.
const fn civil(day: i64) -> (i64, i64, i64) {
    let since_march_0000 = day + 719_468;
    let era = since_march_0000.div_euclid(146_097);
    let day_of_era = since_march_0000.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + (month <= 2) as i64, month, day)
}

/// Writes a number that is not negative as decimal digits, as many as there is room for.
fn digits(room: &mut [u8], mut number: i64) {
    for digit in room.iter_mut().rev() {
        // Below ten.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let value = (number % 10) as u8;
        *digit = b'0' + value;
        number /= 10;
    }
}

impl Instant {
    /// Before every stamp.
    pub const MIN: Self = Self(i64::MIN);
    /// After every stamp.
    pub const MAX: Self = Self(i64::MAX);
    /// The first that FHIR can write: the beginning of the year 1.
    pub const YEAR_ONE: Self = Self(FHIR_MIN);
    /// The last that FHIR can write: the end of the year 9999.
    pub const YEAR_9999: Self = Self(FHIR_MAX);

    /// From microseconds since 1970.
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// From the binary form of Postgres' `timestamptz`: microseconds since 2000.
    pub const fn from_postgres(micros: i64) -> Self {
        Self(micros.saturating_add(POSTGRES_EPOCH))
    }

    /// The binary form of Postgres' `timestamptz`: microseconds since 2000.
    pub const fn to_postgres(self) -> i64 {
        self.0.saturating_sub(POSTGRES_EPOCH)
    }

    /// As FHIR's `instant`, in UTC with six digits: <https://hl7.org/fhir/R4/datatypes.html#instant>.
    /// What FHIR cannot write (before the year 1 or after 9999; Postgres' `infinity`) becomes the nearest
    /// instant that it can.
    pub fn to_fhir(self) -> String {
        let mut out = Vec::with_capacity(FHIR_LENGTH);
        self.write_fhir(&mut out);
        out.into_iter().map(char::from).collect()
    }

    /// Appends what [`to_fhir`](Self::to_fhir) returns.
    pub fn write_fhir(self, out: &mut Vec<u8>) {
        let micros = self.0.clamp(FHIR_MIN, FHIR_MAX);
        let seconds = micros.div_euclid(1_000_000);
        let (year, month, day) = civil(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        digits(&mut text[0..4], year);
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], second / 3600);
        digits(&mut text[14..16], second / 60 % 60);
        digits(&mut text[17..19], second % 60);
        digits(&mut text[20..26], micros.rem_euclid(1_000_000));
        out.extend_from_slice(&text);
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_fhir())
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;

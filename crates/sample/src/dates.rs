//! Days and times, with the arithmetic that charts need. No date here is near the ends of the calendar: what
//! overflows stays where it was.

use crate::random::Random;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// So many days later, or earlier.
pub(crate) fn days_after(day: Date, days: i32) -> Date {
    day.checked_add(days.days()).unwrap_or(day)
}

/// So many months later, or earlier.
pub(crate) fn months_after(day: Date, months: i32) -> Date {
    day.checked_add(months.months()).unwrap_or(day)
}

/// Days from one to the other.
pub(crate) fn days_between(from: Date, to: Date) -> i32 {
    // A date minus a date is counted in days.
    (to - from).get_days()
}

/// Whole years at a day.
pub(crate) fn age(birth: Date, on: Date) -> i16 {
    let before_birthday = (on.month(), on.day()) < (birth.month(), birth.day());
    on.year() - birth.year() - i16::from(before_birthday)
}

/// Years as a number with a fraction.
pub(crate) fn years_between(from: Date, to: Date) -> f64 {
    f64::from(days_between(from, to)) / 365.25
}

/// The first or the last day of a year.
pub(crate) fn first_of(year: i16) -> Date {
    date(year, 1, 1)
}

/// The last day of a year.
pub(crate) fn last_of(year: i16) -> Date {
    date(year, 12, 31)
}

/// A time of that day at which a clinic is open.
pub(crate) fn office_hours(day: Date, random: &mut Random) -> Timestamp {
    let minutes = i64::from(random.between(13 * 60, 21 * 60));
    midnight(day).checked_add(minutes.minutes()).unwrap_or_default()
}

/// So many minutes later.
pub(crate) fn minutes_after(at: Timestamp, minutes: i32) -> Timestamp {
    at.checked_add(minutes.minutes()).unwrap_or(at)
}

/// The beginning of a day.
pub(crate) fn midnight(day: Date) -> Timestamp {
    day.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).unwrap_or_default()
}

/// The day of a time.
pub(crate) fn day_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// Without the fraction of the second.
pub(crate) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The day of a FHIR date or dateTime that has one.
pub(crate) fn parse_day(text: &str) -> Option<Date> {
    text.get(..10)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_change_on_the_birthday() {
        let birth = date(1980, 2, 29);
        assert_eq!(age(birth, date(2026, 2, 28)), 45);
        assert_eq!(age(birth, date(2026, 3, 1)), 46);
        assert_eq!(days_between(date(2026, 1, 1), date(2027, 1, 1)), 365);
        assert_eq!(parse_day("2026-11-25T20:00:00Z"), Some(date(2026, 11, 25)));
        assert_eq!(parse_day("2026-11"), None);
        assert_eq!(day_of(midnight(birth)), birth);
    }
}

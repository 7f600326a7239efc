//! Spans of time as people write them: `7d`, `12h`, `1d12h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A span of time in whole seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Age(pub(crate) u64);

const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The text is no span of time.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum InvalidAge {
    /// Not a sequence of numbers, each with a unit.
    #[error("'{0}' is not a span of time: write whole numbers with w, d, h, m or s, such as 7d or 1d12h")]
    Malformed(String),
    /// More seconds than 64 bits hold.
    #[error("'{0}' is too long a time")]
    TooLong(String),
}

impl Age {
    pub(crate) fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Age {
    type Err = InvalidAge;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || InvalidAge::Malformed(text.to_owned());
        let too_long = || InvalidAge::TooLong(text.to_owned());
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(malformed());
        }
        let mut total = 0u64;
        while !rest.is_empty() {
            // A number without a unit could be seconds to one reader and days to another.
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
            let (number, unit_on) = rest.split_at(end);
            let mut characters = unit_on.chars();
            let unit = characters.next().ok_or_else(malformed)?;
            let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
            if number.is_empty() {
                return Err(malformed());
            }
            let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*seconds));
            total = part.and_then(|part| total.checked_add(part)).ok_or_else(too_long)?;
            rest = characters.as_str().trim_start();
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Days are the unit that people think of retention in: 14d, not 2w.
        let (unit, seconds) = UNITS
            .iter()
            .skip(1)
            .find(|(_, seconds)| self.0 >= *seconds && self.0.is_multiple_of(*seconds))
            .unwrap_or(&('s', 1));
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, seconds) in
            [("0s", 0), ("90s", 90), ("7d", 604_800), ("1w", 604_800), ("1d12h", 129_600), ("1h 30m", 5_400)]
        {
            assert_eq!(text.parse(), Ok(Age(seconds)), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for text in ["", " ", "7", "d", "7 days", "7D", "-7d", "1.5d", "7d3", "7y"] {
            assert!(matches!(text.parse::<Age>(), Err(InvalidAge::Malformed(_))), "{text}");
        }
        for text in ["99999999999999999999s", "99999999999999999w", "18446744073709551615s1s"] {
            assert!(matches!(text.parse::<Age>(), Err(InvalidAge::TooLong(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(seconds in any::<u64>(), unit in 0usize..5) {
            let age = Age(seconds / UNITS[unit].1 * UNITS[unit].1);
            prop_assert_eq!(age.to_string().parse(), Ok(age));
        }

        #[test]
        fn never_panics(text in "\\PC{0,12}", numbers in "([0-9]{1,21}[wdhms ]?){0,3}") {
            let _ = text.parse::<Age>();
            let _ = numbers.parse::<Age>();
        }
    }
}

//! Sizes as people write them: `10GiB`, `500 MB`, `1048576`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ByteSize(pub(crate) u64);

/// From the largest to the smallest, so that [`Display`](fmt::Display) finds the largest that fits.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// The text is no size.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum InvalidByteSize {
    /// No whole number at the beginning.
    #[error("'{0}' is not a size: write a whole number and a unit, such as 10GiB or 500MB")]
    NoNumber(String),
    /// A unit that is not known. `10G` is not: it is 10 GB to some and 10 GiB to others.
    #[error("'{0}' has an unknown unit: use B, KB, MB, GB, TB, KiB, MiB, GiB or TiB")]
    UnknownUnit(String),
    /// More than 64 bits hold.
    #[error("'{0}' is too large")]
    TooLarge(String),
}

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        let end = trimmed.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        if number.is_empty() {
            return Err(InvalidByteSize::NoNumber(text.to_owned()));
        }
        let unit = unit.trim_start();
        let factor = match unit {
            "" => 1,
            _ => UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, factor)| *factor)
                .ok_or_else(|| InvalidByteSize::UnknownUnit(text.to_owned()))?,
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| InvalidByteSize::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1B", 1),
            ("10GiB", 10 << 30),
            ("10 GiB", 10 << 30),
            ("10gib", 10 << 30),
            ("500MB", 500_000_000),
            (" 2TiB ", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let wrong = |text: &str| text.parse::<ByteSize>().unwrap_err();
        assert!(matches!(wrong(""), InvalidByteSize::NoNumber(_)));
        assert!(matches!(wrong("-1"), InvalidByteSize::NoNumber(_)));
        assert!(matches!(wrong("GiB"), InvalidByteSize::NoNumber(_)));
        assert!(matches!(wrong("10G"), InvalidByteSize::UnknownUnit(_)));
        assert!(matches!(wrong("1.5GiB"), InvalidByteSize::UnknownUnit(_)));
        assert!(matches!(wrong("99999999999999999999"), InvalidByteSize::TooLarge(_)));
        assert!(matches!(wrong("99999999TiB"), InvalidByteSize::TooLarge(_)));
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(bytes in any::<u64>(), shift in 0u32..64) {
            let size = ByteSize(bytes >> shift << (shift / 2));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn never_panics(text in "\\PC{0,12}", number in "[0-9]{1,22} ?[kKmMgGtTiIbB]{0,3}") {
            let _ = text.parse::<ByteSize>();
            let _ = number.parse::<ByteSize>();
        }
    }
}

//! Places in the write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A place in the database's write-ahead log, a byte offset since its beginning. Written `X/Y`, two
/// hexadecimal halves, as Postgres does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// The beginning, which no record has.
    pub const ZERO: Self = Self(0);
    /// Beyond every record.
    pub const MAX: Self = Self(u64::MAX);

    /// From the byte offset.
    pub const fn new(offset: u64) -> Self {
        Self(offset)
    }

    /// The byte offset.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// How many bytes of log lie between an earlier place and this one; 0 if it is not earlier.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an LSN.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not an LSN: two hexadecimal numbers of up to eight digits with a slash between them")]
pub struct InvalidLsn(String);

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            valid.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| InvalidLsn(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        for offset in [0, 1, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            assert_eq!(Lsn::new(offset).to_string().parse::<Lsn>().unwrap(), Lsn::new(offset));
        }
        for bad in ["", "/", "1/", "/1", "1/123456789", "1/+2", "1/2/3", "g/1"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }
}

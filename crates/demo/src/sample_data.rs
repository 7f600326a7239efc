//! Sample data as NDJSON.

use jiff::civil::Date;
use sample::Population;
use std::io::{BufWriter, Write};

/// Large enough that writing does not dominate.
const BUFFER: usize = 1 << 20;

/// Writes a population, a resource a line.
///
/// # Errors
///
/// If `out` fails.
pub fn write(population: &Population, out: impl Write) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    for resource in population.resources() {
        out.write_all(resource.content.as_bytes())?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Today, in UTC as all times of the sample data.
#[must_use]
pub fn today() -> Date {
    jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

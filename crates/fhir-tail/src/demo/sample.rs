//! `fhir-tail sample`: a made-up population as NDJSON on standard output.

use anyhow::Context as _;
use jiff::civil::Date;
use sample::Population;
use std::io::ErrorKind;

/// What to write.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SampleOptions {
    /// How many patients
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) patients: u32,

    /// Another seed makes other people
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,

    /// The day up to which their records go, such as 2026-11-25 [default: today]
    #[arg(long, value_name = "DATE")]
    pub(crate) as_of: Option<Date>,
}

/// More than the options say.
pub(crate) const SAMPLE_HELP: &str = "\
The same seed, number and day give the same bytes. All of it is marked as test data (meta.security has HTEST).

Examples:
  fhir-tail sample --patients 1000 | fhir-tail load -
  fhir-tail sample --seed 7 --as-of 2026-06-30 | gzip > sample.ndjson.gz";

/// Writes it.
pub(crate) fn run(options: &SampleOptions) -> anyhow::Result<()> {
    let today = options.as_of.unwrap_or_else(demo::today);
    let population = Population::new(options.seed, options.patients, today);
    match demo::write(&population, std::io::stdout().lock()) {
        // Who reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

//! `fhir-tail simulate`: a clinic that writes into the database, next to sample data.

use crate::migrate;
use crate::place::Place;
use crate::settings::Settings;
use crate::signals::Signals;
use tokio_util::sync::CancellationToken;

/// What there is, and how busy it is.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct ClinicOptions {
    /// Resources that are written each second, on average; a batch import comes on top of it now and then
    #[arg(long, value_name = "NUMBER", default_value_t = 10.0, value_parser = rate)]
    pub(crate) rate: f64,

    /// How many patients to begin with, where there are none yet
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) patients: u32,

    /// Another seed makes other people, and other things happen to them
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
}

impl From<ClinicOptions> for demo::Options {
    fn from(options: ClinicOptions) -> Self {
        let ClinicOptions { rate, patients, seed } = options;
        Self { rate, patients, seed }
    }
}

/// More than the options say.
pub(crate) const SIMULATE_HELP: &str = "\
It needs the tables that migrate makes. Where they are empty it first loads a sample population; where they hold \
patients that are not marked as test data it refuses to write. It waits for a database that is away, and ends with \
the database's message where waiting would not help: a wrong password, a missing table or right.

Examples:
  fhir-tail simulate --database-url postgres://app@db.example/demo --rate 50
  fhir-tail simulate                     on the embedded Postgres that serve runs";

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number of resources a second from 0.01 to 100000 is expected, such as 10".to_owned()),
    }
}

/// Writes until a signal, which is how it should end.
pub(crate) async fn run(settings: &Settings, options: ClinicOptions) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let place = tokio::select! {
        place = Place::of(settings) => place?,
        _ = signals.next() => return Ok(()),
    };
    let working = async {
        if place.is_ours_alone() {
            migrate::apply(&place.database).await?;
        }
        demo::work(place.database.clone(), options.into(), CancellationToken::new()).await
    };
    let result = tokio::select! {
        result = working => result,
        signal = signals.next() => {
            tracing::info!(signal, "the clinic closes");
            Ok(())
        }
    };
    place.close().await?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_positive_number() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "ten", "", "1e9"] {
            assert!(rate(text).unwrap_err().contains("such as 10"), "{text}");
        }
    }
}

//! Log lines: to standard error, as text or JSON.

use crate::settings::{LogFormat, Settings};
use std::io::IsTerminal as _;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// Writes log lines from here on.
pub(crate) fn start(settings: &Settings) {
    // What the storage engine says at every start is of interest to those alone who name it.
    let level = format!("fjall=warn,lsm_tree=warn,{}", settings.log_level);
    let filter = EnvFilter::builder().parse_lossy(level).and(filter_fn(keeps_data_out));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // A second call has no effect: it happens in tests alone.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// The Postgres client writes statements with their parameters, which are patients' data and passwords,
/// whatever level was asked for.
fn keeps_data_out(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("tokio_postgres") || *metadata.level() <= Level::WARN
}

//! The command line.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Measures the service beside what one would use instead.
#[derive(Parser, Debug)]
#[command(name = "bench", subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    /// The rows to measure; all without one. --list names them.
    pub(crate) rows: Vec<String>,
    /// Names the rows and ends.
    #[arg(long)]
    pub(crate) list: bool,
    /// How much of each: 0.01 only shows that everything works.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// How often each is measured; the median is shown.
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// The folder for the table, the JSON and the charts.
    #[arg(long, default_value = "target/bench")]
    pub(crate) out: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What the harness starts this program as.
#[derive(Subcommand, Clone, Copy, Debug)]
pub(crate) enum Command {
    /// The load client; it is told what to do on standard input.
    #[command(hide = true)]
    Client,
    /// The server of the plain sockets, told on standard input.
    #[command(hide = true)]
    Plain,
}

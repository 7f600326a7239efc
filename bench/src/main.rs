//! The benchmark: each row of the table is measured beside what one would use instead, on the same machine in the
//! same run.
//!
//! The harness (this program) starts Postgres, the service and the references; who listens is a process of its own
//! ([`client`]), the same program under another name of command. What a row means and how it is
//! measured stands in its module in [`rows`]; `docs/performance.md` has the method.

mod chart;
mod client;
mod clock;
mod command;
mod lab;
mod latency;
mod nchan;
mod output;
mod plain;
mod receive;
mod report;
mod rows;
mod statistics;
mod usage;
mod writer;

use clap::Parser as _;
use command::{Arguments, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Client) => client::process::run(),
        Some(Command::Plain) => plain::process(),
        None => harness(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(&format!("bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn harness(arguments: &Arguments) -> anyhow::Result<()> {
    // One worker: what the harness itself does is little, and there are two cores for all.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(rows::run(arguments))
}

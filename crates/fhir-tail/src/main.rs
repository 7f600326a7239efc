//! The command: flags, settings, wiring.
//!
//! Each command is a module of its name. `serve` puts the crates below together: `cdc` reads the
//! database into `feed`, `sse-api` serves it. Read [`serve`] first.
//!
//! Ends with 0 when all went well, 1 after a failure, 2 when the command line or the settings cannot be used.

mod allocator;
mod check;
mod cli;
mod data_dir;
#[cfg_attr(not(feature = "demo"), path = "without_demo.rs")]
mod demo;
mod descriptors;
mod load;
mod logging;
mod migrate;
mod output;
mod own_thread;
mod place;
mod ready;
mod received;
mod restored;
mod serve;
mod settings;
mod signals;
mod supervisor;
mod tail;

use crate::demo::Demonstration;
use cli::{Accept, CheckCommand, Cli, Command};
use output::{complain, say};
use settings::{Environment, InvalidSettings, ServeOptions, Settings};
use signals::Signals;
use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::{self, Runtime};

/// How long cancelled tasks have to be dropped.
const DROP_WITHIN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    allocator::give_back_large_memory();
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(told) => return told,
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            ExitCode::from(if error.is::<InvalidSettings>() { 2 } else { 1 })
        }
    }
}

fn run(Cli { common, command }: Cli) -> anyhow::Result<ExitCode> {
    let (options, rest) = match command {
        Command::Demo(demo) => {
            let (options, demonstration) = demo.split()?;
            (options, Task::Demo(demonstration))
        }
        Command::Serve(serve) => (serve.options, Task::Serve { check_config: serve.check_config }),
        Command::Check(check) => {
            let CheckCommand { json, strict, accept, options } = *check;
            let options = ServeOptions { follow: options, ..ServeOptions::default() };
            (options, Task::Check { json, strict, accept })
        }
        Command::Uninstall(uninstall) => {
            (ServeOptions { follow: uninstall.options, ..ServeOptions::default() }, Task::Uninstall)
        }
        Command::Restored => (ServeOptions::default(), Task::Restored),
        Command::Ready(ready) => (ServeOptions::default(), Task::Ready(ready.address)),
        Command::Migrate(migrate) => (ServeOptions::default(), Task::Migrate { restamp: migrate.restamp }),
        Command::Load(options) => (ServeOptions::default(), Task::Load(options)),
        Command::Tail(options) => (ServeOptions::default(), Task::Tail(options)),
        Command::Simulate(options) => (ServeOptions::default(), Task::Simulate(options)),
        // It reads no settings, so none can be wrong.
        Command::Sample(options) => return demo::sample(&options).map(|()| ExitCode::SUCCESS),
    };
    let root = nix::unistd::Uid::effective().is_root();
    let mut settings = Settings::read(common, options, &environment(), root)?;
    let asked_for = settings.max_streams;
    if let Task::Serve { .. } | Task::Demo(_) = rest {
        descriptors::share(descriptors::raise(), &mut settings)?;
    }
    if let Task::Serve { check_config: true } = rest {
        say(format_args!("{}", settings.effective().trim_end()));
        return Ok(ExitCode::SUCCESS);
    }
    let settings = if let Task::Demo(_) = rest { settings.of_a_demo()? } else { settings };
    logging::start(&settings);
    descriptors::tell(asked_for, settings.max_streams);
    let runtime = runtime()?;
    // `false`: the answer is no, which is not a failure of the command.
    let result = runtime.block_on(async {
        match rest {
            Task::Serve { .. } => serve::run(settings, None).await.map(|()| true),
            Task::Demo(demonstration) => serve::run(settings, Some(demonstration)).await.map(|()| true),
            Task::Check { json, strict, accept } => {
                unless_stopped(check::run(&settings, json, strict, &accept)).await
            }
            Task::Uninstall => {
                let sql = cdc::layout::native::uninstall(&settings.slot, &settings.publication);
                say(format_args!("{}", sql.trim_end()));
                Ok(true)
            }
            Task::Restored => restored::run(&settings).map(|()| true),
            Task::Ready(address) => unless_stopped(ready::run(&settings, address)).await,
            Task::Migrate { restamp } => {
                unless_stopped(migrate::run(&settings, restamp)).await.map(|()| true)
            }
            Task::Simulate(options) => demo::simulate(&settings, options).await.map(|()| true),
            Task::Load(options) => unless_stopped(load::run(&settings, options)).await.map(|()| true),
            Task::Tail(options) => tail::run(*options).await.map(|()| true),
        }
    });
    runtime.shutdown_timeout(DROP_WITHIN);
    result.map(|well| if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The log is read and the journal written by threads of their own, and the database may be on the same machine: one
/// processor is left to them, if there are several. On two processors this keeps all streams on one thread, and so what is known
/// of them in one cache: docs/performance.md.
fn runtime() -> std::io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    runtime::Builder::new_multi_thread()
        .worker_threads(processors.saturating_sub(1).max(1))
        .enable_all()
        .build()
}

/// Runs work that can be cancelled at any point: dropping it stops what it started.
async fn unless_stopped<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut signals = Signals::new()?;
    tokio::select! {
        result = work => result,
        signal = signals.next() => Err(anyhow::anyhow!("stopped by {signal}")),
    }
}

/// What to do, once the settings are read.
enum Task {
    Serve { check_config: bool },
    Demo(Demonstration),
    Check { json: bool, strict: bool, accept: Vec<Accept> },
    Uninstall,
    Restored,
    Ready(Option<SocketAddr>),
    Migrate { restamp: bool },
    Load(load::LoadOptions),
    Tail(Box<tail::TailOptions>),
    Simulate(demo::ClinicOptions),
}

/// The environment, as far as it is text: nothing else can be a setting.
fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

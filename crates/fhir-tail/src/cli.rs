//! The command line.

use crate::demo::{ClinicOptions, DEMO_HELP, DemoCommand, SAMPLE_HELP, SIMULATE_HELP, SampleOptions};
use crate::load::{LOAD_HELP, LoadOptions};
use crate::output::complain;
use crate::settings::{CommonOptions, FollowOptions, ServeOptions};
use crate::tail::{TAIL_HELP, TailOptions};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
Each option can also be set by an environment variable (--data-dir is FHIR_TAIL_DATA_DIR) or in a TOML
file (data-dir = \"…\"); a flag wins over a variable, and that over the file.";

/// tail -f for the FHIR data in a Postgres database.
#[derive(Parser)]
#[command(name = "fhir-tail", version, about, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: CommonOptions,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a demo: embedded Postgres, sample data, a clinic with live data, the service and its dashboard
    #[command(after_help = DEMO_HELP)]
    Demo(Box<DemoCommand>),

    /// Run the service: stream the database's changes over HTTP
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeCommand>),

    /// Create or update the tables, triggers, publication and role in the database
    #[command(after_help = MIGRATE_EXAMPLES)]
    Migrate(MigrateCommand),

    /// Check that the database is ready, and print the fix for whatever is not
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Box<CheckCommand>),

    /// Print the SQL that removes the service from a database: slot, publication, role
    #[command(after_help = UNINSTALL_EXAMPLES)]
    Uninstall(Box<UninstallCommand>),

    /// Tell the service, while it is stopped, that its database was restored: clients are then reset
    #[command(after_help = RESTORED_EXAMPLES)]
    Restored,

    /// Ask the service on this machine whether it is ready, for probes in containers
    #[command(after_help = READY_EXAMPLES)]
    Ready(ReadyCommand),

    /// Load NDJSON and Bundles into the tables that migrate makes
    #[command(after_help = LOAD_HELP)]
    Load(LoadOptions),

    /// Follow a service and write its events as NDJSON, losing none
    #[command(after_help = TAIL_HELP)]
    Tail(Box<TailOptions>),

    /// Write into the database as a busy clinic does, next to sample data
    #[command(after_help = SIMULATE_HELP)]
    Simulate(ClinicOptions),

    /// Write sample data to standard output, as NDJSON
    #[command(after_help = SAMPLE_HELP)]
    Sample(SampleOptions),
}

#[derive(Args)]
pub(crate) struct ServeCommand {
    /// Print the settings in effect, without passwords, and exit: with 2 if they cannot be used
    #[arg(long)]
    pub(crate) check_config: bool,

    #[command(flatten)]
    pub(crate) options: ServeOptions,
}

#[derive(Args)]
pub(crate) struct MigrateCommand {
    /// Give new stamps to rows that are stamped more than a minute ahead of the database's clock, after it had jumped:
    /// the service then starts a new epoch, and subscribers are reset
    #[arg(long)]
    pub(crate) restamp: bool,
}

#[derive(Args)]
pub(crate) struct CheckCommand {
    /// Print the answer as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Fail on warnings too
    #[arg(long)]
    pub(crate) strict: bool,

    /// Do not warn about this; may be repeated
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) accept: Vec<Accept>,

    #[command(flatten)]
    pub(crate) options: FollowOptions,
}

/// A warning that an operator may accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Accept {
    /// max_slot_wal_keep_size is -1: the database's disk is monitored otherwise while the service is down
    UnlimitedWal,
}

#[derive(Args)]
pub(crate) struct UninstallCommand {
    /// Print the statements to standard output; nothing is run
    #[arg(long, required = true)]
    pub(crate) print: bool,

    #[command(flatten)]
    pub(crate) options: FollowOptions,
}

#[derive(Args)]
pub(crate) struct ReadyCommand {
    /// The address it listens on [default: the setting listen, and without that 127.0.0.1:8080]
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: Option<SocketAddr>,
}

/// Reads the command line. An unusable one is reported and exits with 2; help exits with 0.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let arguments: Vec<OsString> = arguments.collect();
    Cli::try_parse_from(&arguments).map_err(|error| {
        let code = u8::try_from(error.exit_code()).unwrap_or(2);
        match without_secrets(&error.to_string(), &arguments) {
            // In colours, if there is nothing to hide. A closed standard error is not a failure.
            None => drop(error.print()),
            Some(told) => complain(format_args!("{}", told.trim_end())),
        }
        ExitCode::from(code)
    })
}

/// The message without the arguments that may hold a password, which clap repeats; `None` if it repeats none.
fn without_secrets(message: &str, arguments: &[OsString]) -> Option<String> {
    let mut told = message.to_owned();
    for argument in arguments {
        let argument = argument.to_string_lossy();
        let value = match argument.strip_prefix("--").and_then(|flag| flag.split_once('=')) {
            Some((_, value)) => value,
            None => &argument,
        };
        if value.contains("://") || value.contains("password") {
            told = told.replace(value, "…");
        }
    }
    (told != message).then_some(told)
}

const SERVE_EXAMPLES: &str = "\
Examples:
  fhir-tail serve                        on the embedded Postgres, on http://127.0.0.1:8080/fhir
  fhir-tail serve --database-url postgres://fhir_tail@db.example/fhir
  fhir-tail serve --check-config

Then:
  curl -N -H 'Prefer: respond-eventsource' 'http://127.0.0.1:8080/fhir/$export'";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  fhir-tail migrate --database-url postgres://postgres@db.example/fhir
  fhir-tail migrate --restamp            after the database's clock had jumped forward

It is safe to run again. It needs the rights to create objects in the database; the service itself needs
far fewer.";

const CHECK_EXAMPLES: &str = "\
Examples:
  fhir-tail check --database-url postgres://fhir_tail@db.example/fhir
  fhir-tail check --json | jq -r '.checks[] | select(.verdict == \"failure\") | .sql'

It changes nothing. Run it as the role that the service logs in as; it opens a replication connection too.
Exits with 0 if the service can run (there may be warnings, unless --strict), with 1 if a check fails.";

const UNINSTALL_EXAMPLES: &str = "\
Examples:
  fhir-tail uninstall --print > uninstall.sql
  psql -f uninstall.sql postgres://postgres@db.example/fhir

It connects to nothing. Read the statements, stop the service, and run them as a superuser. Resources stay.";

const RESTORED_EXAMPLES: &str = "\
Examples:
  fhir-tail restored
  fhir-tail restored --data-dir /var/lib/fhir-tail

Run it after the database, or a whole machine, was restored from a backup or a snapshot, and before the
service is started. It works on the data directory alone and needs no database. At its next start the service starts a
new epoch, and answers all earlier event ids with reset-all. Running it again changes nothing.";

const READY_EXAMPLES: &str = "\
Examples:
  fhir-tail ready
  fhir-tail ready 127.0.0.1:8080

Prints the answer of /health/ready. Exits with 0 if the service is ready, with 1 if it is not or cannot be reached.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_options_go_before_and_after_the_command() {
        for line in [
            "fhir-tail --data-dir /x serve",
            "fhir-tail serve --data-dir /x",
            "fhir-tail migrate --data-dir /x",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.common.data_dir.as_deref(), Some("/x"));
        }
    }

    #[test]
    fn what_may_be_a_password_is_not_repeated() {
        for line in [
            "fhir-tail check postgres://u:hunter2@h/d",
            "fhir-tail postgres://u:hunter2@h/d",
            "fhir-tail ready postgres://u:hunter2@h/d",
            "fhir-tail serve --databse-url=postgres://u:hunter2@h/d",
            "fhir-tail serve --databse-url postgres://u:hunter2@h/d",
            "fhir-tail check host=h|password=hunter2",
        ] {
            let arguments: Vec<OsString> =
                line.split(' ').map(|word| word.replace('|', " ").into()).collect();
            let message = Cli::try_parse_from(&arguments).err().unwrap().to_string();
            let told = without_secrets(&message, &arguments).unwrap_or(message);
            assert!(!told.contains("hunter2"), "{told}");
        }
        let arguments = ["fhir-tail".into(), "chekc".into()];
        let message = Cli::try_parse_from(&arguments).err().unwrap().to_string();
        assert_eq!(without_secrets(&message, &arguments), None);
    }

    #[test]
    fn a_flag_needs_no_value_and_takes_one() {
        for (line, value) in [
            ("fhir-tail serve --insecure-no-auth", "true"),
            ("fhir-tail serve --insecure-no-auth=false", "false"),
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Serve(serve) = cli.command else { panic!("{line}") };
            assert_eq!(serve.options.insecure_no_auth.as_deref(), Some(value));
        }
    }
}

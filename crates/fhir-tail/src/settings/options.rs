//! The flags, as they were typed: unchecked text.
//!
//! All are optional text here, so that a flag, an environment variable and a line of the file are read by
//! the same code and their problems are reported together. `Debug` is not derived: a URL may hold a password.

use std::path::PathBuf;

/// Settings that every command takes.
#[derive(clap::Args, Default)]
#[command(next_help_heading = "Database and files")]
pub(crate) struct CommonOptions {
    /// A TOML file with settings, named as the flags are [default: $XDG_CONFIG_HOME/fhir-tail.toml, if there]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// The database: postgres://user@host/db, or host=… user=… dbname=…; DATABASE_URL works too.
    /// Without it, an embedded Postgres under the data directory
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) database_url: Option<String>,

    /// The folder of the journal and the embedded Postgres [default: $XDG_DATA_HOME/fhir-tail; as root
    /// /var/lib/fhir-tail]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<String>,

    /// The folder with the programs initdb and postgres, for the embedded Postgres [default: searched for]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) postgres_bin: Option<String>,

    /// How log lines are written to standard error: text or json [default: text]
    #[arg(long, value_name = "FORMAT", global = true)]
    pub(crate) log_format: Option<String>,

    /// What is logged: error, warn, info, debug, trace, or by module as in info,cdc=debug [default: info]
    #[arg(long, value_name = "LEVEL", global = true)]
    pub(crate) log_level: Option<String>,
}

/// Settings of the service.
#[derive(clap::Args, Default)]
#[command(next_help_heading = "Service")]
pub(crate) struct ServeOptions {
    /// The address to listen on; may be repeated; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,

    /// A URL by which clients reach the service; may be repeated. Requests to other names are refused
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Vec<String>,

    /// A URL below which the stored resources stand, for absolute references to patients; may be repeated.
    /// Each --public-url with /fhir is one
    #[arg(long, value_name = "URL")]
    pub(crate) fhir_base_url: Vec<String>,

    /// Serve anyone who can connect, beyond this machine too, without authorization
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) insecure_no_auth: Option<String>,

    /// The most streams that may be open at once; the default is lower if the limit of open files is low [default: 20000]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_streams: Option<String>,

    /// The most streams of one client address; raise it for a proxy on another machine. Addresses of this machine, where
    /// proxies usually run, have no such limit [default: half of max-streams]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_streams_per_address: Option<String>,

    /// Close a connection whose client has not read anything for this long [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub(crate) client_timeout: Option<String>,

    /// What to do with a row that cannot be streamed. skip: count and log it. stop: end the service (bad row in the log)
    /// or the affected replay (bad row in a table) [default: skip]
    #[arg(long, value_name = "POLICY")]
    pub(crate) on_bad_row: Option<String>,

    #[command(flatten)]
    pub(crate) follow: FollowOptions,
}

/// Settings of what is followed and kept, for the service and for check.
#[derive(clap::Args, Default)]
pub(crate) struct FollowOptions {
    /// The replication slot; created if it is missing [default: fhir_tail]
    #[arg(long, value_name = "NAME")]
    pub(crate) slot: Option<String>,

    /// The publication that the slot reads [default: fhir_tail]
    #[arg(long, value_name = "NAME")]
    pub(crate) publication: Option<String>,

    /// The most WAL that the database keeps for the slot; beyond it the slot is dropped, and clients are reset [default: 10GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_wal_held: Option<String>,

    /// The most that the journal keeps [default: 10GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) retention_bytes: Option<String>,

    /// The oldest that the journal keeps [default: 7d]
    #[arg(long, value_name = "TIME")]
    pub(crate) retention_age: Option<String>,
}

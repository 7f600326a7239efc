//! The flags, as they were typed: text that nobody has looked at yet.
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

    /// The database: postgres://user@host/db, or host=… user=… dbname=…; DATABASE_URL is honoured too.
    /// Without it, a Postgres of our own under the data directory
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) database_url: Option<String>,

    /// Where the journal and the embedded Postgres live [default: $XDG_DATA_HOME/fhir-tail; as root
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

    /// How many streams may be open at once; fewer by default if the limit of open files is low [default: 20000]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_streams: Option<String>,

    /// How many of them one address may have; raise it for a proxy on another machine. Addresses of this machine, where
    /// proxies usually are, have no such limit [default: half of max-streams]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_streams_per_address: Option<String>,

    /// How long a client may take nothing before its connection is closed [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub(crate) client_timeout: Option<String>,

    /// What to do about a row that cannot be streamed: skip (counted and logged), or stop: met in the log it ends the service,
    /// met by a replay that replay [default: skip]
    #[arg(long, value_name = "POLICY")]
    pub(crate) on_bad_row: Option<String>,

    #[command(flatten)]
    pub(crate) follow: FollowOptions,
}

/// Settings of what is followed and kept, for the service and for who checks what it will find.
#[derive(clap::Args, Default)]
pub(crate) struct FollowOptions {
    /// The replication slot; made if it is missing [default: fhir_tail]
    #[arg(long, value_name = "NAME")]
    pub(crate) slot: Option<String>,

    /// The publication that the slot reads [default: fhir_tail]
    #[arg(long, value_name = "NAME")]
    pub(crate) publication: Option<String>,

    /// The database keeps at most this much log for us; then its disk comes first, and clients are reset [default: 10GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_wal_held: Option<String>,

    /// The journal keeps at most this much [default: 10GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) retention_bytes: Option<String>,

    /// The journal keeps nothing older than this [default: 7d]
    #[arg(long, value_name = "TIME")]
    pub(crate) retention_age: Option<String>,
}

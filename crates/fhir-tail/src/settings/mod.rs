//! What the command was told: flags, then `FHIR_TAIL_*` environment variables, then a TOML file.
//!
//! Read once, at the start; the crates below get small typed values and read no environment of their
//! own. [`Settings::read`] reports everything that is wrong at once, each with the place it was written.

mod age;
mod byte_size;
mod layers;
mod options;
mod print;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use age::Age;
pub(crate) use byte_size::ByteSize;
pub(crate) use layers::{Environment, Origin, Problem};
pub(crate) use options::{CommonOptions, FollowOptions, ServeOptions};
pub(crate) use values::{LogFormat, address};

use cdc::SlotName;
use cdc::check::Retention;
use cdc::layout::OnBadRow;
use cdc::layout::native::Native;
use fhir::BaseUrls;
use layers::Layers;
use pg::Database;
use sse_api::PublicUrl;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// What the command runs with.
pub(crate) struct Settings {
    /// The database; `None`: the embedded one.
    pub(crate) database: Option<Database>,
    pub(crate) data_dir: PathBuf,
    pub(crate) postgres_bin: Option<PathBuf>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) public_urls: Vec<PublicUrl>,
    fhir_base_urls: Vec<String>,
    pub(crate) insecure_no_auth: bool,
    pub(crate) max_streams: usize,
    max_streams_per_address: Option<usize>,
    /// Connections that there may be beside streams; none before descriptors are shared out.
    pub(crate) spare_connections: usize,
    pub(crate) client_timeout: Age,
    pub(crate) on_bad_row: OnBadRow,
    pub(crate) slot: SlotName,
    pub(crate) publication: String,
    pub(crate) max_wal_held: ByteSize,
    pub(crate) retention_bytes: ByteSize,
    pub(crate) retention_age: Age,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: String,
    origins: BTreeMap<&'static str, Origin>,
}

/// The settings cannot be used: everything that is wrong with them.
#[derive(Debug)]
pub(crate) struct InvalidSettings(pub(crate) Vec<Problem>);

impl std::fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the settings cannot be used")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for InvalidSettings {}

impl Settings {
    /// Reads all layers. `root` is whether we run as root, whose data belongs to the system.
    pub(crate) fn read(
        common: CommonOptions,
        serve: ServeOptions,
        environment: &Environment,
        root: bool,
    ) -> Result<Self, InvalidSettings> {
        let config = common.config.clone();
        let mut layers = Layers::new(flags(common, serve), environment);
        read_file(&mut layers, config, environment);

        let database = layers.read_also("database-url", Some("DATABASE_URL"), Database::parse);
        let data_dir = layers
            .read("data-dir", values::directory)
            .or_else(|| values::default_data_dir(environment, root));
        let mut listen = layers.read_list("listen", values::address);
        if listen.is_empty() {
            listen.push(values::DEFAULT_LISTEN);
        }
        let insecure_no_auth = layers.read("insecure-no-auth", values::truth).unwrap_or(false);
        for address in
            listen.iter().filter(|address| !sse_api::is_loopback(address.ip()) && !insecure_no_auth)
        {
            let origin = layers.origin("listen");
            layers.problem(
                origin,
                format!(
                    "{address} can be reached from other machines, and streams would be open to anyone there: \
                     listen on 127.0.0.1 behind a proxy that authorizes, or say --insecure-no-auth"
                ),
            );
        }
        if data_dir.is_none() && layers.origin("data-dir") == Origin::Default {
            layers.problem(Origin::Flag("data-dir"), "there is no home directory to put it in: say where");
        }
        let slot = layers.read_or("slot", values::DEFAULT_SLOT, str::parse);
        let postgres_bin = layers.read("postgres-bin", values::directory);
        let public_urls = layers.read_list("public-url", str::parse);
        let fhir_base_urls = layers.read_list("fhir-base-url", values::fhir_base_url);
        let max_streams = layers.read("max-streams", values::positive).unwrap_or(20_000);
        let max_streams_per_address = layers.read("max-streams-per-address", values::positive);
        let client_timeout = layers.read("client-timeout", str::parse).unwrap_or(Age(60));
        let on_bad_row = layers.read("on-bad-row", str::parse).unwrap_or_default();
        let publication = layers.read_or("publication", values::DEFAULT_PUBLICATION, values::identifier);
        let max_wal_held = layers.read("max-wal-held", str::parse).unwrap_or(ByteSize(10 << 30));
        let retention_bytes = layers.read("retention-bytes", str::parse).unwrap_or(ByteSize(10 << 30));
        let retention_age = layers.read("retention-age", str::parse).unwrap_or(Age(7 * 86_400));
        let log_format = layers.read("log-format", str::parse).unwrap_or(LogFormat::Text);
        let log_level = layers.read_or("log-level", "info", values::log_level);

        let (problems, origins) = layers.finish();
        // A value is missing only where there is a problem with it.
        let (Some(data_dir), Some(slot), Some(publication), Some(log_level), []) =
            (data_dir, slot, publication, log_level, problems.as_slice())
        else {
            return Err(InvalidSettings(problems));
        };
        Ok(Self {
            database,
            data_dir,
            postgres_bin,
            listen,
            public_urls,
            fhir_base_urls,
            insecure_no_auth,
            max_streams,
            max_streams_per_address,
            spare_connections: 0,
            client_timeout,
            on_bad_row,
            slot,
            publication,
            max_wal_held,
            retention_bytes,
            retention_age,
            log_format,
            log_level,
            origins,
        })
    }

    /// The same for a demo: a Postgres of its own whatever else is set, in a folder of its own, and quiet.
    pub(crate) fn of_a_demo(mut self) -> Result<Self, InvalidSettings> {
        if self.database.take().is_some() && self.origin("database-url") == Origin::Flag("database-url") {
            let message = "a demo runs on a Postgres of its own: leave this out, or use 'fhir-tail simulate' to have \
                           a clinic write to that database";
            return Err(InvalidSettings(vec![Problem {
                origin: Origin::Flag("database-url"),
                message: message.to_owned(),
            }]));
        }
        self.data_dir.push("demo");
        if self.origin("log-level") == Origin::Default {
            "warn".clone_into(&mut self.log_level);
        }
        Ok(self)
    }

    /// What the journal keeps.
    pub(crate) fn retention(&self) -> Retention {
        Retention { bytes: self.retention_bytes.0, age: self.retention_age.as_duration() }
    }

    /// What is followed in this database, and by what names.
    pub(crate) fn followed(&self, database: Database) -> cdc::Settings {
        cdc::Settings {
            database,
            slot: self.slot.clone(),
            publication: self.publication.clone(),
            layout: Arc::new(Native::default()),
            max_wal_held: self.max_wal_held.0,
            base_urls: self.base_urls(),
        }
    }

    /// Where the resources stand that an absolute reference can name.
    pub(crate) fn base_urls(&self) -> BaseUrls {
        let ours: Vec<String> = self.public_urls.iter().map(|url| format!("{url}/fhir")).collect();
        BaseUrls::new(ours.iter().chain(&self.fhir_base_urls).map(String::as_str))
    }

    /// How many streams an address may have that is not of this machine.
    pub(crate) fn max_streams_per_address(&self) -> usize {
        self.max_streams_per_address.unwrap_or_else(|| self.max_streams.div_ceil(2))
    }

    /// Whether somebody said what a setting is to be.
    pub(crate) fn is_given(&self, key: &str) -> bool {
        self.origin(key) != Origin::Default
    }

    /// Why a setting cannot be used, which was found out later than it was read.
    pub(crate) fn refused(&self, key: &'static str, message: String) -> InvalidSettings {
        let origin = Some(self.origin(key)).filter(|origin| *origin != Origin::Default);
        InvalidSettings(vec![Problem { origin: origin.unwrap_or(Origin::Argument(key)), message }])
    }

    /// Where the value of a setting came from.
    fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// The file that was named, or the one in the usual place if it is there.
fn read_file(layers: &mut Layers<'_>, named: Option<PathBuf>, environment: &Environment) {
    let (path, origin) = match named {
        Some(path) => (path, Some(Origin::Flag("config"))),
        None => match environment.get("FHIR_TAIL_CONFIG").filter(|path| !path.is_empty()) {
            Some(path) => (PathBuf::from(path), Some(Origin::Variable("FHIR_TAIL_CONFIG".to_owned()))),
            None => match values::usual_config_file(environment) {
                Some(path) => (path, None),
                None => return,
            },
        },
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => layers.set_file(&path, &text),
        // Only a file that nobody asked for may be missing.
        Err(error) if origin.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            let origin = origin.unwrap_or_else(|| Origin::File(path.clone(), "file".to_owned()));
            layers.problem(origin, format!("{} cannot be read: {error}", path.display()));
        }
    }
}

/// The flags that were given, by name.
fn flags(common: CommonOptions, serve: ServeOptions) -> BTreeMap<&'static str, Vec<String>> {
    let single = [
        ("database-url", common.database_url),
        ("data-dir", common.data_dir),
        ("postgres-bin", common.postgres_bin),
        ("log-format", common.log_format),
        ("log-level", common.log_level),
        ("insecure-no-auth", serve.insecure_no_auth),
        ("max-streams", serve.max_streams),
        ("max-streams-per-address", serve.max_streams_per_address),
        ("client-timeout", serve.client_timeout),
        ("on-bad-row", serve.on_bad_row),
        ("slot", serve.follow.slot),
        ("publication", serve.follow.publication),
        ("max-wal-held", serve.follow.max_wal_held),
        ("retention-bytes", serve.follow.retention_bytes),
        ("retention-age", serve.follow.retention_age),
    ];
    let lists =
        [("listen", serve.listen), ("public-url", serve.public_url), ("fhir-base-url", serve.fhir_base_url)];
    single
        .into_iter()
        .filter_map(|(name, value)| Some((name, vec![value?])))
        .chain(lists.into_iter().filter(|(_, values)| !values.is_empty()))
        .collect()
}

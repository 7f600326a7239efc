//! A Postgres of the tests' own: made once, each test with a database of its own in it.
//!
//! `FHIR_TAIL_TEST_POSTGRES_BIN` names the folder of the server's programs (the first, if there are several with
//! colons between); else the newest of Debian's is taken.

use cdc::layout::native;
use pg::Database;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;
use tokio_postgres::Client;

/// A running server. Stopped when the test process ends: see [`Cluster::start`].
pub(crate) struct Cluster {
    directory: TempDir,
    _server: Child,
}

/// The folder of the server's programs.
fn programs() -> PathBuf {
    if let Ok(folders) = std::env::var("FHIR_TAIL_TEST_POSTGRES_BIN") {
        let first = folders.split(':').find(|folder| !folder.is_empty());
        return first.expect("FHIR_TAIL_TEST_POSTGRES_BIN names a folder").into();
    }
    let installed = std::fs::read_dir("/usr/lib/postgresql").expect("a Postgres under /usr/lib/postgresql");
    let mut versions: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    versions.pop().expect("a version of Postgres").1
}

/// The user to run the server as, when we are root, which it refuses to run as.
fn unprivileged() -> Option<(u32, u32)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let user = ["postgres", "nobody"].into_iter().find_map(|name| nix::unistd::User::from_name(name).ok()?);
    let user = user.expect("a user postgres or nobody");
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    command
}

impl Cluster {
    /// The server that the tests of this process share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let programs = programs();
        let directory = tempfile::Builder::new().prefix("fhir-tail-tables").tempdir().unwrap();
        if let Some((uid, gid)) = unprivileged() {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = directory.path().join("data");
        let made = command(&programs.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        // A shell stands between: it stops the server when our end of its input is closed, however this process
        // ends. A static is never dropped, and a test that panics must not leave a server behind.
        let script = "\"$0\" \"$@\" & server=$!; read -r _; kill -INT $server; wait $server; rm -rf \"$PWD\"";
        let server = command(Path::new("/bin/sh"))
            .args(["-c", script])
            .arg(programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(directory.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "wal_level=logical"])
            .args(["-c", "max_prepared_transactions=5", "-c", "max_connections=200"])
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { directory, _server: server }
    }

    fn url(&self, user: &str, database: &str) -> String {
        format!("host={} user={user} dbname={database}", self.directory.path().display())
    }

    /// A database with the layout in it.
    pub(crate) async fn migrated(&'static self) -> TestDatabase {
        let database = self.empty().await;
        native::migrate(&mut database.client().await).await.unwrap();
        database
    }

    /// A database with nothing in it.
    pub(crate) async fn empty(&'static self) -> TestDatabase {
        self.named("").await
    }

    async fn named(&'static self, options: &str) -> TestDatabase {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = self.connect_when_up().await;
        admin.batch_execute(&format!("create database {name} {options}")).await.unwrap();
        TestDatabase { cluster: self, name }
    }

    /// A database of this encoding with the layout in it.
    pub(crate) async fn of_encoding(&'static self, encoding: &str) -> TestDatabase {
        let database = self.named(&format!("encoding '{encoding}' template template0")).await;
        native::migrate(&mut database.client().await).await.unwrap();
        database
    }

    async fn connect_when_up(&self) -> Client {
        let database = Database::parse(&self.url("postgres", "postgres")).unwrap();
        let begun = tokio::time::Instant::now();
        loop {
            match database.connect("test").await {
                Ok(client) => return client,
                Err(error) if begun.elapsed().as_secs() > 60 => panic!("the server does not start: {error}"),
                // Until the socket is there; there is nothing to wait on.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }
}

/// A database of a test's own.
pub(crate) struct TestDatabase {
    cluster: &'static Cluster,
    pub(crate) name: String,
}

impl TestDatabase {
    /// Where it is, as the service's role would be told.
    pub(crate) fn database(&self, user: &str) -> Database {
        Database::parse(&self.cluster.url(user, &self.name)).unwrap()
    }

    /// What the service follows here.
    pub(crate) fn settings(&self, user: &str) -> cdc::Settings {
        cdc::Settings {
            database: self.database(user),
            slot: "fhir_tail".parse().unwrap(),
            publication: "fhir_tail".into(),
            layout: std::sync::Arc::new(native::Native::default()),
            max_wal_held: 1 << 30,
            base_urls: fhir::BaseUrls::new(["https://ehr.example/fhir"]),
        }
    }

    /// A connection of the owner's.
    pub(crate) async fn client(&self) -> Client {
        self.database("postgres").connect("test").await.unwrap()
    }
}

impl Cluster {
    /// As the tests want it: [`Cluster::shared`], `'static`, with the layout.
    pub(crate) async fn database() -> TestDatabase {
        Self::shared().migrated().await
    }
}

/// One number.
pub(crate) async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// One text, null as "null".
pub(crate) async fn text(client: &Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    row.get::<_, Option<String>>(0).unwrap_or_else(|| "null".into())
}

/// The server's error for a statement.
pub(crate) async fn refusal(client: &Client, sql: &str) -> tokio_postgres::error::DbError {
    match client.batch_execute(sql).await {
        Ok(()) => panic!("'{sql}' was not refused"),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).clone(),
    }
}

//! A server of a test's own.

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User, chown, geteuid};
use pg::Database;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::eventually;

/// A server of a test's own; it ends with the test.
pub(crate) struct Cluster {
    pub(crate) directory: TempDir,
    pub(crate) port: u16,
    bin: PathBuf,
    server: Option<Child>,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    Fast,
    Immediate,
}

/// The folders of server binaries, one for each version.
pub(crate) fn versions() -> Vec<PathBuf> {
    let named = std::env::var("FHIR_TAIL_TEST_POSTGRES_BIN").unwrap_or_default();
    let mut bins: Vec<PathBuf> = named.split(':').filter(|bin| !bin.is_empty()).map(PathBuf::from).collect();
    if bins.is_empty() {
        let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        bins = folders.map(|folder| folder.path().join("bin")).collect();
    }
    bins.retain(|bin| bin.join("initdb").exists());
    assert!(
        !bins.is_empty(),
        "no Postgres: set FHIR_TAIL_TEST_POSTGRES_BIN to a folder with initdb and postgres"
    );
    bins
}

/// Postgres refuses to run as root.
fn unprivileged() -> Option<(Uid, Gid)> {
    if !geteuid().is_root() {
        return None;
    }
    let user = User::from_name("postgres").unwrap().or_else(|| User::from_name("nobody").unwrap()).unwrap();
    Some((user.uid, user.gid))
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command.current_dir("/");
    command
}

impl Cluster {
    /// A server with logical decoding, a role `ann` and a table, listening where nobody else does.
    pub(crate) async fn start(bin: &Path) -> Self {
        Self::start_with(bin, &[]).await
    }

    /// The same with settings of the test's own.
    pub(crate) async fn start_with(bin: &Path, settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("cdc-test-").tempdir().unwrap();
        if let Some((uid, gid)) = unprivileged() {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = directory.path().join("data");
        let output = command(&bin.join("initdb"))
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let configuration = [
            "fsync = off",
            "wal_level = logical",
            "log_min_messages = warning",
            "listen_addresses = '127.0.0.1'",
            "max_wal_senders = 4",
            "max_replication_slots = 4",
            "shared_buffers = 16MB",
        ];
        let mut text = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
        for line in configuration.iter().chain(settings) {
            text.push_str(line);
            text.push('\n');
        }
        std::fs::write(data.join("postgresql.conf"), text).unwrap();
        let mut cluster = Self { directory, port: 0, bin: bin.to_owned(), server: None };
        cluster.run().await;
        let client = cluster.client().await;
        client
            .batch_execute(
                "create role ann login superuser; \
                 create schema t; \
                 create table t.doc (id int primary key, body text); \
                 alter table t.doc replica identity full; \
                 create table t.other (id int)",
            )
            .await
            .unwrap();
        cluster
    }

    /// Starts the server, on a new port if its own is taken.
    pub(crate) async fn run(&mut self) {
        for _ in 0..5 {
            if self.port == 0 {
                self.port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            }
            let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
            let server = command(&self.bin.join("postgres"))
                .arg("-D")
                .arg(self.directory.path().join("data"))
                .arg("-k")
                .arg(self.directory.path())
                .args(["-p", &self.port.to_string()])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            self.server = Some(server);
            let answers = eventually("the server", || async {
                if self.database().connect("test").await.is_ok() {
                    return Some(true);
                }
                self.has_ended().then_some(false)
            });
            if answers.await {
                return;
            }
            self.server = None;
            self.port = 0;
        }
        panic!("the server does not start; see {}", self.directory.path().join("log").display());
    }

    /// Starts the server where it takes no writes yet.
    pub(crate) async fn run_as_standby(&mut self) {
        self.run().await;
        let row = self.client().await.query_one("select pg_is_in_recovery()", &[]).await.unwrap();
        assert!(row.get::<_, bool>(0));
    }

    /// Makes a standby a primary, with a timeline of its own.
    pub(crate) async fn promote(&self) {
        self.client().await.execute("select pg_promote()", &[]).await.unwrap();
    }

    fn has_ended(&self) -> bool {
        let pid = Pid::from_raw(self.server.as_ref().unwrap().id().try_into().unwrap());
        // A child that ended is a zombie until it is waited for.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    }

    /// Stops the server and waits for its end, which nobody may keep from coming.
    pub(crate) async fn stop(&mut self, how: Stop) {
        let Some(mut server) = self.server.take() else { return };
        let signal = match how {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
        };
        kill(Pid::from_raw(server.id().try_into().unwrap()), signal).unwrap();
        eventually("the end of the server", || {
            let ended = server.try_wait().unwrap();
            async move { ended }
        })
        .await;
    }

    /// By the Unix socket, where everybody is trusted.
    pub(crate) fn url(&self) -> String {
        format!("postgres://ann@{}/postgres", self.unix())
    }

    /// The Unix socket as the host of a URL.
    pub(crate) fn unix(&self) -> String {
        format!("{}:{}", self.directory.path().display().to_string().replace('/', "%2F"), self.port)
    }

    fn database(&self) -> Database {
        database(&format!("postgres://postgres@{}/postgres", self.unix()))
    }

    /// A connection of the superuser's.
    pub(crate) async fn client(&self) -> Client {
        self.database().connect("test").await.unwrap()
    }

    /// Gives a file to the server's user, where the data is.
    pub(crate) fn install(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.directory.path().join("data").join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = unprivileged() {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
    }
}

/// A database that takes nothing from the environment.
pub(crate) fn database(url: &str) -> Database {
    Database::parse_with(url, &|_| None).unwrap()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            if let Ok(pid) = server.id().try_into() {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGQUIT);
            }
            let _status = server.wait();
        }
    }
}

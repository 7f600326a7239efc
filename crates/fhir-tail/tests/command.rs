//! The command as it is run: what it prints, how it ends, and that it stands up again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers are test code too")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// The command with nothing in its environment but a home without settings.
fn fhir_tail(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fhir-tail"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // The first server of those that the tests are given.
    if let Some(bin) = std::env::var_os("FHIR_TAIL_TEST_POSTGRES_BIN") {
        command.env("FHIR_TAIL_POSTGRES_BIN", std::env::split_paths(&bin).next().unwrap());
    }
    command
}

fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = fhir_tail(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A running service.
struct Service {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
    psql: String,
}

impl Service {
    fn start(data_dir: &Path) -> Self {
        let mut child = fhir_tail(&["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = |prefix: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let rest = line.strip_prefix(prefix).unwrap_or_else(|| panic!("{prefix} expected, got {line:?}"));
            rest.trim_end().to_owned()
        };
        let url = line("listening on http://");
        let address = url.strip_suffix("/fhir").unwrap().to_owned();
        let psql = line("psql: ");
        Self { child, stdout, address, psql }
    }

    fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the end; gives the exit code and the rest of what it printed.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

/// A test that failed leaves nothing behind.
impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGTERM);
            // Nobody is left to tell.
            let _ = self.child.wait();
        }
    }
}

/// A place that the user of the embedded Postgres may pass through.
fn home() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap()
}

#[test]
fn a_wrong_command_line_and_wrong_settings_end_with_2() {
    let (code, _, stderr) = output(&["serve", "--no-such-flag"]);
    assert_eq!(code, Some(2), "{stderr}");
    let (code, _, stderr) = output(&["serve", "--slot", "NO", "--max-streams", "none"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--slot: ") && stderr.contains("--max-streams: "), "{stderr}");
    let (code, _, stderr) = output(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--insecure-no-auth"), "{stderr}");
}

#[test]
fn help_names_the_commands_and_the_variables() {
    let (code, stdout, _) = output(&["--help"]);
    assert_eq!(code, Some(0));
    for part in
        ["demo", "serve", "migrate", "load", "simulate", "sample", "FHIR_TAIL_DATA_DIR", "--database-url"]
    {
        assert!(stdout.contains(part), "{part} in {stdout}");
    }
}

#[test]
fn the_settings_in_effect_are_printed_without_passwords() {
    let url = "postgres://me:hunter2@db.example/fhir?sslmode=verify-full&sslrootcert=system";
    let (code, stdout, stderr) = output(&["serve", "--check-config", "--database-url", url]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("me@db.example"), "{stdout}");
    assert!(!stdout.contains("hunter2") && !stderr.contains("hunter2"), "{stdout}{stderr}");
}

#[test]
fn sample_data_is_the_same_for_the_same_seed_and_day() {
    let arguments = ["sample", "--patients", "3", "--seed", "7", "--as-of", "2026-11-25"];
    let (code, first, stderr) = output(&arguments);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(output(&arguments).1, first);
    assert!(first.lines().count() > 50 && first.lines().all(|line| line.starts_with("{\"resourceType\":\"")));
    let (code, _, stderr) = output(&["sample", "--as-of", "yesterday"]);
    assert!(code == Some(2) && stderr.contains("yesterday"), "{stderr}");
}

#[test]
fn a_demo_does_not_touch_a_database_of_yours() {
    let (code, _, stderr) = output(&["demo", "--database-url", "postgres://me@db.example/fhir"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--database-url") && stderr.contains("fhir-tail simulate"), "{stderr}");
}

#[test]
fn without_a_postgres_it_says_how_to_get_one() {
    let home = home();
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = fhir_tail(&["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(home.path().join("data"))
        .env("FHIR_TAIL_POSTGRES_BIN", &empty)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot be used"), "{stderr}");
}

#[test]
fn it_serves_from_its_own_postgres_and_stops_cleanly() {
    let home = home();
    let data_dir = home.path().join("data");
    let service = Service::start(&data_dir);
    assert!(service.get("/health/live").starts_with("HTTP/1.1 200"));
    assert!(service.get("/metrics").contains("fhir_tail_"));
    assert!(service.psql.starts_with("postgres://postgres@/fhir?host="), "{}", service.psql);

    // A second one stands by, and says for whom.
    let mut second = fhir_tail(&["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data_dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(second.stderr.take().unwrap());
    let told = told.lines().map(Result::unwrap).find(|line| line.contains("standing by")).unwrap();
    assert!(told.contains(&format!("process {}", service.child.id())), "{told}");
    kill(Pid::from_raw(second.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(0));

    // A command beside it finds the database that it runs.
    let migrate = fhir_tail(&["migrate", "--data-dir"]).arg(&data_dir).output().unwrap();
    let said = String::from_utf8(migrate.stdout).unwrap();
    assert!(migrate.status.success() && said.starts_with("nothing to do"), "{said}");

    let psql = service.psql.clone();
    service.signal(Signal::SIGTERM);
    assert_eq!(service.end(), (Some(0), String::new()));
    assert!(!data_dir.join("postgres/data/postmaster.pid").exists());

    let service = Service::start(&data_dir);
    assert_eq!(service.psql, psql);
    service.signal(Signal::SIGINT);
    assert_eq!(service.end().0, Some(0));
}

#[test]
fn it_stands_up_again_after_a_kill() {
    let home = home();
    let data_dir = home.path().join("data");
    let mut service = Service::start(&data_dir);
    let psql = service.psql.clone();
    service.signal(Signal::SIGKILL);
    service.child.wait().unwrap();
    assert!(data_dir.join("postgres/data/postmaster.pid").exists());

    let service = Service::start(&data_dir);
    assert_eq!(service.psql, psql);
    assert!(service.get("/health/live").starts_with("HTTP/1.1 200"));
    service.signal(Signal::SIGTERM);
    assert_eq!(service.end().0, Some(0));
}

#[test]
fn migrate_works_on_a_postgres_that_nobody_runs() {
    let home = home();
    let data_dir = home.path().join("data");
    let first = fhir_tail(&["migrate", "--data-dir"]).arg(&data_dir).output().unwrap();
    let said = String::from_utf8(first.stdout).unwrap();
    assert!(first.status.success() && said.starts_with("applied 0001_"), "{said}");
    let again = fhir_tail(&["migrate", "--data-dir"]).arg(&data_dir).output().unwrap();
    let said = String::from_utf8(again.stdout).unwrap();
    assert!(again.status.success() && said.starts_with("nothing to do"), "{said}");
    assert!(!data_dir.join("postgres/data/postmaster.pid").exists());
}

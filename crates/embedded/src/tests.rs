//! The life of an embedded Postgres, on the servers of this machine.

use super::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// The servers that the tests run against: those named, or the first that is found.
fn searches() -> Vec<Search> {
    match std::env::var_os("FHIR_TAIL_TEST_POSTGRES_BIN") {
        Some(folders) => std::env::split_paths(&folders)
            .map(|folder| Search { named: Some(folder), folders: Vec::new() })
            .collect(),
        None => vec![Search::of_this_machine(None, std::env::var_os("PATH").as_ref())],
    }
}

/// A place that the user of the embedded Postgres may pass through, as a home directory is not.
fn home() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// Makes a data directory as the command does: its owner alone may enter.
fn folder(path: impl Into<PathBuf>) -> PathBuf {
    let path = path.into();
    std::fs::create_dir_all(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// The first of them: for what does not depend on the version.
fn search() -> Search {
    searches().remove(0)
}

async fn ask(database: &Database, query: &str) -> String {
    let client = database.connect("test").await.unwrap();
    client.query_one(query, &[]).await.unwrap().get(0)
}

fn pid_of(data_dir: &Path) -> u32 {
    let text = std::fs::read_to_string(data_dir.join("postgres/data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn it_is_made_once_keeps_what_it_holds_and_is_stopped() {
    for search in searches() {
        let home = home();
        let path = home.path().join("data");
        let data_dir = folder(&path);
        assert!(running(&path).await.unwrap().is_none());

        let embedded = Embedded::start(&data_dir, &search).await.unwrap();
        let database = embedded.administrator().unwrap();
        assert_eq!(ask(&database, "show wal_level").await, "logical");
        assert_eq!(ask(&database, "show server_encoding").await, "UTF8");
        assert_eq!(
            ask(&database, "select datcollate::text from pg_database where datname = 'fhir'").await,
            "C"
        );
        assert_eq!(ask(&database, "show listen_addresses").await, "127.0.0.1");
        let client = database.connect("test").await.unwrap();
        client.batch_execute("create table kept as select 'x' as it").await.unwrap();
        drop(client);
        assert!(running(&path).await.unwrap().is_some());

        // Over TCP with the password, and not without.
        let first = embedded.reach().clone();
        assert_eq!(ask(&Database::parse(&first.url).unwrap(), "select it from kept").await, "x");
        let wrong = first.url.replace(&first.password, "wrong");
        assert!(Database::parse(&wrong).unwrap().connect("test").await.is_err());
        assert_eq!(ask(&Database::parse(&first.psql_url()).unwrap(), "select it from kept").await, "x");

        let root = nix::unistd::Uid::effective().is_root();
        assert_eq!(mode(path.clone()), if root { 0o711 } else { 0o700 });
        assert_eq!(mode(path.join("postgres")), 0o700);
        assert_eq!(mode(path.join("postgres/data")), 0o700);
        assert_eq!(mode(path.join("embedded.toml")), 0o600);
        assert_eq!(mode(path.join("postgres.log")), 0o600);
        embedded.stop().await.unwrap();
        assert!(running(&path).await.unwrap().is_none());
        assert!(!path.join("postgres/data/postmaster.pid").exists());

        let embedded = Embedded::start(&data_dir, &search).await.unwrap();
        assert_eq!(embedded.reach().password, first.password);
        let database = embedded.administrator().unwrap();
        assert_eq!(ask(&database, "select it from kept").await, "x");
        embedded.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_we_left_behind_is_stopped_first() {
    for search in searches() {
        let home = home();
        let data_dir = folder(home.path().join("data"));
        let embedded = Embedded::start(&data_dir, &search).await.unwrap();
        let (left, port) = (pid_of(&data_dir), embedded.reach().port);
        let client = embedded.administrator().unwrap().connect("test").await.unwrap();
        client.batch_execute("create table kept as select 'x' as it").await.unwrap();
        // What a kill -9 of ours is to the server: nothing is told to it, and nobody waits for it.
        std::mem::forget(embedded);

        let embedded = Embedded::start(&data_dir, &search).await.unwrap();
        assert_ne!(pid_of(&data_dir), left);
        assert_eq!(embedded.reach().port, port);
        assert_eq!(ask(&embedded.administrator().unwrap(), "select it from kept").await, "x");
        embedded.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_server_is_noticed_and_recovers() {
    for search in searches() {
        let home = home();
        let data_dir = folder(home.path().join("data"));
        let mut embedded = Embedded::start(&data_dir, &search).await.unwrap();
        let client = embedded.administrator().unwrap().connect("test").await.unwrap();
        client.batch_execute("create table kept as select 'x' as it").await.unwrap();
        kill(Pid::from_raw(pid_of(&data_dir).try_into().unwrap()), Signal::SIGKILL).unwrap();
        let ended = embedded.ended().await.to_string();
        assert!(ended.contains("ended by itself"), "{ended}");
        drop(embedded);

        // Its file is still there and names a process that is gone.
        assert!(data_dir.join("postgres/data/postmaster.pid").exists());
        let embedded = Embedded::start(&data_dir, &search).await.unwrap();
        assert_eq!(ask(&embedded.administrator().unwrap(), "select it from kept").await, "x");
        embedded.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_port_that_was_taken_meanwhile_is_given_up() {
    let search = search();
    let home = home();
    let data_dir = folder(home.path().join("data"));
    let embedded = Embedded::start(&data_dir, &search).await.unwrap();
    let port = embedded.reach().port;
    embedded.stop().await.unwrap();

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let embedded = Embedded::start(&data_dir, &search).await.unwrap();
    assert_ne!(embedded.reach().port, port);
    let other = embedded.reach().url.clone();
    assert_eq!(ask(&Database::parse(&other).unwrap(), "select 'x'").await, "x");
    drop(taken);
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn an_unfinished_cluster_is_made_again() {
    let search = search();
    let home = home();
    let data_dir = folder(home.path().join("data"));
    let unfinished = data_dir.join("postgres/data.unfinished");
    std::fs::create_dir_all(unfinished.join("base")).unwrap();
    let embedded = Embedded::start(&data_dir, &search).await.unwrap();
    assert!(!unfinished.exists());
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_works() {
    let search = search();
    let home = home();
    let data_dir = folder(home.path().join("long, \"odd\" and 'quoted' ".repeat(4)));
    let embedded = Embedded::start(&data_dir, &search).await.unwrap();
    assert!(embedded.reach().socket.starts_with("/tmp"));
    assert_eq!(ask(&embedded.administrator().unwrap(), "select 'x'").await, "x");
    let socket = embedded.reach().socket.clone();
    embedded.stop().await.unwrap();
    std::fs::remove_dir_all(socket).unwrap();
}

#[tokio::test]
async fn what_the_server_says_when_it_does_not_start_is_told() {
    let search = search();
    let home = home();
    let data_dir = folder(home.path().join("data"));
    Embedded::start(&data_dir, &search).await.unwrap().stop().await.unwrap();
    let conf = data_dir.join("postgres/data/postgresql.conf");
    let mut text = std::fs::read_to_string(&conf).unwrap();
    text.push_str("\nno_such_setting = 1\n");
    std::fs::write(&conf, text).unwrap();
    let error = Embedded::start(&data_dir, &search).await.err().unwrap();
    assert!(format!("{error:#}").contains("no_such_setting"), "{error:#}");
}

#[tokio::test]
async fn no_server_says_how_to_get_one() {
    let home = home();
    let data_dir = folder(home.path().join("data"));
    let error = Embedded::start(&data_dir, &Search::default()).await.err().unwrap().to_string();
    assert!(error.contains("Get one with"), "{error}");
}

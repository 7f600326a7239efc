//! Precedence, bad values, and all problems in one report.

use super::*;
use std::path::Path;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A home that has no configuration file.
fn nobody() -> Environment {
    environment(&[("HOME", "/nonexistent")])
}

fn listening(settings: &Settings) -> Vec<String> {
    settings.listen.iter().map(ToString::to_string).collect()
}

fn public(settings: &Settings) -> Vec<String> {
    settings.public_urls.iter().map(ToString::to_string).collect()
}

fn with_file(text: &str) -> (tempfile::NamedTempFile, CommonOptions) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let common = CommonOptions { config: Some(file.path().to_owned()), ..CommonOptions::default() };
    (file, common)
}

fn read(common: CommonOptions, serve: ServeOptions, environment: &Environment) -> Settings {
    Settings::read(common, serve, environment, false).unwrap()
}

fn problems(common: CommonOptions, serve: ServeOptions, environment: &Environment) -> Vec<String> {
    let invalid = Settings::read(common, serve, environment, false).err().expect("the settings are wrong");
    invalid.0.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_said_is_safe() {
    let settings = read(CommonOptions::default(), ServeOptions::default(), &nobody());
    assert!(settings.database.is_none());
    assert_eq!(listening(&settings), ["127.0.0.1:8080"]);
    assert!(!settings.insecure_no_auth);
    assert_eq!(settings.data_dir, Path::new("/nonexistent/.local/share/fhir-tail"));
    assert_eq!(settings.slot.as_str(), "fhir_tail");
    assert_eq!(settings.publication, "fhir_tail");
    assert_eq!(settings.retention_age.to_string(), "7d");
    assert_eq!(settings.retention_bytes.to_string(), "10GiB");
    assert_eq!(settings.max_streams, 20_000);
    assert_eq!(settings.on_bad_row, OnBadRow::Skip);
}

#[test]
fn a_demo_has_a_folder_and_a_database_of_its_own() {
    let mut environment = nobody();
    environment.insert("DATABASE_URL".to_owned(), "postgres://me@db.example/fhir".to_owned());
    let demo = read(CommonOptions::default(), ServeOptions::default(), &environment).of_a_demo().unwrap();
    assert!(demo.database.is_none());
    assert_eq!(demo.data_dir, Path::new("/nonexistent/.local/share/fhir-tail/demo"));
    assert_eq!(demo.log_level, "warn");

    let common = CommonOptions {
        database_url: Some("postgres://me@db.example/fhir".to_owned()),
        log_level: Some("debug".to_owned()),
        ..CommonOptions::default()
    };
    let refusal = read(common, ServeOptions::default(), &environment).of_a_demo().err().unwrap();
    assert!(refusal.to_string().contains("fhir-tail simulate"), "{refusal}");
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let (_file, mut common) = with_file("slot = 'file'\npublication = 'file'\nretention-age = '3d'\n");
    common.data_dir = Some("/flag".to_owned());
    let mut environment = nobody();
    for (name, value) in [("SLOT", "variable"), ("PUBLICATION", "variable"), ("DATA_DIR", "/variable")] {
        environment.insert(format!("FHIR_TAIL_{name}"), value.to_owned());
    }
    let serve = ServeOptions {
        follow: FollowOptions { slot: Some("flag".to_owned()), ..FollowOptions::default() },
        ..ServeOptions::default()
    };
    let settings = read(common, serve, &environment);
    assert_eq!(settings.slot.as_str(), "flag");
    assert_eq!(settings.publication, "variable");
    assert_eq!(settings.data_dir, Path::new("/flag"));
    assert_eq!(settings.retention_age, Age(3 * 86_400));
    assert_eq!(settings.origin("slot"), Origin::Flag("slot"));
    assert_eq!(settings.origin("publication"), Origin::Variable("FHIR_TAIL_PUBLICATION".to_owned()));
    assert!(matches!(settings.origin("retention-age"), Origin::File(_, key) if key == "retention-age"));
    assert_eq!(settings.origin("listen"), Origin::Default);
}

#[test]
fn an_empty_variable_is_not_set() {
    let mut environment = nobody();
    environment.insert("FHIR_TAIL_SLOT".to_owned(), String::new());
    environment.insert("DATABASE_URL".to_owned(), String::new());
    let settings = read(CommonOptions::default(), ServeOptions::default(), &environment);
    assert_eq!(settings.slot.as_str(), "fhir_tail");
    assert!(settings.database.is_none());
}

#[test]
fn the_file_takes_numbers_truth_and_lists() {
    let (_file, common) = with_file(
        "listen = '0.0.0.0:0'\ninsecure-no-auth = true\nmax-streams = 7\n\
         public-url = ['https://a.example', 'https://b.example/']\n\
         fhir-base-url = ['https://EHR.example/r4/', 'http://old.example']\n",
    );
    let settings = read(common, ServeOptions::default(), &nobody());
    assert!(settings.insecure_no_auth);
    assert_eq!(settings.max_streams, 7);
    assert_eq!(public(&settings), ["https://a.example", "https://b.example"]);
    let bases = settings.base_urls();
    for base in
        ["https://EHR.example/r4", "http://old.example", "https://a.example/fhir", "https://b.example/fhir"]
    {
        assert!(bases.resolve(&format!("{base}/Patient/1")).is_some(), "{base}");
    }
    assert!(bases.resolve("https://a.example/Patient/1").is_none());
}

#[test]
fn a_variable_holds_a_list_by_commas() {
    let mut environment = nobody();
    let urls = "https://a.example, https://b.example:8443,";
    environment.insert("FHIR_TAIL_PUBLIC_URL".to_owned(), urls.to_owned());
    let settings = read(CommonOptions::default(), ServeOptions::default(), &environment);
    assert_eq!(public(&settings), ["https://a.example", "https://b.example:8443"]);
}

#[test]
fn all_problems_are_reported_together_with_their_places() {
    let (file, mut common) = with_file("slott = 'x'\nretention-bytes = '10G'\nslot = { port = 1 }\n");
    common.log_level = Some("loud,,=".to_owned());
    let mut environment = nobody();
    environment.insert("FHIR_TAIL_MAX_STREAMS".to_owned(), "0".to_owned());
    let serve = ServeOptions {
        follow: FollowOptions { slot: Some("No-Slot".to_owned()), ..FollowOptions::default() },
        listen: vec!["8080".to_owned()],
        public_url: vec!["ftp://x".to_owned()],
        fhir_base_url: vec!["ehr.example/fhir".to_owned(), "https://x/?y".to_owned()],
        ..ServeOptions::default()
    };
    let found = problems(common, serve, &environment);
    let path = file.path().display();
    for beginning in [
        format!("{path}: slott: there is no such setting"),
        format!("{path}: retention-bytes: '10G' has an unknown unit"),
        format!("{path}: slot: must be text"),
        "--log-level: invalid log level 'loud,,='".to_owned(),
        "--slot: 'No-Slot' cannot name a replication slot".to_owned(),
        "--listen: '8080' is not an address with a port".to_owned(),
        "--public-url: 'ftp://x' is not a public URL".to_owned(),
        "--fhir-base-url: 'ehr.example/fhir' is not a FHIR base URL".to_owned(),
        "--fhir-base-url: 'https://x/?y' is not a FHIR base URL".to_owned(),
        "FHIR_TAIL_MAX_STREAMS: '0' is not a whole number above 0".to_owned(),
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(&beginning)), "{beginning}\nin {found:#?}");
    }
    assert_eq!(found.len(), 10, "{found:#?}");
}

#[test]
fn a_broken_file_is_named_by_line_and_not_quoted() {
    let (_file, common) = with_file("slot = 'x'\ndatabase-url = postgres://u:hunter2@h/d\n");
    let found = problems(common, ServeOptions::default(), &nobody());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("line 2 is not TOML"), "{found:#?}");
    assert!(!found[0].contains("hunter2"), "{found:#?}");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let common = CommonOptions { config: Some("/nonexistent/x.toml".into()), ..CommonOptions::default() };
    let found = problems(common, ServeOptions::default(), &nobody());
    assert!(found[0].starts_with("--config: /nonexistent/x.toml cannot be read"), "{found:#?}");
}

#[test]
fn the_usual_file_is_read_when_it_is_there() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("fhir-tail.toml"), "slot = 'usual'\n").unwrap();
    let environment =
        environment(&[("HOME", "/nonexistent"), ("XDG_CONFIG_HOME", home.path().to_str().unwrap())]);
    assert_eq!(read(CommonOptions::default(), ServeOptions::default(), &environment).slot.as_str(), "usual");
}

#[test]
fn beyond_loopback_only_for_those_who_mean_it() {
    for address in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "[::ffff:10.0.0.1]:8080"] {
        let serve = || ServeOptions { listen: vec![address.to_owned()], ..ServeOptions::default() };
        let found = problems(CommonOptions::default(), serve(), &nobody());
        assert!(found[0].contains("--insecure-no-auth"), "{found:#?}");
        let meant = ServeOptions { insecure_no_auth: Some("true".to_owned()), ..serve() };
        assert_eq!(listening(&read(CommonOptions::default(), meant, &nobody())), [address]);
    }
    for address in ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.8.8.8:0", "[::ffff:127.0.0.1]:1"] {
        let serve = ServeOptions { listen: vec![address.to_owned()], ..ServeOptions::default() };
        let listen = read(CommonOptions::default(), serve, &nobody()).listen;
        assert!(sse_api::is_loopback(listen[0].ip()), "{address}");
    }
}

#[test]
fn without_a_home_the_data_directory_must_be_named() {
    let found = problems(CommonOptions::default(), ServeOptions::default(), &Environment::new());
    assert_eq!(found, ["--data-dir: there is no home directory to put it in: say where"]);
    let root = Settings::read(CommonOptions::default(), ServeOptions::default(), &Environment::new(), true);
    assert_eq!(root.unwrap().data_dir, Path::new("/var/lib/fhir-tail"));
}

#[test]
fn a_url_of_our_own_name_wins_and_its_password_stays_inside() {
    let mut environment = nobody();
    environment.insert("DATABASE_URL".to_owned(), "postgres://theirs:hunter2@db.example/x".to_owned());
    let settings = read(CommonOptions::default(), ServeOptions::default(), &environment);
    assert!(settings.effective().contains("theirs"), "{}", settings.effective());
    assert_eq!(settings.origin("database-url"), Origin::Variable("DATABASE_URL".to_owned()));
    assert!(!settings.effective().contains("hunter2"), "{}", settings.effective());

    let ours = "postgres://ours:hunter2@db.example/x".to_owned();
    environment.insert("FHIR_TAIL_DATABASE_URL".to_owned(), ours);
    let settings = read(CommonOptions::default(), ServeOptions::default(), &environment);
    assert!(settings.effective().contains("ours"), "{}", settings.effective());
    assert!(!settings.effective().contains("hunter2"), "{}", settings.effective());
}

#[test]
fn a_bad_url_is_a_problem_that_keeps_the_password() {
    let common = CommonOptions {
        database_url: Some("postgres://u:hunter2@h/d?sslmode=sometimes".to_owned()),
        ..CommonOptions::default()
    };
    let found = problems(common, ServeOptions::default(), &nobody());
    assert!(found[0].starts_with("--database-url: "), "{found:#?}");
    assert!(!found[0].contains("hunter2"), "{found:#?}");
}

#[test]
fn what_is_printed_can_be_given_back() {
    let serve = ServeOptions {
        follow: FollowOptions { retention_bytes: Some("3GiB".to_owned()), ..FollowOptions::default() },
        public_url: vec!["https://a.example".to_owned()],
        fhir_base_url: vec!["https://EHR.example/r4".to_owned()],
        ..ServeOptions::default()
    };
    let first = read(CommonOptions::default(), serve, &nobody()).effective();
    let (_file, common) = with_file(&first);
    let second = read(common, ServeOptions::default(), &nobody()).effective();
    let values = |text: &str| {
        text.lines().map(|line| line.split("  #").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values(&first), values(&second));
    assert!(first.contains("retention-bytes = \"3GiB\"  # --retention-bytes"), "{first}");
}

#[test]
fn about_a_bad_row_there_are_two_things_to_do() {
    let serve =
        |policy: &str| ServeOptions { on_bad_row: Some(policy.to_owned()), ..ServeOptions::default() };
    assert_eq!(read(CommonOptions::default(), serve("stop"), &nobody()).on_bad_row, OnBadRow::Stop);
    let found = problems(CommonOptions::default(), serve("halt"), &nobody());
    assert_eq!(found, ["--on-bad-row: 'halt' is nothing to do about a bad row: use skip or stop"]);
}

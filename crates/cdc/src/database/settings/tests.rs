use super::*;
use crate::Database;
use proptest::prelude::*;

fn database(url: &str) -> Result<Database, InvalidDatabaseUrl> {
    Database::parse_with(url, &|name| (name == "PGUSER").then(|| "someone".to_owned()))
}

fn settings(url: &str) -> Settings {
    read(url, &|name| (name == "PGUSER").then(|| "someone".to_owned())).unwrap()
}

#[test]
fn reads_urls_and_keywords_alike() {
    for (text, described) in [
        ("postgres://ann@db.example:5433/fhir", "postgres://ann@db.example:5433/fhir"),
        ("postgresql://ann:p%40ss@db.example/fhir?sslmode=require", "postgres://ann@db.example:5432/fhir"),
        ("postgres://ann:what?@db/fhir?application_name=x&sslmode=disable", "postgres://ann@db:5432/fhir"),
        ("host=db.example port=5433 user=ann dbname=fhir", "postgres://ann@db.example:5433/fhir"),
        (r"host = db user='a\'n n' dbname=f\ h sslmode='disable'", "postgres://a'n n@db:5432/f h"),
        ("postgres:///fhir?host=/run/pg&port=5433", "postgres://someone@[/run/pg]:5433/fhir"),
        ("postgres://ann@%2Frun%2Fpg/fhir", "postgres://ann@[/run/pg]:5432/fhir"),
        ("postgres://ann@[::1]:5/fhir", "postgres://ann@[::1]:5/fhir"),
        ("postgres://ann@a:1,b:2/fhir", "postgres://ann@a:1/fhir"),
    ] {
        assert_eq!(database(text).unwrap().describe(), described, "{text}");
    }
}

#[test]
fn what_is_left_out_comes_from_the_environment() {
    let environment = |name: &str| {
        Some(
            match name {
                "PGHOST" => "db",
                "PGPORT" => "99",
                "PGUSER" => "ann",
                "PGPASSWORD" => "secret",
                "PGSSLMODE" => "require",
                _ => return None,
            }
            .to_owned(),
        )
    };
    let settings = read("postgres://", &environment).unwrap();
    assert_eq!(settings.endpoints[0].to_string(), "db:99");
    assert_eq!(settings.config.get_dbname(), Some("ann"));
    assert_eq!(settings.config.get_password(), Some(b"secret".as_slice()));
    assert!(matches!(settings.tls, TlsMode::Require(_)));
    let settings = read("postgres://eve:other@x:1/y?sslmode=disable", &environment).unwrap();
    assert_eq!(settings.config.get_password(), Some(b"other".as_slice()));
    assert_eq!(settings.endpoints[0].to_string(), "x:1");
    assert!(matches!(settings.tls, TlsMode::Disable));
}

#[test]
fn the_password_is_never_shown() {
    let database = database("postgres://ann:hunter2@db/fhir").unwrap();
    assert!(!format!("{database:?} {database}").contains("hunter2"));
    for bad in
        ["postgres://ann:hunter2@db/fhir?hunter2", "host=db password=hunter2 port=hunter2", "http://hunter2"]
    {
        let error = super::read(bad, &|_| None).err().unwrap();
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error}");
    }
}

#[test]
fn a_value_may_look_like_the_beginning_of_a_url() {
    let settings = settings("host=db user=ann password='s://cret' dbname=fhir");
    assert_eq!(settings.config.get_password(), Some(b"s://cret".as_slice()));
    assert_eq!(settings.config.get_dbname(), Some("fhir"));
    let error = database("mysql://ann@db/fhir?a=b").unwrap_err().to_string();
    assert!(error.contains("postgres://"), "{error}");
}

#[test]
fn the_password_file_is_read_if_nobody_else_can() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".pgpass");
    std::fs::write(&path, "db:5432:fhir:ann:from the file\n").unwrap();
    let read = || {
        let settings = read("postgres://ann@db/fhir", &|name| {
            (name == "HOME").then(|| home.path().to_string_lossy().into_owned())
        });
        settings.unwrap().config.get_password().map(<[u8]>::to_vec)
    };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(read(), None);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(read().as_deref(), Some(b"from the file".as_slice()));
}

#[test]
fn sslmode_means_what_libpq_says() {
    assert!(matches!(settings("postgres://db/x").tls, TlsMode::Prefer(_)));
    assert!(matches!(settings("host=db sslmode=disable").tls, TlsMode::Disable));
    assert!(matches!(settings("postgres://db/x?sslmode=require").tls, TlsMode::Require(_)));
    let error = |url| database(url).unwrap_err().to_string();
    assert!(error("postgres://db/x?sslmode=sometimes").contains("verify-full"));
    assert!(error("postgres://db/x?sslmode=verify-full").contains("sslrootcert"));
    assert!(error("postgres://db/x?sslmode=require&sslrootcert=system").contains("verify-full"));
    assert!(error("postgres://db/x?sslmode=verify-ca&sslrootcert=/no/such").contains("/no/such"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(postgres(ql)?://)?[a-z@:/?&='\\\\% ,\\[\\]é]{0,60}") {
        let _ = database(&text);
    }

    #[test]
    fn keyword_values_survive(user in "([^\0]|://|[='\\\\ ]){1,20}", dbname in "([^\0]|://|[='\\\\ ]){1,20}") {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let database =
            database(&format!("host=h user='{}' sslmode=disable dbname='{}'", quote(&user), quote(&dbname)));
        let database = database.unwrap();
        prop_assert_eq!(database.user(), user);
        prop_assert_eq!(database.dbname(), dbname);
    }
}

use super::*;
use crate::Database;
use proptest::prelude::*;

fn database(url: &str) -> Result<Database, InvalidDatabaseUrl> {
    Database::parse_with(url, &|name| (name == "PGUSER").then(|| "someone".to_owned()))
}

fn password(settings: &Settings) -> Option<String> {
    settings.password(&settings.endpoints[0])
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
        ("postgres://ann@a:1,b:2/fhir", "postgres://ann@a:1,b:2/fhir"),
        ("host=a,b,c port=1,,3 user=ann dbname=x", "postgres://ann@a:1,b:5432,c:3/x"),
        ("hostaddr=::1,10.0.0.1 user=ann dbname=x", "postgres://ann@[::1]:5432,10.0.0.1:5432/x"),
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
    assert_eq!(password(&settings).as_deref(), Some("secret"));
    assert!(matches!(settings.tls, TlsMode::Require(_)));
    let settings = read("postgres://eve:other@x:1/y?sslmode=disable", &environment).unwrap();
    assert_eq!(password(&settings).as_deref(), Some("other"));
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
    assert_eq!(password(&settings).as_deref(), Some("s://cret"));
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
        settings.unwrap()
    };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(password(&read()), None);
    assert!(read().warnings().iter().any(|warning| warning.contains("0600")));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(password(&read()).as_deref(), Some("from the file"));
    // For each host its own, and another file where one is named.
    let url = format!("host=db,other user=ann dbname=fhir passfile={}", home.path().join("mine").display());
    std::fs::write(home.path().join("mine"), "other:5432:fhir:ann:second\n*:*:*:*:first\n").unwrap();
    std::fs::set_permissions(home.path().join("mine"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = super::read(&url, &|_| None).unwrap();
    let passwords: Vec<_> = settings.endpoints.iter().map(|endpoint| settings.password(endpoint)).collect();
    assert_eq!(passwords, [Some("first".to_owned()), Some("second".to_owned())]);
}

#[test]
fn sslmode_means_what_libpq_says() {
    assert!(matches!(settings("postgres://db/x").tls, TlsMode::Prefer(_)));
    assert!(matches!(settings("host=db sslmode=disable").tls, TlsMode::Disable));
    assert!(matches!(settings("postgres://db/x?sslmode=require").tls, TlsMode::Require(_)));
    assert!(matches!(settings("postgres://db/x?sslmode=allow").tls, TlsMode::Allow(_)));
    let error = |url| database(url).unwrap_err().to_string();
    assert!(error("postgres://db/x?sslmode=sometimes").contains("verify-full"));
    assert!(error("postgres://db/x?sslmode=verify-full").contains("sslrootcert"));
    assert!(error("postgres://db/x?sslmode=require&sslrootcert=system").contains("verify-full"));
    assert!(error("postgres://db/x?sslmode=verify-ca&sslrootcert=/no/such").contains("/no/such"));
}

/// The keywords of libpq 17 and 18 (`PQconndefaults`), each with a value that libpq takes, and whether we do.
const LIBPQ: [(&str, &str, bool); 53] = [
    ("service", "", true),
    ("servicefile", "", true),
    ("user", "ann", true),
    ("password", "x", true),
    ("passfile", "/no/such", true),
    ("channel_binding", "require", true),
    ("connect_timeout", "3", true),
    ("dbname", "x", true),
    ("host", "db", true),
    ("hostaddr", "::1", true),
    ("port", "5433", true),
    ("client_encoding", "auto", true),
    ("options", "-c geqo=off", true),
    ("application_name", "x", true),
    ("fallback_application_name", "x", true),
    ("keepalives", "0", true),
    ("keepalives_idle", "5", true),
    ("keepalives_interval", "5", true),
    ("keepalives_count", "5", true),
    ("tcp_user_timeout", "5000", true),
    ("sslmode", "allow", true),
    ("sslnegotiation", "postgres", true),
    ("sslcompression", "1", true),
    ("sslcertmode", "allow", true),
    ("sslcertmode", "require", false),
    ("sslpassword", "x", false),
    ("sslcrl", "/x", false),
    ("sslcrldir", "/x", false),
    ("sslsni", "0", true),
    ("requirepeer", "postgres", true),
    ("require_auth", "scram-sha-256", false),
    ("min_protocol_version", "3.2", false),
    ("min_protocol_version", "3.0", true),
    ("max_protocol_version", "latest", true),
    ("ssl_min_protocol_version", "TLSv1.3", true),
    ("ssl_max_protocol_version", "TLSv1.2", true),
    ("ssl_max_protocol_version", "TLSv1.1", false),
    ("gssencmode", "prefer", true),
    ("gssencmode", "require", false),
    ("krbsrvname", "x", true),
    ("gsslib", "gssapi", true),
    ("gssdelegation", "1", true),
    ("replication", "database", false),
    ("target_session_attrs", "primary", true),
    ("target_session_attrs", "prefer-standby", false),
    ("load_balance_hosts", "random", true),
    ("scram_client_key", "x", false),
    ("scram_server_key", "x", false),
    ("sslkeylogfile", "/x", false),
    ("oauth_issuer", "x", false),
    ("oauth_client_id", "x", false),
    ("oauth_client_secret", "x", false),
    ("oauth_scope", "x", false),
];

#[test]
fn each_keyword_of_libpq_is_taken_or_refused_by_its_name() {
    // sslcert, sslkey and sslrootcert name files: see `client_certificate`.
    for keyword in KEYWORDS {
        let is_file = ["sslcert", "sslkey", "sslrootcert"].contains(&keyword.name);
        assert!(is_file || LIBPQ.iter().any(|(name, ..)| *name == keyword.name), "{}", keyword.name);
    }
    for (name, value, taken) in LIBPQ {
        match database(&format!("user=ann host=h {name}='{value}'")) {
            Ok(_) => assert!(taken, "{name}={value}"),
            Err(error) => assert!(!taken && error.to_string().contains(name), "{name}={value}: {error}"),
        }
    }
    let error = database("postgres://ann@db/x?colour=red").unwrap_err().to_string();
    assert!(error.contains("'colour'"), "{error}");
    // One of the environment is named as what it is there.
    let environment = |name: &str| (name == "PGREQUIREAUTH").then(|| "md5".to_owned());
    let error = super::read("postgres://ann@db/x", &environment).err().unwrap().to_string();
    assert!(error.contains("PGREQUIREAUTH"), "{error}");
}

#[test]
fn what_a_keyword_says_is_done() {
    let all = settings(
        "host=db user=ann keepalives=0 keepalives_count=7 tcp_user_timeout=1500 connect_timeout=-1 \
         channel_binding=require ssl_min_protocol_version=tlsv1.3 sslsni=0 requirepeer=postgres \
         target_session_attrs=primary",
    );
    assert!(!all.config.get_keepalives());
    assert_eq!(all.config.get_keepalives_retries(), Some(7));
    assert_eq!(all.config.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
    assert_eq!(all.config.get_connect_timeout(), None);
    assert_eq!(all.config.get_channel_binding(), ChannelBinding::Require);
    assert!(all.primary_only);
    assert_eq!(all.require_peer.as_deref(), Some("postgres"));
    let TlsMode::Prefer(tls) = all.tls else { panic!() };
    assert!(!tls.enable_sni);
    let error = |text: &str| database(text).unwrap_err().to_string();
    assert!(error("host=db port=x").contains("port"));
    assert!(error("host=a,b port=1,2,3").contains("port"));
    assert!(error("host=a hostaddr=1.2.3.4,1.2.3.5").contains("hostaddr"));
    assert!(error("host=db sslnegotiation=direct").contains("sslmode=require"));
    assert!(error("host=db connect_timeout=soon").contains("connect_timeout"));
}

#[test]
fn a_service_is_read_and_what_the_url_says_counts_for_more() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pg_service.conf");
    std::fs::write(&file, "[fhir]\nhost=db\nport=77\nsslmode=disable\n").unwrap();
    let environment = |name: &str| match name {
        "HOME" => Some(home.path().to_string_lossy().into_owned()),
        "PGPORT" => Some("99".to_owned()),
        "PGUSER" => Some("eve".to_owned()),
        _ => None,
    };
    let settings = super::read("service=fhir host=other", &environment).unwrap();
    assert_eq!(settings.endpoints[0].to_string(), "other:77");
    assert_eq!(settings.config.get_user(), Some("eve"));
    let error = super::read("postgres:///?service=no", &environment).err().unwrap().to_string();
    assert!(error.contains("'no'") && error.contains(".pg_service.conf"), "{error}");
    std::fs::write(&file, "[fhir]\nsslcrl=/x\n").unwrap();
    let error = super::read("service=fhir", &environment).err().unwrap().to_string();
    assert!(error.contains("sslcrl in "), "{error}");
}

#[test]
fn no_sslmode_to_another_machine_is_worth_a_warning() {
    let warned = |url: &str| settings(url).warnings().len();
    assert_eq!(warned("postgres://ann@db.example/x"), 1);
    assert_eq!(warned("host=localhost,10.0.0.1 user=ann"), 1);
    for quiet in [
        "postgres://ann@localhost/x",
        "postgres://ann@127.0.0.7/x",
        "postgres://ann@[::1]/x",
        "postgres://ann@%2Frun/x",
        "postgres://ann@db.example/x?sslmode=prefer",
        "host=db hostaddr=127.0.0.1 user=ann",
    ] {
        assert_eq!(warned(quiet), 0, "{quiet}");
    }
}

/// With a character that has to be encoded, written as it is, in each place that a password has.
#[test]
fn no_piece_of_a_password_is_shown() {
    for c in ['@', '/', '#', '?', ':', '%', '[', ']', '&', '=', ' ', '\'', '\\', ',', '+'] {
        for password in
            [format!("hunter{c}secret"), format!("{c}hunter{c}secret{c}"), format!("hunter{c}1{c}secret")]
        {
            for text in [
                format!("postgres://ann:{password}@db.example:5432/fhir?sslmode=disable"),
                format!("postgres://ann:{password}@db.example"),
                format!("postgres://db.example/fhir?user=ann&password={password}&sslmode=disable"),
                format!("host=db.example user=ann password={password} dbname=fhir"),
                format!("host=db.example user=ann password={password}"),
                format!("host=db.example user=ann password='{password}' dbname=fhir"),
            ] {
                let shown = match database(&text) {
                    Ok(database) => format!("{database} {database:?} {}", database.dbname()),
                    Err(error) => format!("{error} {error:?}"),
                };
                assert!(!shown.contains("hunter") && !shown.contains("secret"), "{text}: {shown}");
            }
        }
    }
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

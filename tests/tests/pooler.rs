//! A URL that leads to a connection pooler is named as what it is.

use anyhow::{Result, ensure};
use tests::{Binary, Case, Cluster, Context, Pgbouncer, SOON, Server, cases, http, until};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = cases![once a_pooler_is_named];
    cases.iter_mut().for_each(|case| case.skip = Pgbouncer::missing);
    cases
}

const ADVICE: &str = "this URL leads to a connection pooler: name the database server itself";

async fn a_pooler_is_named(context: Context) -> Result<()> {
    let cluster = Cluster::start(&context, &[]).await?;
    let binary = Binary::find()?;
    binary.succeed(&["migrate", "--database-url", &cluster.url("postgres")])?;
    cluster.connect().await?.batch_execute("alter role fhir_tail login").await?;
    let file = context.directory().join("patient.ndjson");
    std::fs::write(&file, r#"{"resourceType":"Patient","id":"p"}"#)?;
    let file = file.display().to_string();
    // As it comes, and as it is set up where drivers send what it does not know.
    for (name, settings) in [
        ("transactions", &["pool_mode = transaction"][..]),
        ("sessions", &["pool_mode = session"]),
        ("tolerant", &["pool_mode = transaction", "ignore_startup_parameters = extra_float_digits, options"]),
        (
            "tolerant-sessions",
            &["pool_mode = session", "ignore_startup_parameters = extra_float_digits, options"],
        ),
    ] {
        let pooler = Pgbouncer::start(&context, name, &cluster, settings).await?;
        // An administrator's, and that of the service.
        for user in ["postgres", "fhir_tail"] {
            let url = pooler.url(user);
            for arguments in [&["check"][..], &["migrate"], &["load", &file]] {
                let output = binary.run(&[arguments, &["--database-url", &url]].concat())?;
                let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
                ensure!(output.status.code() == Some(1), "{name}: {arguments:?}: {}, {told}", output.status);
                ensure!(told.matches(ADVICE).count() == 1, "{name}: {arguments:?} as {user}: {told}");
            }
        }
        let directory = context.directory().join(format!("{name}-server"));
        std::fs::create_dir(&directory)?;
        let mut server = Server::new(&directory, &pooler.url("fhir_tail"), &[])?;
        server.start().await?;
        let at = server.listening()?;
        until("the service to say it", SOON, || async {
            let body = http::get(at, "/health/ready", "").await?.body().await?;
            Ok(String::from_utf8(body)?.contains(ADVICE).then_some(()))
        })
        .await?;
        let log = server.log()?;
        ensure!(log.contains(ADVICE) && log.contains("ERROR"), "{log}");
        ensure!(!log.contains("prepared statement") && !log.contains("startup parameter"), "{log}");
    }
    Ok(())
}

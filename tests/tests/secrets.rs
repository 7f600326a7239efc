//! No piece of a password is shown: by no command, in no message, at no level of the log.

use anyhow::{Result, ensure};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use tests::{Binary, Case, Cluster, Context, SOON, Site, cases, http, until};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        once no_command_shows_a_piece_of_a_password,
        once a_service_that_is_refused_shows_none,
        once the_log_names_the_host_that_is_in_use,
    ]
}

/// Some of the characters that mean something in a URL or a list of keywords; the crate `cdc` tries all.
const SPECIAL: &str = "@/#?:% '";

/// The pieces of each password.
const PIECES: [&str; 2] = ["Hunter", "Secret"];

fn shows(text: &str) -> bool {
    PIECES.iter().any(|piece| text.contains(piece))
}

/// Runs it, and looks at all that it wrote, and at what others of the machine can see of it.
fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    let wrote = [output.stdout, output.stderr].concat();
    let wrote = String::from_utf8_lossy(&wrote);
    ensure!(!shows(&wrote) && !wrote.contains("panicked"), "{command:?}: {}\n{wrote}", output.status);
    Ok(())
}

async fn no_command_shows_a_piece_of_a_password(context: Context) -> Result<()> {
    let binary = Binary::find()?;
    let data = context.directory().join("data").display().to_string();
    let file = context.directory().join("settings.toml");
    let ndjson = context.directory().join("empty.ndjson");
    std::fs::write(&ndjson, "")?;
    let ndjson = ndjson.display().to_string();
    for c in SPECIAL.chars() {
        let password = format!("{}{c}{}", PIECES[0], PIECES[1]);
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for url in [
            // Nobody listens there.
            format!("postgres://ann:{password}@127.0.0.1:1/fhir"),
            format!("postgres://ann:{encoded}@127.0.0.1:1/fhir"),
            format!("postgres://127.0.0.1:1/fhir?user=ann&password={password}"),
            format!("host=127.0.0.1 port=1 user=ann password={password} dbname=fhir"),
            format!("mysql://ann:{password}@127.0.0.1:1/fhir"),
        ] {
            for arguments in [&["serve", "--check-config"][..], &["check"], &["migrate"], &["load", &ndjson]]
            {
                let mut command = binary.command();
                command.args(arguments).args(["--data-dir", &data, "--log-level", "trace"]);
                run(command.env("DATABASE_URL", &url))?;
            }
            // Where it does not belong.
            for arguments in [
                &["check", &url][..],
                &["check", "--database-url", &url],
                &["serve", "--databaseurl", &url],
                &["load", &url],
                &["tail", &url],
            ] {
                run(binary.command().args(arguments).args(["--log-level", "trace"]))?;
            }
            for text in [
                format!("database-url = \"{url}\""),
                format!("database-url = {url}"),
                format!("database-url = \"{url}"),
                format!("database-url = [\"{url}\", 1]"),
            ] {
                std::fs::write(&file, text)?;
                let mut command = binary.command();
                command.args(["serve", "--check-config", "--data-dir", &data, "--config"]).arg(&file);
                run(&mut command)?;
            }
        }
    }
    Ok(())
}

async fn a_service_that_is_refused_shows_none(context: Context) -> Result<()> {
    let cluster = Cluster::start(&context, &["port = 5438", "listen_addresses = '127.0.0.1'"]).await?;
    let hba = cluster.data().join("pg_hba.conf");
    std::fs::write(&hba, "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")?;
    let url = cluster.tcp_url("fhir_tail").replace("fhir_tail@", "fhir_tail:Hunter%2FSecret@");
    let mut site = Site::on(&context, cluster, &url, &["--log-level", "trace"]).await?;
    site.sql.batch_execute("alter role fhir_tail password 'other'; select pg_reload_conf()").await?;
    site.server.start().await?;
    let at = site.server.listening()?;
    until("the refusal", SOON, || async {
        let body = String::from_utf8(http::get(at, "/health/ready", "").await?.body().await?)?;
        ensure!(!shows(&body), "{body}");
        Ok(body.contains("password authentication failed").then_some(()))
    })
    .await?;
    let log = site.server.log()?;
    ensure!(!shows(&log), "{log}");
    // Nor once it is let in.
    site.sql.batch_execute("alter role fhir_tail password 'Hunter/Secret'").await?;
    site.ready().await?;
    let log = site.server.log()?;
    ensure!(!shows(&log), "the log shows it");
    Ok(())
}

async fn the_log_names_the_host_that_is_in_use(context: Context) -> Result<()> {
    let cluster = Cluster::start(&context, &["port = 5439", "listen_addresses = '127.0.0.1'"]).await?;
    // Each host has a password of its own in the file, and nobody listens at the first.
    let hba = cluster.data().join("pg_hba.conf");
    std::fs::write(&hba, "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")?;
    let passwords = context.directory().join("passwords");
    std::fs::write(&passwords, "127.0.0.1:1:*:*:wrong\n127.0.0.1:5439:*:*:right\n")?;
    std::fs::set_permissions(&passwords, std::fs::Permissions::from_mode(0o600))?;
    let url =
        format!("postgres://fhir_tail@127.0.0.1:1,127.0.0.1:5439/fhir?passfile={}", passwords.display());
    let mut site = Site::on(&context, cluster, &url, &[]).await?;
    site.sql.batch_execute("alter role fhir_tail password 'right'; select pg_reload_conf()").await?;
    site.server.start().await?;
    site.ready().await?;
    let log = site.server.log()?;
    let line = log.lines().find(|line| line.contains("following the database")).unwrap_or_default();
    ensure!(line.contains("fhir_tail@127.0.0.1:5439/fhir") && !line.contains("127.0.0.1:1"), "{log}");
    Ok(())
}

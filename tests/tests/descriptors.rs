//! A process may have so many files open, and each connection is one: strangers who take all that they can get keep neither the
//! database, nor streams, nor probes from the service.

use anyhow::{Context as _, Result, ensure};
use tests::{
    Binary, Case, Client, Context, Descriptors, SOON, Site, Subscribe, Takers, cases, http, until, within,
};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        once strangers_take_no_descriptor_that_is_needed,
        once the_soft_limit_is_raised,
        once streams_that_do_not_fit_are_refused,
        once streams_of_all_places_leave_probes_alone,
    ]
}

/// A service that cannot raise its limit.
const LOW: Descriptors = Descriptors { soft: 1_024, hard: 1_024 };

async fn limited(context: &Context, descriptors: Descriptors, arguments: &[&str]) -> Result<Site> {
    let mut site = Site::prepare(context, &[], arguments).await?;
    site.server.limit(descriptors);
    site.server.start().await?;
    site.ready().await?;
    Ok(site)
}

/// What an orchestrator and a monitor ask.
async fn probes(site: &Site) -> Result<()> {
    for path in ["/health/live", "/health/ready", "/metrics"] {
        let asking = async {
            let mut response = http::get(site.server.listening()?, path, "").await?;
            let body = String::from_utf8(response.body().await?)?;
            Ok((response.status, body))
        };
        let (status, body) = within(path, SOON, asking).await?;
        ensure!(status == 200, "{path}: {status} {body}");
    }
    Ok(())
}

async fn strangers_take_no_descriptor_that_is_needed(context: Context) -> Result<()> {
    let mut site = limited(&context, LOW, &[]).await?;
    site.put("Patient", "before").await?;
    let mut early = site.live(Subscribe::all(Client::Raw)).await?;
    let own = site.server.open_files()?;
    ensure!(own < 100, "it has {own} files open: is what it keeps for itself enough?");
    // More than there may be, and again while the others are held.
    let mut strangers = Vec::new();
    for round in 0..3 {
        strangers.push(Takers::take(site.server.listening()?, 1_200).await?);
        let files = site.server.open_files()?;
        ensure!(files < 1_024, "{files} files are open");
        probes(&site).await?;
        let id = format!("r{round}");
        site.put("Patient", &id).await?;
        early.hear("what is written", SOON, |reader| reader.heard_of(&id)).await?;
        // From the tables, on connections to the database that are made when they are needed.
        let mut late = site.live(Subscribe::all(Client::EventSource)).await?;
        late.hear("everything", SOON, |reader| reader.heard_of("before") && reader.heard_of(&id)).await?;
    }
    let held: usize = strangers.iter().map(Takers::held).sum();
    ensure!((500..1_024).contains(&held), "{held} strangers are held: was anything short?");
    ensure!(site.metric("fhir_tail_accept_errors_total").await? == 0.0, "descriptors were short");

    // The database goes, and all its connections are made anew.
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'fhir_tail'";
    site.sql.execute(end, &[]).await?;
    site.put("Patient", "after").await?;
    early.hear("what comes after", SOON, |reader| reader.heard_of("after")).await?;
    site.server.must_run()?;
    let log = site.server.log()?;
    ensure!(!log.contains("os error 24"), "descriptors were short:\n{log}");
    let told = log.matches("connection limit reached").count();
    ensure!((1..10).contains(&told), "the log says {told} times that strangers take connections");
    Ok(())
}

/// 1,024 is what shells and systemd give to programs that cannot have more.
async fn the_soft_limit_is_raised(context: Context) -> Result<()> {
    let site = limited(&context, Descriptors { soft: 256, hard: 4_000 }, &[]).await?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", site.server.id()?))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no such limit")?;
    let numbers: Vec<&str> = line.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    ensure!(numbers == ["4000", "4000"], "{line}");
    ensure!(site.metric("fhir_tail_streams_limit").await? == 3_680.0, "the default is lowered to what fits");
    ensure!(site.metric("fhir_tail_connections_limit").await? == 3_808.0, "and so is the rest");
    // None of these is too many; only those that are no clients are closed, which are a quarter.
    let _strangers = Takers::take(site.server.listening()?, 1_100).await?;
    probes(&site).await?;
    let closed = site.metric("fhir_tail_connections_closed_total{limit=\"all\"}").await?;
    ensure!(closed == 0.0, "{closed} connections were closed");
    Ok(())
}

async fn streams_that_do_not_fit_are_refused(context: Context) -> Result<()> {
    let program = Binary::find()?;
    let ask = |descriptors: Descriptors, streams: &str| {
        let data = context.directory().join("data").display().to_string();
        let mut command = program.command();
        command.args(["serve", "--check-config", "--data-dir", &data, "--max-streams", streams]);
        descriptors.of(&command).output().context("cannot run it")
    };
    let refused = ask(LOW, "705")?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(refused.status.code() == Some(2), "{} {said}", refused.status);
    for part in ["--max-streams", "705", "1024", "704", "LimitNOFILE="] {
        ensure!(said.contains(part), "{part} is not in: {said}");
    }
    let fits = ask(LOW, "704")?;
    ensure!(fits.status.success(), "{}", String::from_utf8_lossy(&fits.stderr));
    ensure!(String::from_utf8(fits.stdout)?.contains("max-streams = 704"), "it is not in effect");
    let nothing = ask(Descriptors { soft: 300, hard: 300 }, "1")?;
    ensure!(nothing.status.code() == Some(2), "{}", nothing.status);
    Ok(())
}

/// Every stream is taken, and more are asked for than there are descriptors.
async fn streams_of_all_places_leave_probes_alone(context: Context) -> Result<()> {
    let site = limited(&context, Descriptors { soft: 512, hard: 512 }, &[]).await?;
    let at = site.server.listening()?;
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..600 {
        let stream = http::get(at, "/fhir/$export", "Prefer: respond-eventsource\r\n").await?;
        match stream.status {
            200 => open.push(stream),
            429 => refused += 1,
            other => anyhow::bail!("{other}"),
        }
    }
    ensure!(open.len() == 192 && refused == 408, "{} streams, {refused} refused", open.len());
    probes(&site).await?;
    let strangers = Takers::take(at, 600).await?;
    probes(&site).await?;
    ensure!(site.metric("fhir_tail_streams_open").await? == 192.0, "streams were closed");
    drop((strangers, open));
    until("room again", SOON, || async {
        let stream = http::get(at, "/fhir/$export", "Prefer: respond-eventsource\r\n").await?;
        Ok((stream.status == 200).then_some(()))
    })
    .await
}

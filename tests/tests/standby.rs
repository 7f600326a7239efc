//! One service that stands in for another: on the same journal, which it takes over as it is, and on a journal of its own,
//! for which it takes over the slot.

use crate::slow::{events, pass};
use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tests::{
    Binary, Case, Client, Cluster, Context, Cut, Ended, Reader, SOON, Server, Site, Subscribe, cases, http,
    put, until, within,
};
use tokio::time::Instant;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each a_second_server_on_the_same_data_takes_over_where_the_first_was_killed,
        each the_other_takes_over_within_seconds_of_the_end_of_the_one,
        each who_loses_the_slot_ends_its_streams,
        once a_journal_of_another_cluster_is_refused,
    ]
}

/// What `/health/ready` says, and whether it is ready.
async fn readiness(at: SocketAddr) -> Result<(bool, String)> {
    let mut ready = http::get(at, "/health/ready", "").await?;
    Ok((ready.status == 200, String::from_utf8(ready.body().await?)?))
}

async fn ready(at: SocketAddr) -> Result<()> {
    until("ready", SOON, || async { Ok(readiness(at).await?.0.then_some(())) }).await
}

async fn a_second_server_on_the_same_data_takes_over_where_the_first_was_killed(
    context: Context,
) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let mut second = site.server.twin(context.within("second")?.directory());
    second.start().await?;
    let at = second.listening()?;
    ensure!(http::get(at, "/health/live", "").await?.status == 200, "one that stands by lives");
    let (is_ready, why) = readiness(at).await?;
    ensure!(!is_ready && why.contains("standing by"), "{why}");
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    for round in 0..2 {
        site.put("Patient", &format!("heard-{round}")).await?;
        reader.hear("what is live", SOON, |reader| reader.heard_of(&format!("heard-{round}"))).await?;
        // It has nothing to give yet, and says to come back.
        let (ours, theirs) =
            if round == 0 { (&mut site.server, &mut second) } else { (&mut second, &mut site.server) };
        let early =
            http::get(theirs.listening()?, "/fhir/$export", "Prefer: respond-eventsource\r\n").await?;
        ensure!(early.status == 503 && early.header("retry-after").is_some(), "{}", early.status);
        ours.kill().await?;
        put(&site.sql, "Patient", &format!("missed-{round}"), 1).await?;
        ready(theirs.listening()?).await?;
        reader.connect(theirs.listening()?).await?;
        reader.hear("what it missed", SOON, |reader| reader.heard_of(&format!("missed-{round}"))).await?;
        ours.start().await?;
    }
    ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
    for id in ["heard-0", "missed-0", "heard-1", "missed-1"] {
        ensure!(reader.about(id).count() == 1, "{id}: {}", reader.tail());
    }
    // In good order it hands over as well, and one that stands by can be told to stop.
    site.server.terminate(SOON).await?;
    ready(second.listening()?).await?;
    let mut third = second.twin(context.within("third")?.directory());
    third.start().await?;
    let status = third.terminate(SOON).await?;
    ensure!(status.success(), "one that stands by ended with {status}");
    Ok(())
}

/// The goal is five seconds. On a machine that is busy with something else it may be missed: the limit is ten times that.
const TAKEN_OVER: Duration = Duration::from_secs(50);

/// Killed, and told to end: who stood by is ready, and a subscriber goes on there with its id.
#[allow(clippy::print_stderr, reason = "a figure for whoever runs it")]
async fn the_other_takes_over_within_seconds_of_the_end_of_the_one(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let events = events(1_000)?;
    pass(&site, 0, events).await?;
    let mut reader = site.live(Subscribe::with(Client::Raw, "_type=Patient")).await?;
    let mut second = site.server.twin(context.within("second")?.directory());
    for (round, how) in ["killed", "told to end"].into_iter().enumerate() {
        let (one, other) =
            if round == 0 { (&mut site.server, &mut second) } else { (&mut second, &mut site.server) };
        other.start().await?;
        let at = other.listening()?;
        until("the other to stand by", SOON, || async {
            Ok(readiness(at).await?.1.contains("standing by").then_some(()))
        })
        .await?;
        let before = format!("before-{round}");
        put(&site.sql, "Patient", &before, 1).await?;
        reader.hear("what is live", SOON, |reader| reader.heard_of(&before)).await?;
        match round {
            0 => one.kill().await?,
            _ => ensure!(one.terminate(SOON).await?.success(), "it did not end well"),
        }
        let ended = Instant::now();
        let after = format!("after-{round}");
        put(&site.sql, "Patient", &after, 1).await?;
        until("the other to be ready", TAKEN_OVER, || async { Ok(readiness(at).await?.0.then_some(())) })
            .await?;
        let ready = ended.elapsed();
        let heard = |reader: &Reader| reader.heard_of(&after);
        reader.hear_on(|| Some(at), "what it missed", TAKEN_OVER, heard).await?;
        eprintln!(
            "the one was {how}, after {events} events: {:.2} s until the other was ready, {:.2} s until a subscriber went on",
            ready.as_secs_f64(),
            ended.elapsed().as_secs_f64()
        );
    }
    ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
    for id in ["before-0", "after-0", "before-1", "after-1"] {
        ensure!(reader.about(id).count() == 1, "{id}: {}", reader.tail());
    }
    Ok(())
}

/// Waits until a service says that another has the slot; it is not ready meanwhile.
async fn waits_for_the_slot(address: SocketAddr) -> Result<()> {
    until("the service to find the slot taken", SOON, || async {
        let (is_ready, why) = readiness(address).await?;
        ensure!(!is_ready, "both are ready");
        Ok(why.contains("another process reads from the replication slot").then_some(()))
    })
    .await
}

/// Two services with journals of their own and one slot: who has it serves, and who loses it does not.
async fn who_loses_the_slot_ends_its_streams(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let mut second = Server::new(context.within("second")?.directory(), &site.cluster.url("fhir_tail"), &[])?;
    second.start().await?;
    let other = second.listening()?;
    waits_for_the_slot(other).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    let mut idle = site.live(Subscribe::with(Client::EventSource, "_type=Encounter")).await?;

    // It hangs, its connection is cut, and the other gets the slot.
    site.server.freeze()?;
    let cut =
        "select pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null";
    site.sql.batch_execute(cut).await?;
    ready(other).await?;
    site.put("Patient", "after").await?;
    site.server.thaw()?;
    for reader in [&mut reader, &mut idle] {
        let ended = within("the streams of who lost", SOON, async {
            Ok(reader.read_on(Cut::Never, |_| false).await)
        });
        ensure!(matches!(ended.await?, Ended::Lost(_)), "{}", reader.tail());
        let last = reader.heard.last().context("nothing was heard")?;
        ensure!(last.what.code() == Some("transient"), "{}", reader.tail());
    }
    waits_for_the_slot(site.server.listening()?).await?;

    // Its clients come to the other, which says that it does not know their ids' journal.
    reader.connect(other).await?;
    reader.hear("after", SOON, |reader| reader.heard_of("after")).await?;
    ensure!(reader.noticed("reset-all"), "{}", reader.tail());
    second.kill().await?;
    ready(site.server.listening()?).await?;
    let mut back = site.live(Subscribe::all(Client::Raw)).await?;
    site.put("Patient", "back").await?;
    back.hear("back", SOON, |reader| reader.heard_of("back")).await
}

/// It says whose the journal is, and what can be done.
async fn a_journal_of_another_cluster_is_refused(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.put("Patient", "p").await?;
    reader.hear("p", SOON, |reader| reader.heard_of("p")).await?;
    site.server.terminate(SOON).await?;
    let at = context.within("other")?;
    let other = Cluster::initialised(&at, &[]).await?;
    Binary::find()?.succeed(&["migrate", "--database-url", &other.url("postgres")])?;
    other.connect().await?.batch_execute("alter role fhir_tail login").await?;
    site.server.set("--database-url", &other.url("fhir_tail"));
    // It may have said where it listens before it saw the cluster.
    if site.server.start().await.is_ok() {
        ensure!(!site.server.exited(SOON).await?.success(), "it serves another cluster's journal");
    }
    let log = site.server.log()?;
    ensure!(
        log.contains("give it another data directory, or remove the journal (subscribers are then reset)"),
        "{log}"
    );
    // The journal is as it was.
    site.server.set("--database-url", &site.cluster.url("fhir_tail"));
    site.server.start().await?;
    site.put("Patient", "q").await?;
    reader.connect(site.server.listening()?).await?;
    reader.hear("q", SOON, |reader: &Reader| reader.heard_of("q")).await?;
    ensure!(!reader.noticed("reset"), "{}", reader.tail());
    Ok(())
}

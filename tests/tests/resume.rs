//! Coming back with the last id: every id of a stream is a place to go on from, once and exactly.

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt;
use reqwest_eventsource::{Event, EventSource, retry};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;
use tests::check::{Expect, check};
use tests::{
    Case, Client, Context, Cut, Ended, Heard, History, Key, Reader, SOON, Site, Subscribe, Table, What,
    cases, http, within,
};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each from_every_id_of_a_stream,
        once the_header_wins_over_the_query_and_both_over_since,
        once ids_that_cannot_be_continued,
        each what_was_seen_before_a_crash_comes_once,
        each after_the_journal_is_lost,
        once a_client_that_comes_back_by_itself,
    ]
}

/// What was said, without the ids (a resumed replay may name the same place by another id).
fn said(heard: &[Heard]) -> Vec<String> {
    heard.iter().filter(|heard| heard.what.key().is_some()).map(|heard| format!("{:?}", heard.what)).collect()
}

/// The last that was said of each resource.
fn newest(heard: &[Heard]) -> BTreeMap<&Key, &What> {
    heard.iter().filter_map(|heard| Some((heard.what.key()?, &heard.what))).collect()
}

/// A replay of two types, with deletions, and live changes after it: cut after each of its events and resumed
/// with its id, by header and by query, every subscriber hears the rest, no more and no less. Once more after the server
/// was killed.
async fn from_every_id_of_a_stream(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    for id in 0..12 {
        site.put("Patient", &format!("p{id}")).await?;
        site.put("Observation", &format!("o{id}")).await?;
    }
    for id in 0..3 {
        site.delete("Patient", &format!("p{id}")).await?;
    }
    site.settle().await?;
    let subscribe = Subscribe::with(Client::Raw, "_since=2000-01-01T00:00:00Z&_type=Patient,Observation");
    let mut whole = site.live(subscribe.clone()).await?;
    for id in 6..9 {
        site.put("Patient", &format!("p{id}")).await?;
        site.delete("Observation", &format!("o{id}")).await?;
        // Moves the head for a filter that does not hear it.
        site.put("Encounter", "e").await?;
    }
    site.put("Patient", "last").await?;
    whole.hear("the last", SOON, |reader| reader.heard_of("last")).await?;
    ensure!(said(&whole.heard).len() == 24 + 7, "{:#?}", whole.heard);

    let live = whole.heard.iter().position(|heard| heard.what.code() == Some("live"));
    for round in 0..2 {
        for at in 0..whole.heard.len() {
            let mut reader = Reader::new(subscribe.clone());
            reader.last_id = Some(whole.heard[at].event_id.clone());
            reader.resume_by_query = at % 2 == 1;
            reader.connect(site.server.listening()?).await?;
            let rest = &whole.heard[at + 1..];
            let what = format!("the rest after event {at} ({:?}) in round {round}", whole.heard[at]);
            if live.is_some_and(|live| at < live) {
                // The tables have moved on: versions that were replaced meanwhile may be left out.
                let enough =
                    |reader: &Reader| newest(&reader.heard) == newest(rest) && reader.noticed("live");
                reader.hear(&what, SOON, enough).await?;
            } else {
                reader.hear(&what, SOON, |reader| said(&reader.heard).len() >= said(rest).len()).await?;
                ensure!(said(&reader.heard) == said(rest), "{what}: {:#?}", reader.heard);
            }
            ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{what}: {:#?}", reader.heard);
            let mut once = said(&reader.heard);
            once.sort_unstable();
            ensure!(once.windows(2).all(|two| two[0] != two[1]), "twice, {what}: {:#?}", reader.heard);
        }
        site.server.kill().await?;
        site.server.start().await?;
    }

    // Nothing more comes: the next change is the next that each hears.
    let mut reader = Reader::new(subscribe);
    reader.last_id = whole.last_id.clone();
    reader.connect(site.server.listening()?).await?;
    site.put("Patient", "one-more").await?;
    reader.hear("one more", SOON, |reader| reader.heard_of("one-more")).await?;
    ensure!(said(&reader.heard).len() == 1, "{:#?}", reader.heard);
    Ok(())
}

async fn the_header_wins_over_the_query_and_both_over_since(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    for id in ["a", "b", "c"] {
        site.put("Patient", id).await?;
    }
    reader.hear("c", SOON, |reader| reader.heard_of("c")).await?;
    let id_of = |id: &str| reader.heard.iter().find(|heard| heard.what.key().is_some_and(|key| key.id == id));
    let (a, b) =
        (id_of("a").map(|heard| heard.event_id.clone()), id_of("b").map(|heard| heard.event_id.clone()));
    let query = format!("_since=2999-01-01T00:00:00Z&_lastEventId={}", a.unwrap_or_default());
    for (last_id, expected) in [(b, 1), (None, 2)] {
        let mut resumed = Reader::new(Subscribe::with(Client::Raw, &query));
        resumed.last_id = last_id;
        resumed.connect(site.server.listening()?).await?;
        resumed.hear("c", SOON, |reader| reader.heard_of("c")).await?;
        ensure!(said(&resumed.heard).len() == expected, "{:#?}", resumed.heard);
    }
    Ok(())
}

/// Unreadable, or of another filter: the state again. Only _since says from when on deletions are to be told; without it
/// what does not come is to be dropped.
async fn ids_that_cannot_be_continued(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "p").await?;
    site.put("Observation", "o").await?;
    site.settle().await?;
    // Cut in the middle of the replay of everything.
    let mut other = Reader::new(Subscribe::all(Client::Raw));
    let ended = other.read(site.server.listening()?, Cut::Events(2), |_| false).await;
    ensure!(ended == Ended::Cut && said(&other.heard).len() == 1, "{ended:?} {:?}", other.heard);
    let foreign = other.last_id.clone();
    for last_id in [Some("never-ours".to_owned()), Some("AAAA".to_owned()), foreign] {
        for (client, query, told) in [
            (Client::Raw, "_type=Patient", "reset-all"),
            (Client::EventSource, "_type=Patient", "reset-all"),
            (Client::Raw, "_type=Patient&_since=2000-01-01T00:00:00Z", "reset"),
        ] {
            let mut reader = Reader::new(Subscribe::with(client, query));
            reader.last_id = last_id.clone();
            reader.connect(site.server.listening()?).await?;
            reader.hear("live", SOON, |reader| reader.noticed("live")).await?;
            ensure!(
                reader.noticed(told)
                    && reader.notices("reset").count() + reader.notices("reset-all").count() == 1,
                "{last_id:?}: {:#?}",
                reader.heard
            );
            ensure!(
                said(&reader.heard).len() == 1 && reader.heard_of("p"),
                "{last_id:?}: {:#?}",
                reader.heard
            );
        }
    }
    Ok(())
}

/// Changes are sent before they are on our disk. Killed in the middle of a burst, the service has forgotten some that its
/// subscribers have seen; Postgres sends them again, and each subscriber hears only what it had not.
async fn what_was_seen_before_a_crash_comes_once(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    History::begin(&site.sql).await?;
    let mut readers = Vec::new();
    for client in [Client::Raw, Client::EventSource, Client::Raw] {
        readers.push(site.live(Subscribe::all(client)).await?);
    }
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..6 {
        let writer = site.cluster.connect().await?;
        let burst = tokio::spawn(async move {
            for statement in 0..20 {
                let first = (round * 20 + statement) * 50;
                let insert = format!(
                    "insert into fhir.resource (resource_type, id, content) select 'Patient', 'p' || i, \
                     format('{{\"resourceType\":\"Patient\",\"n\":%s}}', i)::json \
                     from generate_series({first} + 1, {first} + 50) i"
                );
                writer.batch_execute(&insert).await?;
            }
            anyhow::Ok(())
        });
        let enough = readers[0].heard.len() + random.usize(1..900);
        readers[0].hear("a part of the burst", SOON, |reader| reader.heard.len() >= enough).await?;
        site.server.kill().await?;
        // What is on its way is still heard.
        for reader in &mut readers {
            let ended = within("the connection's end", SOON, async {
                Ok(reader.read_on(Cut::Never, |_| false).await)
            });
            ensure!(matches!(ended.await?, Ended::Lost(_)), "seed {seed}, round {round}");
        }
        burst.await??;
        site.server.start().await?;
        for reader in &mut readers {
            reader.connect(site.server.listening()?).await?;
        }
    }
    site.put("Patient", "end").await?;
    let (history, table) = (History::read(&site.sql).await?, Table::read(&site.sql).await?);
    for reader in &mut readers {
        reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
        check(
            &reader.heard,
            Expect { history: &history, table: &table, types: &[], since: None, resets: false },
        )
        .with_context(|| format!("seed {seed}, {}", reader.tail()))?;
    }
    Ok(())
}

/// Without its journal the service cannot know what a subscriber missed, nor whether what it has was ever there: it says so,
/// and sends all there is.
async fn after_the_journal_is_lost(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    site.put("Patient", "before").await?;
    site.put("Patient", "gone").await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    reader.hear("gone", SOON, |reader| reader.heard_of("gone")).await?;
    site.settle().await?;
    // So that the id names a safe time beyond what was written until now.
    site.put("Patient", "seen").await?;
    reader.hear("seen", SOON, |reader| reader.heard_of("seen")).await?;
    reader.cut();
    site.server.terminate(SOON).await?;
    std::fs::remove_dir_all(context.directory().join("data"))?;
    site.put("Patient", "missed").await?;
    site.delete("Patient", "gone").await?;
    site.server.start().await?;
    let address = site.server.address();
    reader
        .hear_on(|| address.now(), "live again", SOON, |reader| reader.notices("live").count() == 2)
        .await?;
    let told = reader.heard.iter().position(|heard| heard.what.code() == Some("reset-all"));
    let since = &reader.heard[told.context("no reset-all")?..];
    let again: HashSet<&Key> = since.iter().filter_map(|heard| heard.what.key()).collect();
    let table = Table::read(&site.sql).await?;
    ensure!(again == table.resources.keys().collect(), "{again:?}, {table:?}");
    ensure!(reader.notices("reset").count() + reader.notices("reset-all").count() == 1, "{}", reader.tail());
    Ok(())
}

/// A client that knows nothing of us reconnects with its last id while the server is killed and started again.
async fn a_client_that_comes_back_by_itself(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let port = site.server.listening()?.port();
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut source =
        EventSource::new(http.get(format!("http://127.0.0.1:{port}/fhir/$export?_type=Patient")))?;
    source.set_retry_policy(Box::new(retry::Constant::new(Duration::from_millis(200), None)));
    let mut got = Vec::new();
    for round in 0..3 {
        for id in 0..5 {
            site.put("Patient", &format!("r{round}-{id}")).await?;
        }
        let last = format!("\"id\":\"r{round}-4\"");
        let read = async {
            while !got.iter().any(|data: &String| data.contains(&last)) {
                match source.next().await {
                    Some(Ok(Event::Message(message))) if message.event == "Patient" => got.push(message.data),
                    Some(Ok(_) | Err(_)) => {}
                    None => anyhow::bail!("it has given up"),
                }
            }
            Ok(())
        };
        within("the client to hear the round", SOON, read).await?;
        site.server.kill().await?;
        site.put("Patient", &format!("r{round}-down")).await?;
        site.server.start_on(port).await?;
    }
    ensure!(http::get(site.server.listening()?, "/health/live", "").await?.status == 200, "live");
    let ids: Vec<String> = got
        .iter()
        .filter_map(|data| Some(data.split_once("\"id\":\"")?.1.split_once('"')?.0.to_owned()))
        .collect();
    let expected: Vec<String> = (0..3)
        .flat_map(|round| (0..5).map(move |id| format!("r{round}-{id}")).chain([format!("r{round}-down")]))
        .take(17)
        .collect();
    ensure!(ids == expected, "{ids:?}");
    Ok(())
}

//! What a subscriber gets first: the state of the tables, all of it or what changed since, and then what is live.

use anyhow::{Context as _, Result, ensure};
use tests::{Binary, Case, Client, Context, Reader, SOON, Site, Subscribe, What, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each the_whole_state_then_what_is_live,
        each what_changed_since_with_deletions,
        once types_by_parameter_and_by_path,
        once an_instant_ahead_is_live_only,
        once a_table_of_several_pages,
        once what_a_clock_that_stepped_back_left_ahead_of_it,
    ]
}

/// `Type/id`, with a `-` before what is gone.
fn keys(reader: &Reader) -> Vec<String> {
    let name = |what: &What| match what {
        What::Resource { key, .. } => Some(key.to_string()),
        What::Deletion { key, .. } => Some(format!("-{key}")),
        What::Notice { .. } => None,
    };
    reader.heard.iter().filter_map(|heard| name(&heard.what)).collect()
}

async fn clock(site: &Site) -> Result<String> {
    let sql = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    Ok(site.sql.query_one(sql, &[]).await?.try_get(0)?)
}

async fn the_whole_state_then_what_is_live(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for id in ["a", "b", "c"] {
        site.put("Patient", id).await?;
    }
    site.put("Patient", "a").await?;
    site.delete("Patient", "b").await?;
    for client in [Client::Raw, Client::EventSource] {
        site.settle().await?;
        let mut reader = site.live(Subscribe::all(client)).await?;
        ensure!(keys(&reader) == ["Patient/c", "Patient/a"], "{client:?}: {:?}", keys(&reader));
        ensure!(reader.heard[0].what.code() == Some("start"), "{:?}", reader.heard[0]);

        site.put("Observation", "o").await?;
        site.put("Observation", "o").await?;
        site.delete("Observation", "o").await?;
        site.sql.batch_execute("begin; insert into fhir.resource (resource_type, id, content) values \
            ('Encounter', 'e2', '{\"resourceType\":\"Encounter\"}'), ('Encounter', 'e1', '{\"resourceType\":\"Encounter\"}'); \
            update fhir.resource set content = content where id = 'e2'; commit").await?;
        site.sql.batch_execute("delete from fhir.resource where id = 'e1'").await?;
        reader
            .hear("the deletion", SOON, |reader| keys(reader).iter().any(|key| key == "-Encounter/e1"))
            .await?;
        let live = [
            "Observation/o",
            "Observation/o",
            "-Observation/o",
            "Encounter/e2",
            "Encounter/e1",
            "Encounter/e2",
        ];
        ensure!(keys(&reader)[2..8] == live, "{client:?}: {:?}", keys(&reader));
        ensure!(keys(&reader).len() == 9, "{client:?}: {:?}", keys(&reader));
        site.sql.batch_execute("delete from fhir.resource where id = 'e2'").await?;
    }
    Ok(())
}

async fn what_changed_since_with_deletions(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for id in ["old", "changed", "gone"] {
        site.put("Patient", id).await?;
    }
    site.put("Patient", "gone-before").await?;
    site.delete("Patient", "gone-before").await?;
    let since = clock(&site).await?;
    site.put("Patient", "changed").await?;
    site.put("Patient", "new").await?;
    site.delete("Patient", "gone").await?;
    site.put("Patient", "short").await?;
    site.delete("Patient", "short").await?;
    site.settle().await?;
    let mut expected = vec!["Patient/changed", "Patient/new", "-Patient/gone", "-Patient/short"];
    expected.sort_unstable();
    // A plus that was not encoded is a blank when it arrives.
    for since in [since.clone(), since.replace('Z', "+00:00"), since.replace('Z', "%2B00:00")] {
        let reader = site.live(Subscribe::with(Client::Raw, &format!("_since={since}"))).await?;
        let mut got = keys(&reader);
        got.sort_unstable();
        ensure!(got == expected, "{since}: {got:?}");
    }
    // What is stamped at the instant itself is not after it.
    let sql = "select to_char(last_updated at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from fhir.resource \
               where id = 'new'";
    let stamp: String = site.sql.query_one(sql, &[]).await?.try_get(0)?;
    let reader = site.live(Subscribe::with(Client::Raw, &format!("_since={stamp}"))).await?;
    let mut got = keys(&reader);
    got.sort_unstable();
    ensure!(got == ["-Patient/gone", "-Patient/short"], "{got:?}");
    Ok(())
}

async fn types_by_parameter_and_by_path(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for resource_type in ["Patient", "Observation", "Encounter", "Bundle"] {
        site.put(resource_type, "x").await?;
    }
    let path = |path: &str| Subscribe { path: path.to_owned(), ..Subscribe::all(Client::EventSource) };
    for (subscribe, mut expected) in [
        (Subscribe::with(Client::Raw, "_type=Patient,Encounter"), vec!["Encounter", "Patient"]),
        (Subscribe::with(Client::EventSource, "_type=Patient&_type=Encounter"), vec!["Encounter", "Patient"]),
        (path("/fhir/Observation/$export"), vec!["Observation"]),
        (path("/fhir/Bundle/$export"), vec!["Bundle"]),
    ] {
        site.settle().await?;
        let mut reader = site.live(subscribe.clone()).await?;
        for resource_type in ["Patient", "Observation", "Encounter", "Bundle"] {
            site.put(resource_type, "later").await?;
        }
        let last = format!("{}/later", expected[expected.len() - 1]);
        let last = if expected.len() > 1 { "Encounter/later".to_owned() } else { last };
        reader.hear("what is live", SOON, |reader| keys(reader).contains(&last)).await?;
        let mut got: Vec<String> =
            keys(&reader).iter().filter_map(|key| Some(key.split_once('/')?.0.to_owned())).collect();
        got.sort_unstable();
        got.dedup();
        expected.sort_unstable();
        ensure!(got == expected, "{subscribe:?}: {got:?}");
        site.sql.batch_execute("delete from fhir.resource where id = 'later'").await?;
    }
    Ok(())
}

async fn an_instant_ahead_is_live_only(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "before").await?;
    site.settle().await?;
    let mut reader = site.live(Subscribe::with(Client::Raw, "_since=2999-01-01T00:00:00Z")).await?;
    ensure!(keys(&reader).is_empty(), "{:?}", keys(&reader));
    site.put("Patient", "after").await?;
    reader.hear("what is live", SOON, |reader| reader.heard_of("after")).await?;
    ensure!(keys(&reader) == ["Patient/after"], "{:?}", keys(&reader));
    Ok(())
}

/// More rows than any page has, some with equal stamps' neighbours, some large.
async fn a_table_of_several_pages(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.sql
        .batch_execute(
            "insert into fhir.resource (resource_type, id, content) \
             select case when i % 5 = 0 then 'Patient' else 'Observation' end, 'r' || i, \
                    format('{\"resourceType\":\"%s\",\"n\":%s,\"text\":\"%s\"}', \
                           case when i % 5 = 0 then 'Patient' else 'Observation' end, i, \
                           repeat('x', case when i % 997 = 0 then 3000000 else 100 end))::json \
             from generate_series(1, 4000) i",
        )
        .await?;
    site.settle().await?;
    let reader = site.live(Subscribe::all(Client::Raw)).await?;
    let mut got = keys(&reader);
    ensure!(got.len() == 4_000, "{} of 4000", got.len());
    let patients = got.iter().take_while(|key| key.starts_with("Patient/")).count();
    ensure!(patients == 800, "patients come before what refers to them: {patients}");
    got.sort_unstable();
    got.dedup();
    ensure!(got.len() == 4_000, "{} different of 4000", got.len());
    let time = reader.notices("live").next().context("live")?;
    ensure!(matches!(&time.what, What::Notice { transaction_time: Some(_), .. }), "{time:?}");
    Ok(())
}

/// Committed before the slot was there, and stamped after: neither the first pages nor the feed would have it.
async fn what_a_clock_that_stepped_back_left_ahead_of_it(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &[]).await?;
    site.sql
        .batch_execute(
            "alter table fhir.resource disable trigger all;
             insert into fhir.resource values ('Patient', 'ahead', 1, clock_timestamp() + interval '5 seconds',
                '{\"resourceType\":\"Patient\"}')",
        )
        .await?;
    Binary::find()?.succeed(&["migrate", "--database-url", &site.cluster.url("postgres")])?;
    site.server.start().await?;
    site.ready().await?;
    let reader = site.live(Subscribe::all(Client::Raw)).await?;
    ensure!(keys(&reader) == ["Patient/ahead"], "{:?}", keys(&reader));
    Ok(())
}

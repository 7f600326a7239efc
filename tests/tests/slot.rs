//! The slot's care: what is warned of in time, and what becomes of subscribers when slot, publication or tables are not
//! what they were.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use tests::{
    Binary, Case, Client, Context, Cut, Ended, Reader, SOON, Site, Subscribe, What, cases, http, put, until,
};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each a_warning_comes_while_half_of_the_limit_is_left,
        each a_slot_that_the_server_gave_up_is_a_reset,
        each what_was_dropped_or_made_anew_is_told,
        each a_publication_that_leaves_something_out_is_refused,
        once a_column_that_is_gone_is_named,
        each stamps_ahead_of_the_clock_are_seen_and_mended,
        once deletions_purged_while_a_replay_was_under_way,
    ]
}

/// What `/health/ready` says.
async fn health(at: SocketAddr) -> Result<(u16, Value)> {
    let mut ready = http::get(at, "/health/ready", "").await?;
    Ok((ready.status, ready.json().await?))
}

/// Waits until it is ready, or is not and says this.
async fn says(site: &Site, what: &str) -> Result<()> {
    let at = site.server.listening()?;
    until(&format!("'{what}'"), SOON, || async {
        let (status, health) = health(at).await?;
        let detail = health["database"]["detail"].as_str().unwrap_or_default();
        Ok((status == 503 && detail.contains(what)).then_some(()))
    })
    .await
}

async fn ready(site: &Site) -> Result<()> {
    let at = site.server.listening()?;
    until("ready", SOON, || async { Ok((health(at).await?.0 == 200).then_some(())) }).await
}

/// Reads on, reconnecting, until it is live once more and has heard of this.
async fn live_again(site: &Site, reader: &mut Reader, id: &str) -> Result<()> {
    let (before, address) = (reader.notices("live").count(), site.server.address());
    let again = |reader: &Reader| reader.notices("live").count() > before && reader.heard_of(id);
    reader.hear_on(|| address.now(), &format!("live again, with {id}"), SOON, again).await
}

async fn a_warning_comes_while_half_of_the_limit_is_left(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &["--max-wal-held", "16MiB"]).await?;
    site.server.start().await?;
    ready(&site).await?;
    let at = site.server.listening()?;
    let metric = async |name: &str| -> Result<f64> {
        let text = String::from_utf8(http::get(at, "/metrics", "").await?.body().await?)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {name}"))?.parse()?)
    };
    ensure!(metric("fhir_tail_warnings").await? == 0.0);
    ensure!(metric("fhir_tail_wal_limit_bytes").await? == f64::from(16 << 20));
    // What a decoder may still need is held for as long as a transaction is open.
    let mut other = site.cluster.connect().await?;
    let open = other.transaction().await?;
    put(open.client(), "Patient", "open", 1).await?;
    site.sql.batch_execute("create table noise (x text)").await?;
    let noise = "insert into noise select repeat(md5(i::text), 30) from generate_series(1, 10000) i";
    site.sql.batch_execute(noise).await?;
    let (status, health_then) = until("the warning", SOON, || async {
        let (status, health) = health(at).await?;
        let warned = health["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty());
        Ok(warned.then_some((status, health)))
    })
    .await?;
    ensure!(status == 200, "a warning is no failure: {health_then:#}");
    let text = health_then["warnings"].to_string();
    ensure!(text.contains("--max-wal-held") && text.contains("of 16.0 MiB at most"), "{text}");
    ensure!(metric("fhir_tail_warnings").await? == 1.0);
    ensure!(metric("fhir_tail_wal_held_bytes").await? > f64::from(8 << 20));
    ensure!(site.server.log()?.contains("the slot needs somebody's attention"), "nothing in the log");
    open.commit().await?;
    until("the end of the warning", SOON, || async {
        site.sql.batch_execute("checkpoint").await?;
        site.put("Patient", "more").await?;
        Ok((metric("fhir_tail_warnings").await? == 0.0).then_some(()))
    })
    .await
}

/// `max_slot_wal_keep_size` strikes while we are away: the newest state of all that changed comes, deletions too.
async fn a_slot_that_the_server_gave_up_is_a_reset(context: Context) -> Result<()> {
    let mut site =
        Site::prepare(&context, &["max_slot_wal_keep_size = 2MB", "max_wal_size = 4MB"], &[]).await?;
    site.server.start().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    for id in ["before", "gone"] {
        site.put("Patient", id).await?;
    }
    site.settle().await?;
    // So that the id names a safe time beyond what was written until now.
    site.put("Patient", "seen").await?;
    reader.hear("seen", SOON, |reader| reader.heard_of("seen")).await?;
    site.server.terminate(SOON).await?;
    reader.cut();
    site.put("Patient", "missed").await?;
    site.delete("Patient", "gone").await?;
    site.until_the_slot_is_lost().await?;
    site.server.start().await?;
    live_again(&site, &mut reader, "missed").await?;
    ensure!(reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
    let about_gone: Vec<_> = reader.about("gone").collect();
    ensure!(matches!(about_gone[..], [_, What::Deletion { .. }]), "{about_gone:?}");
    Ok(())
}

/// Each while subscribers are live; what is told, and that it goes on.
async fn what_was_dropped_or_made_anew_is_told(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    let slot = "select pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null; \
                do $$ begin loop begin perform pg_drop_replication_slot('fhir_tail'); exit; \
                exception when object_in_use then \
                  perform pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null; \
                end; end loop; end $$";
    let publication = "drop publication fhir_tail; \
                       create publication fhir_tail for table fhir.resource, fhir.tombstone";
    let column = "alter table fhir.tombstone drop column content; \
                  alter table fhir.tombstone add column content json not null";
    for (number, (what, break_it, told)) in
        [("publication", publication, "reset"), ("slot", slot, "reset-all"), ("column", column, "reset-all")]
            .into_iter()
            .enumerate()
    {
        let id = format!("after-{number}");
        let resets = reader.notices(told).count();
        site.sql.batch_execute(break_it).await.with_context(|| what.to_owned())?;
        site.put("Patient", &id).await?;
        let address = site.server.address();
        let again = |reader: &Reader| {
            // Live after it: who is cut right after a `reset-all` is not told again, as there is nothing left to drop.
            let codes = reader.heard.iter().rev().filter_map(|heard| heard.what.code());
            reader.notices(told).count() > resets
                && reader.heard_of(&id)
                && codes.take_while(|code| *code != told).any(|code| code == "live")
        };
        reader.hear_on(|| address.now(), &format!("{told} for the {what}"), SOON, again).await?;
        ready(&site).await?;
    }
    // The tables, with all that was in them, while we are away.
    site.server.terminate(SOON).await?;
    reader.cut();
    site.sql.batch_execute("drop schema fhir cascade; drop publication fhir_tail").await?;
    Binary::find()?.succeed(&["migrate", "--database-url", &site.cluster.url("postgres")])?;
    site.put("Patient", "only").await?;
    site.server.start().await?;
    let resets = reader.notices("reset-all").count();
    live_again(&site, &mut reader, "only").await?;
    ensure!(reader.notices("reset-all").count() == resets + 1, "{}", reader.tail());
    Ok(())
}

async fn a_publication_that_leaves_something_out_is_refused(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    for (breaking, said, mending) in [
        (
            "alter publication fhir_tail drop table fhir.tombstone",
            "leaves out \"fhir\".\"tombstone\"",
            "alter publication fhir_tail add table fhir.tombstone",
        ),
        (
            "alter publication fhir_tail set (publish = 'insert')",
            "leaves out inserts or updates",
            "alter publication fhir_tail set (publish = 'insert, update')",
        ),
    ] {
        site.sql.batch_execute(breaking).await?;
        says(&site, said).await?;
        site.put("Patient", "meanwhile").await?;
        site.sql.batch_execute(mending).await?;
        ready(&site).await?;
        let resets = reader.notices("reset").count();
        let address = site.server.address();
        let told = |reader: &Reader| reader.notices("reset").count() > resets && reader.heard_of("meanwhile");
        reader.hear_on(|| address.now(), "the reset", SOON, told).await?;
        site.delete("Patient", "meanwhile").await?;
    }
    site.server.must_run()
}

async fn a_column_that_is_gone_is_named(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    ready(&site).await?;
    site.server.terminate(SOON).await?;
    site.sql.batch_execute("alter table fhir.resource rename column content to document").await?;
    site.server.start().await?;
    says(&site, "fhir.resource has no column content").await?;
    site.sql.batch_execute("alter table fhir.resource rename column document to content").await?;
    ready(&site).await
}

/// Rows as a clock leaves them that was a day ahead.
const AHEAD: &str = "begin; alter table fhir.resource disable trigger stamp_update; \
                     update fhir.resource set last_updated = now() + interval '1 day' where id = 'ahead'; \
                     alter table fhir.resource enable always trigger stamp_update; commit";

async fn stamps_ahead_of_the_clock_are_seen_and_mended(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    for id in ["now", "ahead"] {
        site.put("Patient", id).await?;
    }
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    let url = site.cluster.url("postgres");
    let restamp = || Binary::find()?.succeed(&["migrate", "--restamp", "--database-url", &url]);
    for is_up in [true, false] {
        site.sql.batch_execute(AHEAD).await?;
        if is_up {
            // It looks at once when it connects, and else every minute.
            let cut = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'fhir-tail watermark'";
            site.sql.batch_execute(cut).await?;
            says(&site, "fhir-tail migrate --restamp").await?;
            ensure!(
                site.server.log()?.contains("1 rows are stamped more than a minute ahead"),
                "no log line"
            );
        } else {
            site.server.terminate(SOON).await?;
            reader.cut();
        }
        let said = String::from_utf8(restamp()?.stdout)?;
        ensure!(said.contains("1 rows were stamped ahead of the clock"), "{said}");
        if !is_up {
            site.server.start().await?;
        }
        ready(&site).await?;
        let resets = reader.notices("reset-all").count();
        let address = site.server.address();
        let told = |reader: &Reader| {
            let at = reader.heard.iter().rposition(|heard| heard.what.code() == Some("reset-all"));
            let since = at.map(|at| &reader.heard[at..]).unwrap_or_default();
            let heard = |id: &str| since.iter().any(|heard| heard.what.key().is_some_and(|key| key.id == id));
            let live = since.iter().any(|heard| heard.what.code() == Some("live"));
            reader.notices("reset-all").count() > resets && heard("ahead") && heard("now") && live
        };
        reader.hear_on(|| address.now(), "all of it, stamped again", SOON, told).await?;
        // The next _since that it is told is not ahead of the clock.
        let time = tests::micros(&reader.transaction_time().context("live without a time")?)?;
        let now = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
        let now: i64 = site.sql.query_one(now, &[]).await?.try_get(0)?;
        ensure!(time <= now, "{time} is ahead of {now}");
    }
    // Nothing is ahead any more: nothing begins anew.
    let said = String::from_utf8(restamp()?.stdout)?;
    ensure!(said.contains("0 rows"), "{said}");
    Ok(())
}

/// What the purge has taken away cannot be told any more to one who began before it.
async fn deletions_purged_while_a_replay_was_under_way(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for id in 0..10 {
        site.put("Patient", &format!("p{id}")).await?;
    }
    site.delete("Patient", "p0").await?;
    site.settle().await?;
    let subscribe = Subscribe::with(Client::Raw, "_since=2000-01-01T00:00:00Z");
    let mut reader = Reader::new(subscribe);
    let ended = reader.read(site.server.listening()?, Cut::Events(3), |_| false).await;
    ensure!(ended == Ended::Cut && !reader.noticed("live"), "{ended:?}: {}", reader.tail());
    // A deletion of the last tenth of a second is not purged.
    until("the deletion to be purged", SOON, || async {
        let purged: i64 = site.sql.query_one("select fhir.purge_tombstones(now())", &[]).await?.try_get(0)?;
        Ok((purged > 0).then_some(()))
    })
    .await?;
    reader.connect(site.server.listening()?).await?;
    reader.hear("live", SOON, |reader| reader.noticed("live")).await?;
    let at = reader.heard.iter().position(|heard| heard.what.code() == Some("reset-all"));
    let since = &reader.heard[at.context("no reset-all")?..];
    let ids: Vec<_> = since.iter().filter_map(|heard| Some(heard.what.key()?.id.as_str())).collect();
    ensure!(ids.len() == 9 && !ids.contains(&"p0"), "{ids:?}");
    Ok(())
}

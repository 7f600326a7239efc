//! The facts on which a complete replay depends, broken one by one while the service runs: it is not ready, says why and
//! what mends it, says neither `live` nor `reset-all`, and goes on when it is mended.

use crate::migrated::{check, checked_sql};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::time::Duration;
use tests::{
    Binary, Case, Client, Context, Cut, Ended, Reader, SOON, Site, Subscribe, What, cases, http, put, until,
};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each row_security_hides_nothing_without_a_word,
        once a_policy_in_the_middle_of_a_replay,
        each each_fact_that_fails_is_noticed_and_mended,
        once a_resting_trigger_is_noticed_within_a_minute,
        each deletions_without_tombstones_reset_everybody,
        once a_slot_that_nothing_is_read_from_does_not_fill_the_disk,
        once an_id_is_not_reset_while_a_fact_fails,
        once not_ready_before_a_replay_can_begin,
    ]
}

async fn health(site: &Site) -> Result<(u16, Value)> {
    let mut ready = http::get(site.server.listening()?, "/health/ready", "").await?;
    Ok((ready.status, ready.json().await?))
}

/// Waits until it is not ready, and this fact fails; the reason.
async fn fails(site: &Site, fact: &str) -> Result<String> {
    until(&format!("{fact} to fail"), Duration::from_secs(120), || async {
        let (status, health) = health(site).await?;
        let failing = health["failing_facts"].as_array().context("no list of facts")?.clone();
        let found =
            failing.iter().filter_map(Value::as_str).find(|text| text.starts_with(&format!("{fact}: ")));
        let Some(found) = found else { return Ok(None) };
        ensure!(status == 503, "ready although a fact fails: {health:#}");
        Ok(Some(found.to_owned()))
    })
    .await
}

async fn metric(site: &Site, name: &str) -> Result<f64> {
    let text = String::from_utf8(http::get(site.server.listening()?, "/metrics", "").await?.body().await?)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name}"))?.parse()?)
}

/// Asks, and reads to the end of the stream, or of the refusal: it must not hear of these.
async fn never_hears(site: &Site, reader: &mut Reader, codes: &[&str]) -> Result<()> {
    let at = site.server.listening()?;
    let before: Vec<usize> = codes.iter().map(|code| reader.notices(code).count()).collect();
    let heard =
        |reader: &Reader| codes.iter().zip(&before).any(|(code, n)| reader.notices(code).count() > *n);
    match tokio::time::timeout(SOON, reader.read(at, Cut::Never, heard)).await {
        Ok(Ended::Done) => bail!("one of {codes:?} was said: {}", reader.tail()),
        Ok(_) => Ok(()),
        Err(_) => bail!("neither refused nor served: {}", reader.tail()),
    }
}

async fn row_security_hides_nothing_without_a_word(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for id in ["a", "b"] {
        site.put("Patient", id).await?;
    }
    site.settle().await?;
    for policy in ["", "create policy only_a on fhir.resource for select using (id = 'a');"] {
        for forced in ["", "alter table fhir.resource force row level security;"] {
            let enable = format!("alter table fhir.resource enable row level security; {policy} {forced}");
            site.sql.batch_execute(&enable).await?;
            // Nobody waits for the next look: the first replay that is refused has it looked at.
            for (query, id) in [("", None), ("_since=2000-01-01T00:00:00Z", None), ("", Some("of-another"))] {
                let mut reader = Reader::new(Subscribe::with(Client::Raw, query));
                reader.last_id = id.map(str::to_owned);
                never_hears(&site, &mut reader, &["live", "reset", "reset-all"]).await?;
            }
            let why = fails(&site, "row security").await?;
            ensure!(why.contains(r#"alter role "fhir_tail" bypassrls;"#), "{why}");
            ensure!(metric(&site, r#"fhir_tail_fact_failing{fact="row security"}"#).await? == 1.0);
            ensure!(metric(&site, "fhir_tail_ready").await? == 0.0);
            ensure!(site.server.log()?.contains("no replay begins until somebody mends this"), "not logged");
            site.sql.batch_execute("alter role fhir_tail bypassrls").await?;
            site.ready().await?;
            let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
            reader.hear("both", SOON, |reader| reader.heard_of("a") && reader.heard_of("b")).await?;
            let mend = "alter role fhir_tail nobypassrls; alter table fhir.resource disable row level security; \
                        alter table fhir.resource no force row level security; \
                        drop policy if exists only_a on fhir.resource";
            site.sql.batch_execute(mend).await?;
            site.ready().await?;
        }
    }
    Ok(())
}

/// More than sockets hold, so that a replay is in the middle of it for as long as its reader does not read.
async fn fill(site: &Site) -> Result<()> {
    let fill = "insert into fhir.resource (resource_type, id, content) \
        select 'Patient', 'r' || i, format('{\"resourceType\":\"Patient\",\"text\":\"%s\"}', repeat('x', 9000))::json \
        from generate_series(1, 3000) i";
    site.sql.batch_execute(fill).await?;
    site.settle().await
}

async fn a_policy_in_the_middle_of_a_replay(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    fill(&site).await?;
    let at = site.server.listening()?;
    let mut reader = Reader::new(Subscribe::all(Client::Raw));
    reader.connect(at).await?;
    reader.hear("a part", SOON, |reader| reader.heard.len() > 100).await?;
    site.sql
        .batch_execute(
            "alter table fhir.resource enable row level security; \
             create policy only_a on fhir.resource for select using (id <> 'r2999')",
        )
        .await?;
    let ended = reader.read_on(Cut::Never, |reader| reader.noticed("live")).await;
    ensure!(matches!(ended, Ended::Lost(_)), "{ended:?}: {}", reader.tail());
    fails(&site, "row security").await?;
    never_hears(&site, &mut reader, &["live", "reset", "reset-all"]).await?;
    site.sql.batch_execute("drop policy only_a on fhir.resource; alter role fhir_tail bypassrls").await?;
    site.ready().await?;
    let address = site.server.address();
    reader.hear_on(|| address.now(), "live", SOON, |reader| reader.noticed("live")).await?;
    ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
    for n in 1..=3000 {
        ensure!(reader.about(&format!("r{n}")).count() == 1, "r{n} not once");
    }
    Ok(())
}

/// What fails, and by which name. Some can be mended by the SQL that is offered, the others by what is given here.
const BROKEN: &[(&str, &str, Option<&str>)] = &[
    ("revoke select on fhir.tombstone from fhir_tail", "select", None),
    (
        "revoke select on fhir.resource from fhir_tail; grant select (resource_type, id) on fhir.resource to fhir_tail",
        "select",
        None,
    ),
    ("revoke select on fhir.purged from fhir_tail", "select", None),
    ("alter table fhir.tombstone enable row level security", "row security", None),
    (
        "alter role fhir_tail nobypassrls; alter table fhir.purged enable row level security",
        "row security",
        Some(
            "alter table fhir.purged disable row level security; alter table fhir.tombstone disable row level security",
        ),
    ),
    ("alter table fhir.resource enable trigger all", "triggers", None),
    ("alter table fhir.resource disable trigger after_delete", "triggers", None),
    ("drop trigger stamp_update on fhir.resource", "triggers", None),
    (
        "create function public.mine() returns trigger language plpgsql as 'begin return null; end'; \
         drop trigger after_delete on fhir.resource; \
         create trigger after_delete after delete on fhir.resource for each statement execute function public.mine(); \
         alter table fhir.resource enable always trigger after_delete",
        "triggers",
        None,
    ),
    (
        "create or replace function fhir.after_delete() returns trigger language plpgsql as 'begin return null; end'",
        "triggers",
        None,
    ),
    (
        "create trigger a_swallows before insert on fhir.tombstone for each row execute function public.mine()",
        "triggers",
        None,
    ),
    ("create rule hides as on update to fhir.tombstone do instead nothing", "triggers", None),
    ("create table public.heir () inherits (fhir.resource)", "partitions", None),
    ("alter sequence fhir.version cache 10", "versions", None),
    ("alter table fhir.resource replica identity nothing", "replica identity", None),
    ("alter table fhir.resource drop constraint resource_pkey", "replica identity", None),
];

async fn each_fact_that_fails_is_noticed_and_mended(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "p").await?;
    site.settle().await?;
    for (breaking, fact, mend) in BROKEN {
        // As `check` has it: one list.
        site.sql.batch_execute(breaking).await.with_context(|| (*breaking).to_owned())?;
        let checked = check(&site)?;
        ensure!(checked.contains(fact), "{breaking}: check says {checked}");
        let mut reader = Reader::new(Subscribe::all(Client::Raw));
        never_hears(&site, &mut reader, &["live", "reset-all"])
            .await
            .with_context(|| (*breaking).to_owned())?;
        let why = fails(&site, fact).await.with_context(|| (*breaking).to_owned())?;
        let sql = match mend {
            Some(sql) => (*sql).to_owned(),
            None => checked_sql(&checked, fact)?,
        };
        let offered: String = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(mend.is_some() || why.contains(&offered), "{why} has not {offered}");
        site.sql.batch_execute(&sql).await.with_context(|| sql.clone())?;
        site.ready().await.with_context(|| format!("{sql} does not mend {breaking}"))?;
        let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
        reader.hear("p", SOON, |reader| reader.heard_of("p")).await?;
    }
    // What was broken does its work again.
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.delete("Patient", "p").await?;
    let gone = |reader: &Reader| reader.about("p").any(|what| matches!(what, What::Deletion { .. }));
    reader.hear("the deletion", SOON, gone).await
}

/// Without anybody who asks for a replay; and `migrate` mends it.
async fn a_resting_trigger_is_noticed_within_a_minute(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "p").await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.sql.batch_execute("alter table fhir.resource enable trigger all").await?;
    let why = fails(&site, "triggers").await?;
    ensure!(why.contains("enable always trigger after_delete;"), "{why}");
    // Who is live goes on.
    site.put("Patient", "q").await?;
    reader.hear("q", SOON, |reader| reader.heard_of("q")).await?;
    let migrate = Binary::find()?.succeed(&["migrate", "--database-url", &site.cluster.url("postgres")])?;
    let said = String::from_utf8(migrate.stdout)?;
    ensure!(said.contains("repaired: alter table fhir.resource enable always trigger"), "{said}");
    site.ready().await?;
    let again = Binary::find()?.succeed(&["migrate", "--database-url", &site.cluster.url("postgres")])?;
    ensure!(String::from_utf8(again.stdout)?.starts_with("nothing to do"));
    Ok(())
}

async fn deletions_without_tombstones_reset_everybody(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for id in ["kept", "one", "two", "both"] {
        site.put("Patient", id).await?;
    }
    site.settle().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    let address = site.server.address();
    // These tell of everything.
    let told = "delete from fhir.resource where id = 'two'; \
         begin; delete from fhir.resource where id = 'both'; \
         insert into fhir.resource (resource_type, id, content) values ('Patient', 'both', '{\"resourceType\":\"Patient\"}'); \
         commit; \
         with gone as (delete from fhir.resource where id = 'both' returning *) \
         insert into fhir.resource (resource_type, id, content) select resource_type, id, content from gone; \
         begin; insert into fhir.resource (resource_type, id, content) values ('Patient', 'never', '{\"resourceType\":\"Patient\"}'); \
         delete from fhir.resource where id = 'never'; commit; \
         set session_replication_role = replica; delete from fhir.resource where id = 'both'; \
         reset session_replication_role; \
         insert into fhir.resource (resource_type, id, content) select 'Basic', 'b' || i, '{\"resourceType\":\"Basic\"}' \
           from generate_series(1, 5000) i; \
         delete from fhir.resource where resource_type = 'Basic'; \
         select fhir.purge_tombstones(now()); select fhir.restamp()";
    site.sql.batch_execute(told).await?;
    site.put("Patient", "end").await?;
    reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
    ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
    // All facts hold before and after, and in between rows went without a word.
    let resting = |statement: &str| {
        format!(
            "begin; alter table fhir.resource disable trigger after_delete, disable trigger refuse_truncate; {statement}; \
             alter table fhir.resource enable always trigger after_delete, enable always trigger refuse_truncate; commit"
        )
    };
    for (times, statement) in
        ["delete from fhir.resource where id = 'one'", "truncate fhir.resource"].into_iter().enumerate()
    {
        site.sql.batch_execute(&resting(statement)).await?;
        site.put("Patient", &format!("after-{times}")).await?;
        let (id, before) = (format!("after-{times}"), reader.notices("live").count());
        let done = |reader: &Reader| {
            reader.notices("reset-all").count() > times
                && reader.notices("live").count() > before
                && reader.heard_of(&id)
        };
        if reader.connections > 0 && !done(&reader) {
            reader.hear_on(|| address.now(), "everything again", SOON, done).await?;
        }
        ensure!(reader.notices("reset-all").count() == times + 1, "reset more than once: {}", reader.tail());
        let reset = reader.heard.iter().rposition(|heard| heard.what.code() == Some("reset-all"));
        let since = &reader.heard[reset.context("no reset-all")?..];
        let has = |id: &str| since.iter().any(|heard| heard.what.key().is_some_and(|key| key.id == id));
        ensure!(!has("one"), "what is gone came again");
        ensure!(has("kept") == (times == 0), "kept: {}", reader.tail());
    }
    site.ready().await
}

/// No epoch begins while a fact fails. What the slot holds meanwhile has its limit all the same.
async fn a_slot_that_nothing_is_read_from_does_not_fill_the_disk(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &["--max-wal-held", "16MiB"]).await?;
    site.server.start().await?;
    site.ready().await?;
    site.put("Patient", "before").await?;
    site.sql.batch_execute("alter table fhir.resource rename column content to document").await?;
    let why = fails(&site, "columns").await?;
    ensure!(why.contains("fhir.resource has no column content"), "{why}");
    site.sql.batch_execute("create table noise (x text)").await?;
    until("the slot to be given up", SOON, || async {
        let noise = "insert into noise select repeat(md5(i::text), 30) from generate_series(1, 5000) i";
        site.sql.batch_execute(noise).await?;
        let slots: i64 =
            site.sql.query_one("select count(*) from pg_replication_slots", &[]).await?.try_get(0)?;
        Ok((slots == 0).then_some(()))
    })
    .await?;
    site.sql.batch_execute("alter table fhir.resource rename column document to content").await?;
    site.ready().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    reader.hear("before", SOON, |reader| reader.heard_of("before")).await
}

/// An id that cannot be continued: nobody is told to drop what he has while nothing could replace it.
async fn an_id_is_not_reset_while_a_fact_fails(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    site.put("Patient", "p").await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    reader.hear("p", SOON, |reader| reader.heard_of("p")).await?;
    // The journal is gone, and with it what the id is of.
    site.server.kill().await?;
    std::fs::remove_dir_all(context.directory().join("data").join("journal"))?;
    site.sql.batch_execute("alter table fhir.resource enable row level security").await?;
    site.server.start().await?;
    fails(&site, "row security").await?;
    let at = site.server.listening()?;
    // It has nothing to offer: it waits, or is asked to come back.
    let waiting = reader.read(at, Cut::Never, |reader| reader.noticed("reset-all"));
    if let Ok(Ended::Done) = tokio::time::timeout(Duration::from_secs(3), waiting).await {
        bail!("reset-all was said: {}", reader.tail());
    }
    site.sql.batch_execute("alter role fhir_tail bypassrls").await?;
    let address = site.server.address();
    let done = |reader: &Reader| reader.noticed("reset-all") && reader.notices("live").count() > 1;
    reader.hear_on(|| address.now(), "the reset", SOON, done).await?;
    ensure!(reader.about("p").count() == 2, "{}", reader.tail());
    Ok(())
}

/// Rows of a clock that was a little ahead put the beginning of the journal ahead of the safe time.
async fn not_ready_before_a_replay_can_begin(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &[]).await?;
    site.sql
        .batch_execute(
            "alter table fhir.resource disable trigger all; \
             insert into fhir.resource values ('Patient', 'ahead', 1, clock_timestamp() + interval '8 seconds', \
               '{\"resourceType\":\"Patient\"}'); \
             select setval('fhir.version', 10)",
        )
        .await?;
    Binary::find()?.succeed(&["migrate", "--database-url", &site.cluster.url("postgres")])?;
    site.server.start().await?;
    // One that writes from then on.
    let mut other = site.cluster.connect().await?;
    let open = other.transaction().await?;
    let pid: i32 = open.query_one("select pg_backend_pid()", &[]).await?.try_get(0)?;
    until("the slot to be made", SOON, || async {
        let sql = "select count(*) from pg_replication_slots where active";
        Ok((open.query_one(sql, &[]).await?.try_get::<_, i64>(0)? == 1).then_some(()))
    })
    .await?;
    put(open.client(), "Patient", "open", 1).await?;
    let late: bool = open
        .query_one("select max(last_updated) filter (where id = 'ahead') > now() from fhir.resource", &[])
        .await?
        .try_get(0)?;
    ensure!(late, "the machine was too slow: the transaction began after what lies ahead");
    until("the process to be named", SOON, || async {
        let (status, health) = health(&site).await?;
        ensure!(status == 503, "ready, and no replay can begin: {health:#}");
        let waits = health["safe_time"]["waits_for"].as_str().unwrap_or_default().to_owned();
        Ok(waits.contains(&format!("process {pid} ")).then_some(()))
    })
    .await?;
    ensure!(metric(&site, "fhir_tail_ready").await? == 0.0);
    open.commit().await?;
    site.ready().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    reader.hear("both", SOON, |reader| reader.heard_of("ahead") && reader.heard_of("open")).await?;
    ensure!(metric(&site, "fhir_tail_ready").await? == 1.0);
    Ok(())
}

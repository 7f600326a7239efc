//! What an operator must be able to rely on: WAL is let go, quiet streams stay resumable, stopping is quick and loses nothing.

use anyhow::{Context as _, Result, ensure};
use std::time::Duration;
use tests::{
    Case, Client, Context, Ended, Load, Reader, SOON, Site, Subscribe, Writers, cases, http, put, until,
    within,
};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each an_idle_table_holds_no_wal,
        once a_quiet_stream_resumes_from_its_position,
        each stopping_tells_every_stream_and_loses_nothing,
        once stopping_does_not_wait_for_a_client_that_does_not_read,
        each postgres_can_be_stopped,
        once a_start_behind_an_open_transaction,
        each a_start_reads_no_table_through,
    ]
}

/// Other tables are busy, ours are not: the slot follows all the same.
async fn an_idle_table_holds_no_wal(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "only").await?;
    let _reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.sql.batch_execute("create table noise (x text)").await?;
    let noise = "insert into noise select repeat(md5(i::text), 30) from generate_series(1, 60000) i";
    site.sql.batch_execute(noise).await?;
    let after: String =
        site.sql.query_one("select pg_current_wal_insert_lsn()::text", &[]).await?.try_get(0)?;
    until("the slot to pass the noise", SOON, || async {
        // Where a slot restarts from moves only when Postgres writes down which transactions run.
        site.sql.batch_execute("checkpoint").await?;
        let sql = "select restart_lsn >= ($1::text)::pg_lsn and confirmed_flush_lsn >= ($1::text)::pg_lsn \
                   from pg_replication_slots where plugin = 'pgoutput'";
        let passed: bool = site.sql.query_one(sql, &[&after]).await?.try_get(0)?;
        Ok(passed.then_some(()))
    })
    .await
}

/// Nothing that it asked for happens, other things do: after a minute it is told a position, and comes back with that.
async fn a_quiet_stream_resumes_from_its_position(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let path = "/fhir/Encounter/$export".to_owned();
    let mut quiet = site.live(Subscribe { path, ..Subscribe::all(Client::EventSource) }).await?;
    let live = quiet.last_id.clone();
    site.put("Observation", "other").await?;
    let limit = Duration::from_secs(120);
    quiet.hear("a position", limit, |reader| reader.noticed("position")).await?;
    ensure!(quiet.last_id != live, "the position is where it was");
    quiet.cut();
    site.put("Encounter", "missed").await?;
    site.server.kill().await?;
    site.server.start().await?;
    quiet.connect(site.server.listening()?).await?;
    quiet.hear("what it missed", SOON, |reader| reader.heard_of("missed")).await?;
    ensure!(quiet.about("missed").count() == 1 && !quiet.noticed("reset"), "{}", quiet.tail());
    Ok(())
}

/// The contract: all within this.
const STOP: Duration = Duration::from_secs(10);

async fn stopping_tells_every_stream_and_loses_nothing(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let mut readers = Vec::new();
    for index in 0..12 {
        let client = if index % 2 == 0 { Client::Raw } else { Client::EventSource };
        readers.push(site.live(Subscribe::all(client)).await?);
    }
    let load = Load { writers: 3, pause: Duration::from_millis(3), restarts: false };
    let writers = Writers::start(&site.cluster.config("postgres"), 5, &load);
    writers.reach(50).await?;
    let reading: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            tokio::spawn(async move {
                let ended = reader.read_on(tests::Cut::Never, |_| false).await;
                (reader, ended)
            })
        })
        .collect();
    let status = site.server.terminate(STOP).await?;
    ensure!(status.success(), "it ended with {status}");
    let mut stopped = Vec::new();
    for reading in reading {
        let (reader, ended) = within("the streams to end", SOON, async { Ok(reading.await?) }).await?;
        ensure!(matches!(ended, Ended::Lost(_)), "{ended:?}");
        let last = reader.heard.last().context("nothing was heard")?;
        ensure!(last.what.code() == Some("shutdown"), "{}", reader.tail());
        stopped.push(reader);
    }
    writers.reach(120).await?;
    site.server.start().await?;
    writers.stop().await?;
    site.put("Patient", "end").await?;
    let mut versions: Option<Vec<String>> = None;
    for mut reader in stopped {
        reader.connect(site.server.listening()?).await?;
        reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
        // They were all live before the first write: each has heard the same.
        let changes = reader.heard.iter().filter(|heard| heard.what.key().is_some());
        let heard: Vec<String> = changes.map(|heard| format!("{:?}", heard.what)).collect();
        ensure!(versions.get_or_insert_with(|| heard.clone()) == &heard, "{}", reader.tail());
        ensure!(!reader.noticed("reset"), "{}", reader.tail());
    }
    Ok(())
}

async fn stopping_does_not_wait_for_a_client_that_does_not_read(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let stuck = http::get(site.server.listening()?, "/fhir/$export", "Accept: text/event-stream\r\n").await?;
    let fill = "insert into fhir.resource (resource_type, id, content) \
        select 'Patient', 'p' || i, format('{\"resourceType\":\"Patient\",\"text\":\"%s\"}', repeat('x', 9000))::json \
        from generate_series(1, 3000) i";
    site.sql.batch_execute(fill).await?;
    // As soon as somebody else has it all, the one who does not read is full.
    let mut reader = site.reader(Subscribe::all(Client::Raw)).await?;
    let enough = |reader: &Reader| reader.noticed("live") && reader.heard.len() >= 3_002;
    reader.hear("everything", SOON, enough).await?;
    let status = site.server.terminate(STOP).await?;
    ensure!(status.success(), "it ended with {status}");
    drop(stuck);
    Ok(())
}

/// `pg_ctl stop -m fast` waits until walsenders have sent everything: with streams open, and with writes up to the end.
async fn postgres_can_be_stopped(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    for round in 0..3 {
        let fill = format!(
            "insert into fhir.resource (resource_type, id, content) \
             select 'Patient', 'p{round}-' || i, format('{{\"resourceType\":\"Patient\",\"text\":\"%s\"}}', repeat('x', 900))::json \
             from generate_series(1, 3000) i"
        );
        let writer = site.cluster.connect().await?;
        let writing = tokio::spawn(async move {
            let mut n = 0;
            while put(&writer, "Patient", &format!("w{round}-{n}"), 1).await.is_ok() {
                n += 1;
            }
            n
        });
        site.sql.batch_execute(&fill).await?;
        site.cluster.stop_fast().await?;
        ensure!(within("the writer to be stopped", SOON, async { Ok(writing.await?) }).await? > 0, "no load");
        site.cluster.start_again().await?;
        site.sql = site.cluster.connect().await?;
        // Of the last write only the database knows whether it was committed.
        let stored = site.sql.query("select id from fhir.resource order by id", &[]).await?;
        let stored: Vec<String> = stored.iter().map(|row| row.get(0)).collect();
        let heard = |reader: &Reader| -> Vec<String> {
            let keys = reader.heard.iter().filter_map(|heard| heard.what.key());
            keys.map(|key| key.id.clone()).collect()
        };
        let address = site.server.address();
        let all = |reader: &Reader| heard(reader).len() >= stored.len();
        if !all(&reader) {
            // The stream may go on, or may have ended with a notice: either is fine.
            reader.hear_on(|| address.now(), "everything", SOON, all).await?;
        }
        let mut heard = heard(&reader);
        heard.sort_unstable();
        ensure!(heard == stored, "{} of {}: {}", heard.len(), stored.len(), reader.tail());
        site.server.must_run()?;
    }
    ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
    Ok(())
}

/// A slot can be made only when every transaction of the cluster that is open has ended: until then the service listens, is
/// not ready, and says whom it waits for.
async fn a_start_behind_an_open_transaction(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &[]).await?;
    site.put("Patient", "before").await?;
    let mut other = site.cluster.connect().await?;
    let long = other.transaction().await?;
    put(long.client(), "Patient", "long", 1).await?;
    let pid: i32 = long.query_one("select pg_backend_pid()", &[]).await?.try_get(0)?;
    site.server.start().await?;
    let at = site.server.listening()?;
    let body = until("the one who is waited for", SOON, || async {
        let mut ready = http::get(at, "/health/ready", "").await?;
        ensure!(ready.status == 503, "it is ready, and has no slot");
        let body = String::from_utf8(ready.body().await?)?;
        Ok(body.contains(&pid.to_string()).then_some(body))
    });
    body.await?;
    long.commit().await?;
    until("ready", SOON, || async {
        Ok((http::get(at, "/health/ready", "").await?.status == 200).then_some(()))
    })
    .await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    reader.hear("both", SOON, |reader| reader.heard_of("before") && reader.heard_of("long")).await?;
    Ok(())
}

/// However many rows there are, and although the planner knows nothing of them yet.
async fn a_start_reads_no_table_through(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &["autovacuum = off"], &[]).await?;
    let load = "set fhir.bulk_load = on; \
        insert into fhir.resource (resource_type, id, content) \
        select t, n::text, json_build_object('resourceType', t) \
        from generate_series(1, 20000) n, unnest(array['Condition', 'Observation']) t";
    site.sql.batch_execute(load).await?;
    // What a session has read is known for certain when it has ended.
    let gone = || async {
        let sql = "select count(*) from pg_stat_activity where usename = 'fhir_tail'";
        Ok((site.sql.query_one(sql, &[]).await?.try_get::<_, i64>(0)? == 0).then_some(()))
    };
    let read = || async {
        let sql = "select sum(seq_tup_read)::int8, sum(idx_scan)::int8 from pg_stat_user_tables where schemaname = 'fhir'";
        let row = site.sql.query_one(sql, &[]).await?;
        anyhow::Ok((row.try_get::<_, i64>(0)?, row.try_get::<_, i64>(1)?))
    };
    let before = read().await?;
    site.server.start().await?;
    site.ready().await?;
    site.server.terminate(SOON).await?;
    until("the server's sessions to end", SOON, gone).await?;
    let (through, by_index) = read().await?;
    ensure!(by_index > before.1, "nothing was looked up: is it counted?");
    ensure!(through == before.0, "{} rows were read", through - before.0);
    Ok(())
}

//! Situations reported by people who run change data capture, event streams and FHIR servers, which hold here:
//! `docs/field.md` lists them.

use crate::wire::{EVENTS, frames, says};
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::write::GzDecoder;
use std::collections::HashSet;
use std::io::Write as _;
use tests::{
    Case, Client, Context, Cut, Disk, Ended, Nginx, Reader, SOON, Site, Subscribe, cases, http, put, until,
    within,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) fn cases() -> Vec<Case> {
    let mut behind_nginx = cases![once nginx_with_gzip_and_cache_passes_events_as_they_come];
    behind_nginx.iter_mut().for_each(|case| case.skip = Nginx::missing);
    let cases = cases![
        each rolled_back_changes_do_not_cost_the_connection,
        each prepared_transaction_survives_a_crash_and_comes_once,
        each rewritten_and_altered_tables_lose_nothing,
        each asynchronous_commit_that_a_crash_takes_is_not_told,
        once damaged_ids_never_continue_in_silence,
        once ambiguous_requests_get_one_answer,
    ];
    let mut on_a_disk = cases![
        once full_journal_disk_and_a_kill_lose_nothing,
        once a_kill_within_replays_while_the_disk_is_full_is_no_reset,
    ];
    on_a_disk.iter_mut().for_each(|case| case.skip = not_root);
    [cases, behind_nginx, on_a_disk].concat()
}

/// Why a test is ignored that mounts a disk.
pub(crate) fn not_root() -> Option<String> {
    (!nix::unistd::Uid::effective().is_root()).then(|| "only root may mount a disk".to_owned())
}

/// The walsender has nothing to send while it decodes what was rolled back, and ends a connection that is silent for
/// longer than `wal_sender_timeout`.
async fn rolled_back_changes_do_not_cost_the_connection(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &["wal_sender_timeout = 1s"], &[]).await?;
    site.server.start().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    let rolled_back = "begin; \
        insert into fhir.resource (resource_type, id, content) \
        select 'Patient', 'r' || n, '{\"resourceType\":\"Patient\"}' from generate_series(1, 200000) n; \
        rollback";
    site.sql.batch_execute(rolled_back).await?;
    site.put("Patient", "after").await?;
    reader.hear("what came after", SOON, |reader| reader.heard_of("after")).await?;
    ensure!(reader.heard.iter().filter(|heard| heard.what.key().is_some()).count() == 1, "{}", reader.tail());
    ensure!(site.metric("fhir_tail_source_reconnects_total").await? == 0.0, "the connection was lost");
    Ok(())
}

/// Prepared, the database crashes, and it is committed afterwards: each of its changes comes once.
async fn prepared_transaction_survives_a_crash_and_comes_once(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    site.put("Patient", "before").await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.sql.batch_execute("begin").await?;
    put(&site.sql, "Patient", "prepared", 1).await?;
    site.sql.batch_execute("prepare transaction 'two-phase'").await?;
    site.cluster.stop_immediate().await?;
    site.cluster.start_again().await?;
    site.sql = site.cluster.connect().await?;
    site.put("Patient", "between").await?;
    let address = site.server.address();
    reader.hear_on(|| address.now(), "one between", SOON, |reader| reader.heard_of("between")).await?;
    ensure!(!reader.heard_of("prepared"), "{}", reader.tail());
    site.sql.batch_execute("commit prepared 'two-phase'").await?;
    reader.hear_on(|| address.now(), "the prepared one", SOON, |reader| reader.heard_of("prepared")).await?;
    site.put("Patient", "end").await?;
    reader.hear_on(|| address.now(), "the end", SOON, |reader| reader.heard_of("end")).await?;
    for id in ["before", "prepared", "between", "end"] {
        ensure!(reader.about(id).count() == 1, "{id}: {}", reader.tail());
    }
    ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
    Ok(())
}

/// It can be seen before it is on disk, by a replay too. Some are lost in a crash, which is not told, and some are not.
async fn asynchronous_commit_that_a_crash_takes_is_not_told(context: Context) -> Result<()> {
    const LOST: usize = 2;
    let mut site = Site::prepare(&context, &["wal_writer_delay = 10s"], &[]).await?;
    site.server.start().await?;
    let mut live = site.live(Subscribe::all(Client::Raw)).await?;
    let (mut round, mut lost) = (0, 0);
    while lost < LOST {
        ensure!(round < 20, "a crash has taken {lost} commits in {round} rounds");
        round += 1;
        let (id, end) = (format!("seen-{round}"), format!("end-{round}"));
        let address = site.server.address();
        let mut replay = Reader::new(Subscribe::all(Client::Raw));
        let other = site.cluster.connect().await?;
        site.sql.batch_execute("set synchronous_commit = off").await?;
        replay.connect(site.server.listening()?).await?;
        // Each watermark that the service takes brings to disk what is there. On a busy machine one may always come between.
        let stands_still = round > 10;
        if stands_still {
            site.server.freeze()?;
        }
        put(&site.sql, "Patient", &id, 1).await?;
        let is_there = "select count(*) from fhir.resource where id = $1";
        ensure!(other.query_one(is_there, &[&id]).await?.try_get::<_, i64>(0)? == 1, "nobody sees it");
        site.cluster.stop_immediate().await?;
        if stands_still {
            site.server.thaw()?;
        }
        drop(other);
        site.cluster.start_again().await?;
        site.sql = site.cluster.connect().await?;
        site.put("Patient", &end).await?;
        let kept = site.sql.query_one(is_there, &[&id]).await?.try_get::<_, i64>(0)? == 1;
        lost += usize::from(!kept);
        for reader in [&mut live, &mut replay] {
            reader.hear_on(|| address.now(), "the end", SOON, |reader| reader.heard_of(&end)).await?;
            let times = reader.about(&id).count();
            ensure!(times == usize::from(kept), "{id}, kept: {kept}, {times} times: {}", reader.tail());
            ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
        }
    }
    Ok(())
}

/// Statements that rewrite the table or change its shape, with writes between them.
async fn rewritten_and_altered_tables_lose_nothing(context: Context) -> Result<()> {
    const STATEMENTS: [&str; 10] = [
        "vacuum full fhir.resource",
        "cluster fhir.resource using resource_pkey",
        "alter table fhir.resource add column note text default 'none'",
        "alter table fhir.resource alter column note type varchar(20)",
        "alter table fhir.resource drop column note",
        "alter table fhir.resource alter column content set storage external",
        "alter table fhir.resource set (fillfactor = 80)",
        "create index extra on fhir.resource (version_id)",
        "reindex table fhir.resource",
        "alter table fhir.resource add constraint sane check (version_id > 0)",
    ];
    let site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    let mut written = Vec::new();
    for (number, statement) in STATEMENTS.iter().enumerate() {
        for id in [format!("new-{number}"), "again".to_owned()] {
            written.push((id.clone(), site.put("Patient", &id).await?));
        }
        site.sql.batch_execute(statement).await.with_context(|| (*statement).to_owned())?;
    }
    site.put("Patient", "end").await?;
    reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
    ensure!(reader.about("again").count() == STATEMENTS.len(), "{}", reader.tail());
    for (id, _) in written.iter().filter(|(id, _)| id != "again") {
        ensure!(reader.about(id).count() == 1, "{id}: {}", reader.tail());
    }
    ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
    // Who begins now gets the same from the tables.
    site.settle().await?;
    let late = site.live(Subscribe::all(Client::Raw)).await?;
    let resources = late.heard.iter().filter(|heard| heard.what.key().is_some()).count();
    ensure!(resources == STATEMENTS.len() + 2, "{}", late.tail());
    Ok(())
}

/// The journal's disk is full: live clients go on. The service is killed in that state, there is room again, and it starts.
async fn full_journal_disk_and_a_kill_lose_nothing(context: Context) -> Result<()> {
    let disk = Disk::mount(&context.directory().join("data"))?.context("root may not mount a disk here")?;
    let mut site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.put("Patient", "before").await?;
    reader.hear("one before", SOON, |reader| reader.heard_of("before")).await?;
    disk.fill()?;
    let written = until_the_journal_fails(&site).await?;
    site.put("Patient", "while-full").await?;
    reader.hear("a live change", SOON, |reader| reader.heard_of("while-full")).await?;
    site.server.kill().await?;
    disk.free()?;
    site.server.start().await?;
    site.put("Patient", "end").await?;
    reader.connect(site.server.listening()?).await?;
    reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
    for id in ["before", "while-full", "end"] {
        ensure!(reader.about(id).count() == 1, "{id}: {}", reader.tail());
    }
    let resources = reader.heard.iter().filter(|heard| heard.what.key().is_some()).count();
    ensure!(resources == written * 200 + 3, "{resources} of {}: {}", written * 200 + 3, reader.tail());
    ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
    Ok(())
}

/// Writes until the journal's disk, which is nearly full, is full; so many times 200 patients.
pub(crate) async fn until_the_journal_fails(site: &Site) -> Result<usize> {
    let mut written = 0;
    until("the journal to fail", SOON, || {
        written += 1;
        let fill = format!(
            "insert into fhir.resource (resource_type, id, content) \
             select 'Patient', 'full-{written}-' || i, format('{{\"resourceType\":\"Patient\",\"text\":\"%s\"}}', \
             (select string_agg(md5(random()::text || n || i), '') from generate_series(1, 300) n))::json \
             from generate_series(1, 200) i"
        );
        async move {
            site.sql.batch_execute(&fill).await?;
            Ok((site.metric("fhir_tail_journal_ok").await? == 0.0).then_some(()))
        }
    })
    .await?;
    Ok(written)
}

/// No id is given out that nothing on disk would prove: a replay that begins waits. One that had begun goes on.
async fn a_kill_within_replays_while_the_disk_is_full_is_no_reset(context: Context) -> Result<()> {
    const ROWS: usize = 4_000;
    const PART: u64 = 1_000;
    let disk = Disk::mount(&context.directory().join("data"))?.context("root may not mount a disk here")?;
    let mut site = Site::start(&context).await?;
    let rows = format!(
        "insert into fhir.resource (resource_type, id, content) \
         select 'Observation', 'row-' || i, '{{\"resourceType\":\"Observation\"}}' from generate_series(1, {ROWS}) i"
    );
    site.change(&rows).await?;
    let mut begun = site.reader(Subscribe::all(Client::Raw)).await?;
    ensure!(begun.read_on(Cut::Events(PART), |_| false).await == Ended::Cut, "{}", begun.tail());
    disk.fill()?;
    let written = until_the_journal_fails(&site).await?;
    let at = site.server.listening()?;
    let mut begins = site.reader(Subscribe::all(Client::Raw)).await?;
    until("the replay to wait", SOON, || async {
        Ok((site.metric("fhir_tail_replays_waiting").await? == 1.0).then_some(()))
    })
    .await?;
    let ready = http::get(at, "/health/ready", "").await?.body().await?;
    let ready: serde_json::Value = serde_json::from_slice(&ready)?;
    ensure!(ready["safe_time"]["waits_for"] == "the journal cannot be written", "{ready:#}");
    ensure!(begun.read(at, Cut::Events(PART), |_| false).await == Ended::Cut, "{}", begun.tail());
    site.server.kill().await?;
    begins.cut();
    ensure!(begins.last_id.is_none(), "{}", begins.tail());
    // It is killed once more in the same state. Whether it could note its run depends on the last few bytes of the disk.
    site.server.start().await?;
    begun.connect(site.server.listening()?).await?;
    site.server.kill().await?;
    let ended = begun.read_on(Cut::Never, |_| false).await;
    ensure!(matches!(ended, Ended::Lost(_)), "{ended:?}: {}", begun.tail());
    disk.free()?;
    site.server.start().await?;
    site.put("Patient", "end").await?;
    for reader in [&mut begun, &mut begins] {
        reader.connect(site.server.listening()?).await?;
        reader.hear("the end", SOON, |reader| reader.heard_of("end") && reader.noticed("live")).await?;
        ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
        let heard: Vec<_> = reader.heard.iter().filter_map(|heard| heard.what.key()).collect();
        let different: HashSet<_> = heard.iter().collect();
        let wanted = ROWS + written * 200 + 1;
        ensure!((heard.len(), different.len()) == (wanted, wanted), "{} of {wanted}", heard.len());
    }
    Ok(())
}

/// One bit of an id is flipped, each in turn, and an id is cut short at each length: the client is told that it cannot be
/// continued.
async fn damaged_ids_never_continue_in_silence(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "p").await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.put("Patient", "q").await?;
    reader.hear("a live event", SOON, |reader| reader.heard_of("q")).await?;
    let at = site.server.listening()?;
    let id = reader.last_id.clone().context("no id")?;
    let bytes = URL_SAFE_NO_PAD.decode(&id)?;
    let flipped = (0..bytes.len() * 8).map(|bit| {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        URL_SAFE_NO_PAD.encode(damaged)
    });
    let cut = (1..id.len()).map(|length| id[..length].to_owned());
    for damaged in flipped.chain(cut).collect::<Vec<_>>() {
        let header = format!("{EVENTS}Last-Event-ID: {damaged}\r\n");
        let mut response = http::get(at, "/fhir/$export", &header).await?;
        ensure!(response.status == 200, "{damaged}: {}", response.status);
        let (_, heard) = frames(&mut response, |frame| says(frame, "live")).await?;
        ensure!(
            heard.iter().any(|frame| says(frame, "reset") || says(frame, "reset-all")),
            "{damaged}: {heard:?}"
        );
    }
    // The id itself is good.
    reader.cut();
    let mut again = Reader::new(reader.subscribe.clone());
    again.last_id = Some(id);
    again.connect(site.server.listening()?).await?;
    site.put("Patient", "r").await?;
    again.hear("what follows", SOON, |reader| reader.heard_of("r")).await?;
    ensure!(!again.noticed("reset-all") && again.about("q").count() == 0, "{}", again.tail());
    Ok(())
}

/// Requests that two servers in a row may read differently. Each is refused, or gets one answer and the connection is closed:
/// a second request that was smuggled in is not answered.
async fn ambiguous_requests_get_one_answer(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let at = site.server.listening()?;
    let smuggled = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let shapes = [
        ("both lengths", "GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("two lengths", "GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".to_owned()),
        ("a signed length", "GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello".to_owned()),
        ("a folded header", "GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n".to_owned()),
        ("a blank before the colon", "GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nContent-Length : 5\r\n\r\nhello".to_owned()),
        ("no host", "GET /fhir/metadata HTTP/1.1\r\n\r\n".to_owned()),
        ("two hosts", "GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n".to_owned()),
        ("an odd encoding", "GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("a null in a header", "GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n".to_owned()),
        ("another version", "GET /fhir/metadata HTTP/3.7\r\nHost: localhost\r\n\r\n".to_owned()),
    ];
    let mut refused = 0;
    for (shape, request) in shapes {
        let mut socket = TcpStream::connect(at).await?;
        socket.write_all((request + smuggled).as_bytes()).await?;
        // Nothing more comes: who waits for the rest of a request need not.
        socket.shutdown().await?;
        let mut answer = Vec::new();
        // A connection that is closed while something lies unread in it is reset: that is its end, too.
        let read = async { Ok(socket.read_to_end(&mut answer).await.is_ok()) };
        within("the connection to end", SOON, read).await?;
        let answer = String::from_utf8_lossy(&answer);
        let statuses: Vec<&str> = answer.lines().filter(|line| line.starts_with("HTTP/1.1 ")).collect();
        ensure!(statuses.len() <= 1, "{shape}: {statuses:?}");
        refused += usize::from(statuses.iter().all(|status| status.starts_with("HTTP/1.1 4")));
    }
    ensure!(refused >= 8, "only {refused} of them are refused");
    until("the service to answer", SOON, || async {
        Ok((http::get(at, "/health/live", "").await?.status == 200).then_some(()))
    })
    .await
}

/// As distributions and their users set it up: buffering on, gzip on for everything, a cache.
async fn nginx_with_gzip_and_cache_passes_events_as_they_come(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let cache = context.directory().join("nginx-cache");
    let http = format!("proxy_cache_path {} keys_zone=all:1m;\ngzip on;\ngzip_types *;\n", cache.display());
    let location = "proxy_cache all;\nproxy_cache_valid any 1h;\ngzip_proxied any;\n";
    let nginx = Nginx::start_with(&context, site.server.listening()?, &http, location).await?;
    for round in 0..2 {
        // As a browser asks.
        let headers = format!("{EVENTS}Accept-Encoding: gzip\r\n");
        let mut response = http::get(nginx.address(), "/fhir/$export", &headers).await?;
        let zipped = response.header("Content-Encoding") == Some("gzip");
        ensure!(zipped, "nginx does not compress: {:?}", response.headers);
        let mut plain = GzDecoder::new(Vec::new());
        let text = async |response: &mut http::Response, plain: &mut GzDecoder<Vec<u8>>, wanted: &str| {
            let read = async {
                while !String::from_utf8_lossy(plain.get_ref()).contains(wanted) {
                    plain.write_all(&response.next().await?.context("the stream ended")?)?;
                    plain.flush()?;
                }
                Ok(())
            };
            within(wanted, SOON, read).await
        };
        text(&mut response, &mut plain, r#""code":"live""#).await?;
        let id = format!("p{round}");
        site.put("Patient", &id).await?;
        text(&mut response, &mut plain, &format!(r#""id":"{id}""#)).await?;
    }
    Ok(())
}

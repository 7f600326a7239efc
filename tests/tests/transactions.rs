//! Transactions that make it hard: open across a subscriber's start, committed during a replay, decoded but not visible,
//! prepared, very large.

use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tests::check::{Expect, check};
use tests::sse::{Item, Parser};
use tests::{
    Case, Client, Context, Cut, Heard, History, Key, Reader, SOON, Site, Subscribe, Table, What, cases, http,
    micros, put, until, within,
};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each one_open_across_a_start_delays_nobody,
        each one_that_commits_during_a_replay,
        each one_that_is_decoded_and_not_visible,
        each a_prepared_one,
        each transaction_time_is_the_next_since,
        once one_of_300_000_resources,
    ]
}

/// Compares what a subscriber of everything has heard with what was committed.
async fn judge(site: &Site, heard: &[Heard]) -> Result<()> {
    let (history, table) = (History::read(&site.sql).await?, Table::read(&site.sql).await?);
    check(heard, Expect { history: &history, table: &table, types: &[], since: None, resets: false })
        .with_context(|| format!("it heard {heard:#?}"))
}

/// How often something was said about a resource.
fn times(reader: &Reader, id: &str) -> usize {
    reader.about(id).count()
}

async fn one_open_across_a_start_delays_nobody(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    History::begin(&site.sql).await?;
    site.put("Patient", "before").await?;
    // Replays wait until the safe time has passed the moment when the journal began: nothing may hold it back then.
    site.settle().await?;
    let mut other = site.cluster.connect().await?;
    let long = other.transaction().await?;
    put(long.client(), "Patient", "long", 1).await?;
    site.put("Patient", "meanwhile").await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    reader
        .hear("the others", SOON, |reader| reader.heard_of("before") && reader.heard_of("meanwhile"))
        .await?;
    ensure!(!reader.heard_of("long"), "it is not committed");
    let mut resumed = Reader::new(Subscribe::all(Client::EventSource));
    resumed.heard = reader.heard.clone();
    resumed.last_id = reader.last_id.clone();
    resumed.connect(site.server.listening()?).await?;
    long.commit().await?;
    site.put("Patient", "end").await?;
    for reader in [&mut reader, &mut resumed] {
        reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
        ensure!(times(reader, "long") == 1, "{}", reader.tail());
        judge(&site, &reader.heard).await?;
    }
    Ok(())
}

/// The subscriber stops reading in the middle of its replay; what is committed then is stamped before, meanwhile and on
/// rows that it has had and has not had.
async fn one_that_commits_during_a_replay(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    History::begin(&site.sql).await?;
    // Far more than sockets hold.
    site.sql
        .batch_execute(
            "insert into fhir.resource (resource_type, id, content) \
             select 'Patient', 'r' || i, format('{\"resourceType\":\"Patient\",\"n\":%s,\"text\":\"%s\"}', i, repeat('x', 9000))::json \
             from generate_series(1, 2000) i",
        )
        .await?;
    site.settle().await?;
    let mut other = site.cluster.connect().await?;
    let long = other.transaction().await?;
    put(long.client(), "Patient", "r1", 10_001).await?;
    put(long.client(), "Patient", "r1999", 11_999).await?;
    put(long.client(), "Patient", "new", 1).await?;
    let address = site.server.listening()?;
    let mut reader = site.reader(Subscribe::all(Client::Raw)).await?;
    reader.hear("a part of the replay", SOON, |reader| reader.heard.len() >= 300).await?;
    let mut cut = Reader::new(Subscribe::all(Client::EventSource));
    cut.read(address, Cut::Events(300), |_| false).await;
    ensure!(!reader.noticed("live") && !cut.noticed("live"), "the replay is over already");
    site.put("Patient", "r2").await?;
    long.commit().await?;
    site.put("Patient", "r2000").await?;
    site.delete("Patient", "r3").await?;
    site.delete("Patient", "r1998").await?;
    site.put("Patient", "end").await?;
    cut.connect(address).await?;
    for reader in [&mut reader, &mut cut] {
        let done = |reader: &Reader| reader.heard_of("end") && reader.noticed("live");
        reader.hear("the end", SOON, done).await?;
        judge(&site, &reader.heard).await?;
    }
    Ok(())
}

/// With a synchronous standby that never comes, a commit is in the log, and decoded, but nobody sees it.
async fn one_that_is_decoded_and_not_visible(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    History::begin(&site.sql).await?;
    site.put("Patient", "before").await?;
    site.put("Patient", "changed").await?;
    let mut live = site.live(Subscribe::all(Client::Raw)).await?;
    site.sql.batch_execute("alter system set synchronous_standby_names = 'nobody'").await?;
    site.sql.batch_execute("select pg_reload_conf(); set synchronous_commit = local").await?;
    until("the setting", SOON, || async {
        let row = site.sql.query_one("select current_setting('synchronous_standby_names')", &[]).await?;
        Ok((row.get::<_, &str>(0) == "nobody").then_some(()))
    })
    .await?;
    let other = site.cluster.connect().await?;
    let waiting = tokio::spawn(async move {
        put(&other, "Patient", "invisible", 1).await?;
        other.batch_execute("begin").await?;
        put(&other, "Patient", "changed", 2).await?;
        other.batch_execute("commit").await.map_err(anyhow::Error::from)
    });
    live.hear("what nobody sees", SOON, |reader| reader.heard_of("invisible")).await?;
    let seen = Table::read(&site.sql).await?;
    ensure!(
        !seen.resources.contains_key(&Key::new("Patient", "invisible")),
        "it is visible: nothing is tested"
    );

    let mut late = site.live(Subscribe::all(Client::EventSource)).await?;
    late.hear("it", SOON, |reader| reader.heard_of("invisible")).await?;
    site.server.kill().await?;
    site.server.start().await?;
    let address = site.server.listening()?;
    live.connect(address).await?;
    late.connect(address).await?;
    let mut later = site.live(Subscribe::all(Client::Raw)).await?;
    later.hear("it", SOON, |reader| reader.heard_of("invisible")).await?;
    // Others go on, with commits that wait for nobody.
    put(&site.sql, "Patient", "local", 1).await?;

    site.sql.batch_execute("alter system reset synchronous_standby_names").await?;
    site.sql.batch_execute("select pg_reload_conf()").await?;
    within("the commits to be seen", SOON, async { waiting.await? }).await?;
    site.put("Patient", "end").await?;
    for reader in [&mut live, &mut late, &mut later] {
        reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
        ensure!(times(reader, "invisible") == 1, "{}", reader.tail());
        judge(&site, &reader.heard).await?;
    }
    Ok(())
}

async fn a_prepared_one(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    History::begin(&site.sql).await?;
    site.put("Patient", "before").await?;
    site.settle().await?;
    site.sql.batch_execute("begin").await?;
    site.put("Patient", "prepared").await?;
    site.sql.batch_execute("prepare transaction 'one'").await?;
    site.put("Patient", "after").await?;
    let mut early = site.live(Subscribe::all(Client::Raw)).await?;
    early.hear("what came after", SOON, |reader| reader.heard_of("after")).await?;
    ensure!(!early.heard_of("prepared"), "it is not committed");
    site.server.kill().await?;
    site.server.start().await?;
    let mut late = site.live(Subscribe::all(Client::EventSource)).await?;
    early.connect(site.server.listening()?).await?;
    site.sql.batch_execute("commit prepared 'one'").await?;
    site.put("Patient", "end").await?;
    for reader in [&mut early, &mut late] {
        reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
        ensure!(times(reader, "prepared") == 1, "{}", reader.tail());
        judge(&site, &reader.heard).await?;
    }
    Ok(())
}

/// A client that asks again and again, each time since the transactionTime of the last: a long transaction that commits in
/// between is in the next answer.
async fn transaction_time_is_the_next_since(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    History::begin(&site.sql).await?;
    site.put("Patient", "first").await?;
    site.settle().await?;
    let mut other = site.cluster.connect().await?;
    let mut known: Vec<What> = Vec::new();
    let mut since: Option<String> = None;
    for round in 0..4 {
        let long = other.transaction().await?;
        put(long.client(), "Patient", &format!("long{round}"), 1).await?;
        put(long.client(), "Patient", "contended", round).await?;
        site.put("Patient", &format!("quick{round}")).await?;
        // Long enough for a safe time that forgets it to pass it.
        site.sql.batch_execute("select pg_sleep(0.3)").await?;
        let query = since.as_ref().map(|since| format!("_since={since}")).unwrap_or_default();
        let reader = site.live(Subscribe::with(Client::Raw, &query)).await?;
        if let Some(since) = &since {
            let since = micros(since)?;
            let late = |what: &What| match what {
                What::Resource { stamp, .. } | What::Deletion { stamp, .. } => *stamp > since,
                What::Notice { .. } => true,
            };
            ensure!(reader.heard.iter().all(|heard| late(&heard.what)), "{}", reader.tail());
        }
        // A poller takes what there is up to `live`, and hangs up.
        since = reader.transaction_time();
        ensure!(since.is_some(), "no transactionTime");
        known.extend(reader.heard.into_iter().map(|heard| heard.what));
        if round == 2 {
            long.rollback().await?;
        } else {
            long.commit().await?;
        }
    }
    site.settle().await?;
    let query = format!("_since={}", since.context("no transactionTime")?);
    let reader = site.live(Subscribe::with(Client::Raw, &query)).await?;
    known.extend(reader.heard.into_iter().map(|heard| heard.what));
    for (key, (version, _)) in Table::read(&site.sql).await?.resources {
        let newest = known.iter().rev().find(|what| what.key() == Some(&key));
        ensure!(
            matches!(newest, Some(What::Resource { version: known, .. }) if *known == version),
            "{key} {version}, and {newest:?} is known"
        );
    }
    Ok(())
}

/// What a process of ours may take at most, whatever the size of a transaction.
const MEMORY: u64 = 150 * 1024 * 1024;

const ASK: &str = "Prefer: respond-eventsource\r\n";

async fn one_of_300_000_resources(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let address = site.server.listening()?;
    let mut live = Counter::connect(address, "/fhir/$export").await?;
    within("live", SOON, live.count(0)).await?;
    // Another one, who does not read at all until the first has everything.
    let mut slow = Counter::connect(address, "/fhir/$export?_type=Observation").await?;
    within("live", SOON, slow.count(0)).await?;
    let insert = "insert into fhir.resource (resource_type, id, content) \
        select 'Observation', 'o' || i, format('{\"resourceType\":\"Observation\",\"n\":%s,\"status\":\"final\",\
        \"code\":{\"text\":\"%s\"}}', i, repeat('x', 200))::json from generate_series(1, 300000) i";
    let began = tokio::time::Instant::now();
    site.sql.batch_execute(insert).await?;
    let limit = Duration::from_secs(200);
    within("the transaction", limit, live.count(300_000)).await?;
    ensure!(
        live.numbers.iter().copied().eq(1..=300_000),
        "not each once and in order: {}",
        live.numbers.len()
    );
    let peak = site.server.peak_memory()?;
    ensure!(peak < MEMORY, "{} MiB at most with the transaction live", peak >> 20);

    // The slow one hears everything from the journal now, and a new one from the tables.
    within("the slow one", limit, slow.count_on(300_000)).await?;
    ensure!(slow.numbers.iter().copied().eq(1..=300_000), "the slow one: not each once and in order");
    let mut late = Counter::connect(address, "/fhir/Observation/$export").await?;
    within("the replay", limit, late.count(300_000)).await?;
    late.numbers.sort_unstable();
    ensure!(late.numbers.iter().copied().eq(1..=300_000), "the replay: not each once");
    let peak = site.server.peak_memory()?;
    ensure!(peak < MEMORY, "{} MiB at most after a replay", peak >> 20);
    report(&format!("300,000 resources in {:?}, {} MiB at most", began.elapsed(), peak >> 20));
    Ok(())
}

#[allow(clippy::print_stderr, reason = "a figure for whoever looks at the log")]
fn report(text: &str) {
    eprintln!("{text}");
}

/// A subscriber that keeps the numbers of resources, and nothing else.
struct Counter {
    address: SocketAddr,
    target: &'static str,
    response: http::Response,
    parser: Parser,
    numbers: Vec<i64>,
    last_id: String,
}

impl Counter {
    async fn connect(address: SocketAddr, target: &'static str) -> Result<Self> {
        let response = http::get(address, target, ASK).await?;
        let (parser, numbers, last_id) = (Parser::default(), Vec::new(), String::new());
        Ok(Self { address, target, response, parser, numbers, last_id })
    }

    /// Reads until so many resources were heard; until `live` if none are wanted.
    async fn count(&mut self, wanted: usize) -> Result<()> {
        loop {
            while let Some(item) = self.parser.next_item() {
                let Item::Frame(frame) = item else { continue };
                let data = frame.get("data").context("no data")?;
                self.last_id = frame.get("id").context("no id")?;
                if let Some((_, digits)) = data.split_once("\"n\":") {
                    let end = digits.find(|c: char| !c.is_ascii_digit()).context("no end")?;
                    self.numbers.push(digits[..end].parse()?);
                } else if wanted == 0 && data.contains("\"code\":\"live\"") {
                    return Ok(());
                }
            }
            if wanted > 0 && self.numbers.len() >= wanted {
                return Ok(());
            }
            self.parser.push(&self.response.next().await?.context("the stream ended")?);
        }
    }

    /// The same, by one who may have been cut off because he took nothing for a minute, and comes back.
    async fn count_on(&mut self, wanted: usize) -> Result<()> {
        if self.count(wanted).await.is_ok() {
            return Ok(());
        }
        let resume = format!("{ASK}Last-Event-ID: {}\r\n", self.last_id);
        self.response = http::get(self.address, self.target, &resume).await?;
        self.parser = Parser::default();
        self.count(wanted).await
    }
}

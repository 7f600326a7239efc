//! `fhir-tail tail` against the real service: whatever is killed, cut or full, what it writes holds every event once and in
//! order.

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use nix::sys::signal::Signal::SIGTERM;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;
use tests::tail::{Tail, files, state};
use tests::{
    Case, Context, Disk, Entry, History, Key, Load, Proxy, SOON, Site, Table, Target, What, Writers, cases,
    seconds, seed, skip, until,
};
use tokio::time::{Instant, sleep};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each every_event_is_in_the_files_once,
        once standard_output_goes_on_where_it_was,
        once a_full_disk_loses_nothing,
        once a_service_that_is_away_is_waited_for,
        once a_lost_journal_is_made_good,
        once a_state_of_something_else_is_refused,
    ]
}

const END: &str = "the-end";

/// So many rows of each type, to be replayed.
pub(crate) async fn fill(site: &Site, rows: u32) -> Result<()> {
    let fill = format!(
        "insert into fhir.resource (resource_type, id, content) \
         select t, 'f' || i, format('{{\"resourceType\":\"%s\",\"n\":%s,\"text\":\"%s\"}}', t, i, repeat('x', 300))::json \
         from generate_series(1, {rows}) i, unnest(array['Patient', 'Observation', 'Condition']) t"
    );
    site.sql.batch_execute(&fill).await?;
    site.settle().await
}

fn url(proxy: &Proxy) -> String {
    format!("http://{}/fhir", proxy.address())
}

pub(crate) fn is_live(output: &Path) -> Result<bool> {
    Ok(state(&output.join("state.json"))?.is_some_and(|state| !state["position"]["live"].is_null()))
}

/// All that is in the numbered files, in their order.
fn sequence(output: &Path) -> Result<Vec<What>> {
    Ok(files(output)?.into_values().flatten().collect())
}

fn has(lines: &[What], id: &str) -> bool {
    lines.iter().any(|what| what.key().is_some_and(|key| key.id == id))
}

async fn written(tail: &mut Tail, output: &Path, id: &str) -> Result<Vec<What>> {
    until(&format!("{id} in the files"), SOON, || {
        let running = tail.runs();
        let lines = sequence(output);
        async move {
            ensure!(running, "it has ended");
            Ok(Some(lines?).filter(|lines| has(lines, id)))
        }
    })
    .await
    .with_context(|| tail.log().unwrap_or_default())
}

/// What a line should be, of an entry of the history.
fn line(entry: &Entry) -> What {
    let Entry { key, version, stamp, deleted, n } = entry.clone();
    if deleted { What::Deletion { key, stamp } } else { What::Resource { key, version, stamp, n } }
}

fn same(got: &[What], wanted: &[What]) -> Result<()> {
    if let Some(at) = (0..got.len().max(wanted.len())).find(|&at| got.get(at) != wanted.get(at)) {
        bail!(
            "{} lines for {} changes; line {at} is {:?} instead of {:?}",
            got.len(),
            wanted.len(),
            got.get(at),
            wanted.get(at)
        );
    }
    Ok(())
}

/// A replay and then what is written, while the subscriber is killed, the service is killed, and connections are cut.
async fn every_event_is_in_the_files_once(context: Context) -> Result<()> {
    let seed = seed()?;
    let result = run(&context, Rng::with_seed(seed)).await;
    result.with_context(|| format!("with FHIR_TAIL_TEST_SEED={seed}"))
}

async fn run(context: &Context, mut random: Rng) -> Result<()> {
    let mut site = Site::start(context).await?;
    fill(&site, 3_000).await?;
    let replayed = Table::read(&site.sql).await?;
    History::begin(&site.sql).await?;
    let proxy = Proxy::start(Target::Server(site.server.address())).await?;
    let output = context.directory().join("output");
    let arguments =
        ["--output", &output.display().to_string(), "--rotate-bytes", "200KB", "--sync-interval", "10ms"]
            .map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut tail = Tail::new(context.directory(), &url(&proxy), &arguments)?;
    tail.start()?;
    while !is_live(&output)? {
        sleep(Duration::from_millis(random.u64(1..120))).await;
        ensure!(tail.runs(), "it has ended: {}", tail.log()?);
        tail.kill().await?;
        tail.start()?;
        if tail.starts > 60 {
            // Killed faster than it can begin.
            until("live", SOON, || {
                let live = is_live(&output);
                async move { Ok(live?.then_some(())) }
            })
            .await?;
        }
    }
    let load = Load { writers: 4, pause: Duration::from_millis(10), restarts: false };
    let writers = Writers::start(&site.cluster.config("postgres"), random.u64(..), &load);
    let end = Instant::now() + Duration::from_secs(seconds()?.unwrap_or(12));
    let mut kills = tail.starts;
    while Instant::now() < end || kills <= 10 {
        sleep(Duration::from_millis(random.u64(1..400))).await;
        ensure!(tail.runs(), "it has ended: {}", tail.log()?);
        match random.u8(0..12) {
            0 => {
                site.server.kill().await?;
                site.server.start().await?;
            }
            1 | 2 => proxy.cut(),
            3 => {
                let status = tail.terminate(SOON).await?;
                // Just started, it may not have come to hear of signals.
                let ended = status.success() || status.signal() == Some(SIGTERM as i32);
                ensure!(ended, "stopped, it ended with {status}: {}", tail.log()?);
                tail.start()?;
            }
            _ => {
                tail.kill().await?;
                tail.start()?;
                kills += 1;
            }
        }
    }
    writers.reach(300).await?;
    writers.stop().await?;
    site.put("Patient", END).await?;
    let lines = written(&mut tail, &output, END).await?;
    let status = tail.terminate(SOON).await?;
    ensure!(status.success(), "{status}");

    let history = History::read(&site.sql).await?;
    let (first, rest) = lines.split_at_checked(replayed.resources.len()).context("not even the replay")?;
    let first: BTreeSet<(Key, i64)> = first
        .iter()
        .map(|what| match what {
            What::Resource { key, version, .. } => Ok((key.clone(), *version)),
            other => bail!("in the replay there was {other:?}"),
        })
        .collect::<Result<_>>()?;
    let wanted: BTreeSet<(Key, i64)> =
        replayed.resources.into_iter().map(|(key, (version, _))| (key, version)).collect();
    ensure!(first == wanted, "{} of {} were replayed", first.len(), wanted.len());
    let wanted: Vec<What> = history.entries.iter().map(line).collect();
    same(rest, &wanted)?;
    ensure!(wanted.len() >= 300, "only {} changes", wanted.len());
    ensure!(files(&output)?.len() > 3, "nothing was rotated");
    let log = tail.log()?;
    // Not any word "reset": connections are reset, too.
    let told = [": reset: ", ": reset-all: "].map(|told| (told, log.contains(told)));
    ensure!(told.iter().all(|(_, told)| !told), "{told:?}: {log}");
    Ok(())
}

pub(crate) async fn completes(tail: &mut Tail) -> Result<()> {
    let status = tail.exited(SOON).await.with_context(|| tail.log().unwrap_or_default())?;
    ensure!(status.success(), "{status}: {}", tail.log()?);
    Ok(())
}

/// Started and killed six times, wherever it is; it may also come to its end.
pub(crate) async fn killed_again_and_again(tail: &mut Tail) -> Result<()> {
    let mut random = Rng::with_seed(seed()?);
    for _ in 0..6 {
        tail.start()?;
        sleep(Duration::from_millis(random.u64(1..150))).await;
        if tail.runs() {
            tail.kill().await?;
        } else {
            completes(tail).await?;
        }
    }
    Ok(())
}

async fn standard_output_goes_on_where_it_was(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    fill(&site, 20).await?;
    History::begin(&site.sql).await?;
    let url = format!("http://{}/fhir/$export?_type=Patient", site.server.listening()?);
    let position = context.directory().join("position.json").display().to_string();
    let mut tail = Tail::new(context.directory(), &url, &["--until-live", "--state", &position])?;
    tail.start()?;
    completes(&mut tail).await?;
    ensure!(tail.stdout()?.len() == 20, "{} lines", tail.stdout()?.len());
    site.put("Observation", "of-another-type").await?;
    site.put("Patient", "changed").await?;
    site.delete("Patient", "f1").await?;
    tail.start()?;
    completes(&mut tail).await?;
    let history = History::read(&site.sql).await?;
    let patients = history.entries.iter().filter(|entry| entry.key.resource_type == "Patient");
    let wanted: Vec<What> = patients.map(line).collect();
    same(&tail.stdout()?[20..], &wanted)?;

    // Following, it is written at once, and the end is in order.
    let mut following = Tail::new(context.directory(), &url, &["--state", &position])?;
    following.start()?;
    site.put("Patient", END).await?;
    until("the end", SOON, || {
        let lines = following.stdout();
        async move { Ok(has(&lines?, END).then_some(())) }
    })
    .await?;
    let status = following.terminate(SOON).await?;
    ensure!(
        status.success() && following.stdout()?.len() == 23,
        "{status}, {} lines",
        following.stdout()?.len()
    );
    Ok(())
}

async fn a_full_disk_loses_nothing(context: Context) -> Result<()> {
    let output = context.directory().join("output");
    let Some(disk) = Disk::mount(&output)? else {
        return skip("a disk of its own, which only root may mount");
    };
    let site = Site::start(&context).await?;
    History::begin(&site.sql).await?;
    let url = format!("http://{}/fhir", site.server.listening()?);
    let mut tail = Tail::new(context.directory(), &url, &["--output", &output.display().to_string()])?;
    tail.start()?;
    site.put("Patient", "before").await?;
    written(&mut tail, &output, "before").await?;
    disk.fill()?;
    site.sql
        .batch_execute(
            "insert into fhir.resource (resource_type, id, content) select 'Patient', 'm' || i, \
             format('{\"resourceType\":\"Patient\",\"n\":%s,\"text\":\"%s\"}', i, repeat('x', 1000))::json \
             from generate_series(1, 1000) i",
        )
        .await?;
    let status = tail.exited(SOON).await?;
    ensure!(status.code() == Some(1), "{status}");
    let log = tail.log()?;
    ensure!(log.contains("No space left on device") && log.contains("output"), "{log}");
    disk.free()?;
    tail.start()?;
    site.put("Patient", END).await?;
    let lines = written(&mut tail, &output, END).await?;
    let history = History::read(&site.sql).await?;
    same(&lines, &history.entries.iter().map(line).collect::<Vec<_>>())?;
    tail.kill().await
}

async fn a_service_that_is_away_is_waited_for(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &[]).await?;
    let proxy = Proxy::start(Target::Server(site.server.address())).await?;
    let output = context.directory().join("output");
    let mut tail =
        Tail::new(context.directory(), &url(&proxy), &["--output", &output.display().to_string()])?;
    tail.start()?;
    until("it to notice", SOON, || {
        let log = tail.log();
        async move { Ok(log?.contains("no stream").then_some(())) }
    })
    .await?;
    site.server.start().await?;
    site.put("Patient", END).await?;
    written(&mut tail, &output, END).await?;
    ensure!(tail.terminate(SOON).await?.success(), "{}", tail.log()?);
    Ok(())
}

/// The newest state of all that may have changed follows, as lines like others.
async fn a_lost_journal_is_made_good(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let proxy = Proxy::start(Target::Server(site.server.address())).await?;
    let output = context.directory().join("output");
    let mut tail =
        Tail::new(context.directory(), &url(&proxy), &["--output", &output.display().to_string()])?;
    tail.start()?;
    for id in ["stays", "goes"] {
        site.put("Patient", id).await?;
        written(&mut tail, &output, id).await?;
    }
    site.settle().await?;
    site.server.terminate(SOON).await?;
    std::fs::remove_dir_all(context.directory().join("data"))?;
    site.delete("Patient", "goes").await?;
    site.put("Patient", "missed").await?;
    site.server.start().await?;
    written(&mut tail, &output, "missed").await?;
    site.put("Patient", END).await?;
    let lines = written(&mut tail, &output, END).await?;
    ensure!(tail.log()?.contains(": reset-all: "), "{}", tail.log()?);
    let of_goes: Vec<_> =
        lines.iter().filter(|what| what.key().is_some_and(|key| key.id == "goes")).collect();
    let told = matches!(of_goes[..], [.., What::Deletion { .. }]);
    let codes: Vec<_> = lines.iter().filter_map(What::code).collect();
    ensure!(told && codes.is_empty() || codes == ["reset-all", "live"], "{lines:?}");
    Ok(())
}

async fn a_state_of_something_else_is_refused(context: Context) -> Result<()> {
    let output = context.directory().join("output");
    let output_text = output.display().to_string();
    let foreign = context.directory().join("foreign");
    std::fs::create_dir(&foreign)?;
    std::fs::write(foreign.join("Patient.ndjson"), "theirs\n")?;
    let foreign_text = foreign.display().to_string();
    let site = Site::start(&context).await?;
    let base = format!("http://{}/fhir", site.server.listening()?);
    let mut tail = Tail::new(context.directory(), &base, &["--output", &output_text])?;
    tail.start()?;
    site.put("Patient", END).await?;
    written(&mut tail, &output, END).await?;
    let while_it_runs: (&[&str], i32, &[&str]) =
        (&["--output", &output_text], 1, &["another fhir-tail", "--output"]);
    refused(&context, "running", &base, while_it_runs).await?;
    let elsewhere = context.directory().join("elsewhere.json").display().to_string();
    let with_its_own_state: (&[&str], i32, &[&str]) =
        (&["--output", &output_text, "--until-live", "--state", &elsewhere], 1, &["another fhir-tail"]);
    refused(&context, "elsewhere", &base, with_its_own_state).await?;
    ensure!(tail.terminate(SOON).await?.success(), "{}", tail.log()?);
    let cases: [(&[&str], i32, &[&str]); 6] = [
        (&["--output", &output_text, "--type", "Patient"], 2, &["belongs to", "_type=Patient", "--state"]),
        (&["--output", &output_text, "--until-live"], 1, &["files that follow without end", "--state"]),
        (&["--output", &foreign_text], 1, &["Patient.ndjson", "empty the folder"]),
        (&["--type", "Nonsense"], 1, &["refuses: 400", "Nonsense"]),
        (&["--rotate-bytes", "1MiB"], 2, &["--rotate-bytes", "--output"]),
        (&["--bearer-token-file", "/nonexistent"], 1, &["/nonexistent"]),
    ];
    for (index, case) in cases.into_iter().enumerate() {
        refused(&context, &format!("case-{index}"), &base, case).await?;
    }
    ensure!(std::fs::read_to_string(foreign.join("Patient.ndjson"))? == "theirs\n", "it was touched");
    Ok(())
}

async fn refused(
    context: &Context,
    name: &str,
    base: &str,
    (arguments, code, parts): (&[&str], i32, &[&str]),
) -> Result<()> {
    let within = context.within(name)?;
    let mut tail = Tail::new(within.directory(), base, arguments)?;
    tail.start()?;
    let status = tail.exited(SOON).await?;
    let log = tail.log()?;
    ensure!(status.code() == Some(code), "{arguments:?}: {status}, {log}");
    ensure!(parts.iter().all(|part| log.contains(part)), "{arguments:?}: {log}");
    Ok(())
}

//! `fhir-tail tail --until-live` into the same folder again: each run adds what has changed since, and all of them together are
//! what the database has.

use crate::members::{in_tables, note, put_group};
use crate::tail::{completes, fill, killed_again_and_again};
use crate::tail_download::{Download, download_to};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tests::tail::Tail;
use tests::{Case, Context, Disk, Key, Proxy, SOON, Site, Table, Target, cases, micros, skip};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each runs_add_up_to_the_table,
        once runs_of_a_group_add_up_to_its_members,
        once a_full_disk_in_a_later_run_loses_nothing,
    ]
}

/// The folders of the later runs, in their order.
fn runs(output: &Path) -> Result<Vec<PathBuf>> {
    let mut runs: Vec<_> = std::fs::read_dir(output)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path| path.as_ref().map_or(true, |path| path.is_dir()))
        .collect::<Result<_>>()?;
    runs.sort();
    Ok(runs)
}

fn is_all(run: &Path) -> bool {
    run.display().to_string().ends_with("-all")
}

/// What all runs together say is there, with its version.
fn merged(output: &Path) -> Result<BTreeMap<Key, i64>> {
    let mut merged = Download::read(output)?.resources;
    for run in runs(output)? {
        if is_all(&run) {
            merged.clear();
        }
        let Download { resources, deleted } = Download::read(&run)?;
        merged.retain(|key, _| !deleted.contains_key(key));
        merged.extend(resources);
    }
    Ok(merged)
}

async fn table(site: &Site) -> Result<BTreeMap<Key, i64>> {
    let table = Table::read(&site.sql).await?;
    Ok(table.resources.into_iter().map(|(key, (version, _))| (key, version)).collect())
}

fn said(context: &Context) -> Result<String> {
    let said = std::fs::read_to_string(context.directory().join("tail.out"))?;
    Ok(said.lines().last().context("nothing was said")?.to_owned())
}

async fn again(tail: &mut Tail) -> Result<()> {
    tail.start()?;
    completes(tail).await
}

async fn runs_add_up_to_the_table(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    fill(&site, 3_000).await?;
    let output = context.directory().join("output");
    let arguments = download_to(&output);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let proxy = Proxy::start(Target::Server(site.server.address())).await?;
    let url = format!("http://{}/fhir", proxy.address());
    let mut tail = Tail::new(context.directory(), &url, &arguments)?;
    again(&mut tail).await?;
    ensure!(merged(&output)? == table(&site).await?, "the first run is not the table");
    let first = std::fs::read(output.join("Patient.ndjson"))?;

    site.change("delete from fhir.resource where id in ('f1', 'f2')").await?;
    let change = "update fhir.resource set content = content where id in ('f3', 'f4'); \
                  select fhir.put('Basic', 'new', '{\"resourceType\":\"Basic\"}')";
    site.change(change).await?;
    again(&mut tail).await?;
    let [second] = &runs(&output)?[..] else { anyhow::bail!("{:?}", runs(&output)?) };
    let Download { resources, deleted } = Download::read(second)?;
    ensure!((resources.len(), deleted.len()) == (7, 6), "{resources:?} {deleted:?}");
    ensure!(merged(&output)? == table(&site).await?, "two runs are not the table");
    ensure!(std::fs::read(output.join("Patient.ndjson"))? == first, "the first run was touched");
    // It is named by the time that it says.
    let said_now = said(&context)?;
    let (_, time) = said_now.split_once(" as of ").context("no time")?;
    let time = time.split(": ").next().unwrap_or_default();
    micros(time)?;
    let name = second.file_name().context("no name")?.to_string_lossy().into_owned();
    ensure!(name == format!("000002-{}", time.replace(['-', ':'], "")), "{name}: {said_now}");

    // Nothing has changed.
    again(&mut tail).await?;
    ensure!(
        runs(&output)?.len() == 1 && said(&context)?.contains("nothing has changed"),
        "{}",
        said(&context)?
    );

    // Much has, and it is killed again and again.
    site.change("update fhir.resource set content = content where id ~ '[3-9]$'").await?;
    site.change("delete from fhir.resource where id ~ '[57]$'").await?;
    killed_again_and_again(&mut tail).await?;
    again(&mut tail).await?;
    ensure!(merged(&output)? == table(&site).await?, "what was killed is not the table");
    let before = runs(&output)?.len();
    ensure!(before >= 2, "{:?}", runs(&output)?);

    // The journal is lost: the next run has everything, or names all that is gone.
    site.settle().await?;
    site.server.terminate(SOON).await?;
    std::fs::remove_dir_all(context.directory().join("data"))?;
    site.sql.batch_execute("delete from fhir.resource where id ~ '8$'").await?;
    site.server.start().await?;
    site.ready().await?;
    site.settle().await?;
    again(&mut tail).await?;
    ensure!(merged(&output)? == table(&site).await?, "after the reset it is not the table");
    let runs = runs(&output)?;
    let last = runs.last().filter(|_| runs.len() == before + 1).context("no run")?;
    ensure!(is_all(last), "{last:?}");
    ensure!(Download::read(last)?.resources == table(&site).await?, "it has not everything");
    ensure!(said(&context)?.contains("has everything"), "{}", said(&context)?);
    Ok(())
}

async fn runs_of_a_group_add_up_to_its_members(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for id in ["ann", "bob", "cyd", "dan", "eve"] {
        site.put("Patient", id).await?;
        note(&site, &format!("n-{id}"), id).await?;
    }
    put_group(&site, "g", &["Patient/ann", "Patient/bob", "Patient/cyd"]).await?;
    site.ready().await?;
    site.settle().await?;
    let output = context.directory().join("output");
    let arguments = download_to(&output);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--group", "g", "--type", "Patient,Basic"]);
    let url = format!("http://{}/fhir", site.server.listening()?);
    let mut tail = Tail::new(context.directory(), &url, &arguments)?;
    let group = |members: &[&str]| {
        let members: Vec<_> =
            members.iter().map(|id| format!(r#"{{"entity":{{"reference":"Patient/{id}"}}}}"#)).collect();
        let group = format!(
            r#"{{"resourceType":"Group","type":"person","actual":true,"member":[{}]}}"#,
            members.join(",")
        );
        format!("select fhir.put('Group', 'g', '{group}')")
    };
    let nobody_touched = "n-ann";
    for (index, changes) in [
        vec![],
        // Who leaves, who joins, and whose record changes.
        vec![group(&["ann", "bob", "dan"])],
        vec!["update fhir.resource set content = content where id = 'n-bob'".to_owned()],
        // Who leaves and joins again, and one who was never told of.
        vec![group(&["ann", "bob"]), group(&["ann", "bob", "dan", "cyd"])],
        vec!["delete from fhir.resource where id in ('n-cyd', 'n-eve')".to_owned()],
        vec![group(&["ann", "cyd", "dan"])],
        vec![],
    ]
    .into_iter()
    .enumerate()
    {
        for change in changes {
            site.change(&change).await?;
        }
        again(&mut tail).await?;
        let merged: BTreeMap<_, _> =
            merged(&output)?.into_iter().map(|(key, version)| (key.to_string(), version)).collect();
        let wanted = in_tables(&site).await?;
        ensure!(merged == wanted, "run {index}: {merged:?} instead of {wanted:?}: {}", tail.log()?);
    }
    let again = runs(&output)?
        .iter()
        .filter(|run| !is_all(run))
        .map(|run| Ok(Download::read(run)?.resources.contains_key(&Key::new("Basic", nobody_touched))))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        again.len() == 5 && again.iter().all(|again| !again),
        "what did not change came again: {again:?}"
    );
    Ok(())
}

async fn a_full_disk_in_a_later_run_loses_nothing(context: Context) -> Result<()> {
    let output = context.directory().join("output");
    let Some(disk) = Disk::mount(&output)? else {
        return skip("a disk of its own, which only root may mount");
    };
    let site = Site::start(&context).await?;
    fill(&site, 100).await?;
    let arguments = download_to(&output);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let url = format!("http://{}/fhir", site.server.listening()?);
    let mut tail = Tail::new(context.directory(), &url, &arguments)?;
    again(&mut tail).await?;
    disk.fill()?;
    site.change("update fhir.resource set content = content").await?;
    site.change("delete from fhir.resource where id ~ '5$'").await?;
    tail.start()?;
    let status = tail.exited(SOON).await?;
    ensure!(status.code() == Some(1), "{status}");
    let log = tail.log()?;
    ensure!(log.contains("No space left on device") && log.contains("output"), "{log}");
    ensure!(runs(&output)?.iter().all(|run| run.ends_with("partial")), "{:?}", runs(&output)?);
    disk.free()?;
    again(&mut tail).await?;
    ensure!(merged(&output)? == table(&site).await?, "it is not the table: {}", tail.log()?);
    Ok(())
}

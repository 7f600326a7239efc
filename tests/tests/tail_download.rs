//! `fhir-tail tail --until-live`: a download is what the tables hold, each resource once, whatever happens meanwhile.

use crate::tail::{completes, fill, is_live, killed_again_and_again};
use anyhow::{Result, bail, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::tail::{Tail, files, state};
use tests::{Case, Context, History, Key, Load, SOON, Site, Table, What, Writers, cases, seed, until};

pub(crate) fn cases() -> Vec<Case> {
    cases![each a_download_is_the_table, once a_download_while_others_write]
}

/// What a download holds: of each type the resources with their versions, and what is deleted.
pub(crate) struct Download {
    pub(crate) resources: BTreeMap<Key, i64>,
    pub(crate) deleted: BTreeMap<Key, i64>,
}

impl Download {
    pub(crate) fn read(output: &Path) -> Result<Self> {
        let mut download = Self { resources: BTreeMap::new(), deleted: BTreeMap::new() };
        for (name, lines) in files(output)? {
            for what in lines {
                let before = match &what {
                    What::Resource { key, version, .. } if key.resource_type == name => {
                        download.resources.insert(key.clone(), *version)
                    }
                    What::Deletion { key, stamp } if name == "deleted" => {
                        download.deleted.insert(key.clone(), *stamp)
                    }
                    other => bail!("{name}.ndjson has {other:?}"),
                };
                ensure!(before.is_none(), "{name}.ndjson has this twice: {what:?}");
            }
        }
        let both = download.resources.keys().find(|key| download.deleted.contains_key(key));
        ensure!(both.is_none(), "{both:?} is there and deleted");
        ensure!(!output.join("partial").exists(), "it is not complete");
        Ok(download)
    }
}

pub(crate) fn download_to(output: &Path) -> Vec<String> {
    let output = output.display().to_string();
    ["--output", &output, "--until-live", "--sync-interval", "0ms"].map(str::to_owned).to_vec()
}

/// Killed in the middle of it; then much of what it had is changed and deleted, and made anew. Then killed again and again.
async fn a_download_is_the_table(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "gone").await?;
    site.put("Bundle", "stored").await?;
    site.delete("Patient", "gone").await?;
    fill(&site, 4_000).await?;
    let url = format!("http://{}/fhir", site.server.listening()?);
    let (mut tail, output) = killed_in_the_middle(&context, &url).await?;
    for change in [
        "update fhir.resource set content = content where id ~ '3$'",
        "delete from fhir.resource where id ~ '[57]$'",
        "select fhir.put(resource_type, id, format('{\"resourceType\":\"%s\",\"n\":1}', resource_type)::json) \
         from fhir.tombstone where id ~ '15$'",
    ] {
        site.sql.batch_execute(change).await?;
    }
    let table = Table::read(&site.sql).await?;
    killed_again_and_again(&mut tail).await?;
    tail.start()?;
    completes(&mut tail).await?;
    let download = Download::read(&output)?;
    let wanted: BTreeMap<Key, i64> =
        table.resources.into_iter().map(|(key, (version, _))| (key, version)).collect();
    ensure!(download.resources == wanted, "{} of {} are there", download.resources.len(), wanted.len());
    ensure!(!download.deleted.is_empty(), "nothing is deleted");
    for (key, stamp) in download.deleted {
        ensure!(table.tombstones.get(&key) == Some(&stamp), "{key} was not deleted then");
    }
    let said = std::fs::read_to_string(context.directory().join("tail.out"))?;
    ensure!(said.contains("is complete as of 20") && said.contains("--since 20"), "{said}");
    // Once more: nothing has changed, and it says so.
    tail.start()?;
    completes(&mut tail).await?;
    let said = std::fs::read_to_string(context.directory().join("tail.out"))?;
    ensure!(said.lines().last().is_some_and(|last| last.contains(": nothing has changed;")), "{said}");
    Ok(())
}

/// A download that was killed after something was written and before it was live.
async fn killed_in_the_middle(context: &Context, url: &str) -> Result<(Tail, PathBuf)> {
    for attempt in 0..20 {
        let output = context.directory().join(format!("output-{attempt}"));
        let arguments = download_to(&output);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut tail = Tail::new(context.directory(), url, &arguments)?;
        tail.start()?;
        until("something in the files", SOON, || {
            let written = state(&output.join("state.json"));
            async move {
                let written = written?.is_some_and(|state| {
                    state["written"]["download"]["bytes"].as_object().is_some_and(|bytes| !bytes.is_empty())
                });
                Ok(written.then_some(()))
            }
        })
        .await?;
        tail.kill().await?;
        if !is_live(&output)? {
            return Ok((tail, output));
        }
    }
    bail!("it was always live before it could be killed")
}

/// Nobody waits for it: each resource is there once, in a version that it had, and what nobody touched is there.
async fn a_download_while_others_write(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    fill(&site, 3_000).await?;
    let before = Table::read(&site.sql).await?;
    History::begin(&site.sql).await?;
    let load = Load { writers: 4, pause: Duration::from_millis(3), restarts: false };
    let writers = Writers::start(&site.cluster.config("postgres"), seed()?, &load);
    writers.reach(100).await?;
    let output = context.directory().join("output");
    let arguments = download_to(&output);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let url = format!("http://{}/fhir", site.server.listening()?);
    let mut tail = Tail::new(context.directory(), &url, &arguments)?;
    tail.start()?;
    completes(&mut tail).await?;
    writers.stop().await?;
    let history = History::read(&site.sql).await?;
    let download = Download::read(&output)?;
    for (key, (version, _)) in &before.resources {
        ensure!(download.resources.get(key) == Some(version), "{key} is not as it was all the time");
    }
    for (key, version) in &download.resources {
        let known = history.version(*version).is_some_and(|at| history.entries[at].key == *key);
        ensure!(known || before.resources.contains_key(key), "{key} never had version {version}");
    }
    for (key, stamp) in &download.deleted {
        ensure!(history.deletion(key, *stamp).is_some(), "{key} was not deleted at {stamp}");
    }
    ensure!(download.resources.len() > before.resources.len(), "nothing of what was written is there");
    Ok(())
}

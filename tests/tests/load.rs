//! `fhir-tail load`: what the files hold is what the table has and what subscribers hear.

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;
use tests::{Binary, Case, Client, Context, Key, Reader, SOON, Site, Subscribe, Table, What, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![each what_is_loaded_is_streamed, once a_bad_line_is_named_and_its_batch_is_not_kept]
}

fn file(context: &Context, name: &str, content: &[u8]) -> Result<PathBuf> {
    let path = context.directory().join(name);
    std::fs::write(&path, content)?;
    Ok(path)
}

async fn load(site: &Site, more: &[&str], files: &[&Path]) -> Result<Output> {
    let url = site.cluster.url("postgres");
    let mut arguments = vec!["load".to_owned(), "--database-url".to_owned(), url];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments.extend(files.iter().map(|file| file.display().to_string()));
    let run = move || Binary::find()?.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await?
}

/// What a subscriber knows now.
fn state(reader: &Reader) -> Vec<(Key, i64)> {
    let mut state = std::collections::BTreeMap::new();
    for heard in &reader.heard {
        match &heard.what {
            What::Resource { key, version, .. } => drop(state.insert(key.clone(), *version)),
            What::Deletion { key, .. } => drop(state.remove(key)),
            What::Notice { .. } => {}
        }
    }
    state.into_iter().collect()
}

async fn what_is_loaded_is_streamed(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "deleted-by-bundle").await?;
    site.settle().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;

    // More than a batch; an id that comes twice is updated.
    let mut lines = String::new();
    for id in 0..2_500 {
        lines +=
            &format!("{{\"resourceType\":\"Observation\",\"id\":\"o{id}\",\"n\":{id},\"value\":1.50}}\n");
    }
    lines += "\n{\"id\":\"o7\",\"resourceType\":\"Observation\",\"n\":70007}\n";
    let ndjson = file(&context, "observations.ndjson", lines.as_bytes())?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(b"{\"resourceType\":\"Patient\",\"id\":\"zipped\",\"n\":1}\n")?;
    let gzip = file(&context, "patients.ndjson.gz", &gzip.finish()?)?;
    let bundle = r#"{
      "resourceType": "Bundle", "type": "transaction", "entry": [
        {"fullUrl": "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a",
         "resource": {"resourceType": "Patient", "n": 5},
         "request": {"method": "POST", "url": "Patient"}},
        {"fullUrl": "urn:uuid:88f151c0-a954-468a-88bd-5ae15c08e059",
         "resource": {"resourceType": "Condition",
                      "subject": {"reference": "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a"}, "n": 6},
         "request": {"method": "POST", "url": "Condition"}},
        {"request": {"method": "DELETE", "url": "Patient/deleted-by-bundle"}}]}"#;
    let bundle = file(&context, "bundle.json", bundle.as_bytes())?;
    let output = load(&site, &[], &[&ndjson, &gzip, &bundle]).await?;
    let wrote = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {wrote}", output.status);
    site.put("Patient", "end").await?;
    reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;

    let table = Table::read(&site.sql).await?;
    ensure!(table.resources.len() == 2_500 + 3 + 1, "{} in the table", table.resources.len());
    let expected: Vec<(Key, i64)> =
        table.resources.into_iter().map(|(key, (version, _))| (key, version)).collect();
    ensure!(
        state(&reader) == expected,
        "the subscriber knows {} of {}",
        state(&reader).len(),
        expected.len()
    );
    site.settle().await?;
    let late = site.live(Subscribe::all(Client::EventSource)).await?;
    ensure!(state(&late) == expected, "the late one knows {} of {}", state(&late).len(), expected.len());

    let newest = reader.about("o7").last();
    ensure!(matches!(newest, Some(What::Resource { n: Some(70_007), .. })), "{newest:?}");
    ensure!(
        matches!(reader.about("deleted-by-bundle").last(), Some(What::Deletion { .. })),
        "it was not deleted"
    );
    let sql = "select content->'subject'->>'reference' from fhir.resource where resource_type = 'Condition'";
    let reference: String = site.sql.query_one(sql, &[]).await?.try_get(0)?;
    ensure!(reference == "Patient/61ebe359-bfdc-4613-8bf2-c5e300945f0a", "{reference}");
    Ok(())
}

async fn a_bad_line_is_named_and_its_batch_is_not_kept(context: Context) -> Result<()> {
    let site = Site::prepare(&context, &[], &[]).await?;
    let lines = "{\"resourceType\":\"Patient\",\"id\":\"good\"}\n{\"resourceType\":\"Patient\",\"id\":\"bad\"\n\
                 {\"resourceType\":\"Patient\",\"id\":\"good2\"}\n";
    let path = file(&context, "bad.ndjson", lines.as_bytes())?;
    let count = async || -> Result<i64> {
        Ok(site.sql.query_one("select count(*) from fhir.resource", &[]).await?.try_get(0)?)
    };
    for (more, kept) in [(&[][..], 0), (&["--keep-going"][..], 2)] {
        let output = load(&site, more, &[&path]).await?;
        let wrote = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code().context("killed")? == 1, "{more:?}: {}, {wrote}", output.status);
        ensure!(wrote.contains("bad.ndjson:2"), "{more:?}: file and line are not named: {wrote}");
        ensure!(count().await? == kept, "{more:?}: {} of {kept} kept, {wrote}", count().await?);
    }
    Ok(())
}

//! Streams of one patient: what belongs to him and nothing else, and what a database from before them is missing.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Binary, Case, Client, Context, Reader, SOON, Site, Subscribe, What, cases, http};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each a_patients_stream_follows_whose_each_resource_is,
        once each_patient_of_a_sample_gets_what_sql_finds,
        each a_database_without_what_they_need_serves_all_other_streams,
    ]
}

fn of(patient: &str) -> Subscribe {
    let path = format!("/fhir/Patient/{patient}/$export");
    Subscribe { path, ..Subscribe::all(Client::Raw) }
}

/// Writes an Observation of a patient; a large content is stored out of line.
async fn observe(site: &Site, id: &str, reference: &str, large: bool) -> Result<()> {
    let text =
        if large { "(select string_agg(md5(i::text), '') from generate_series(1, 3000) i)" } else { "'x'" };
    let put = format!(
        "select fhir.put('Observation', '{id}', json_build_object('resourceType', 'Observation', \
            'subject', json_build_object('reference', '{reference}'), 'text', {text}))"
    );
    Ok(site.sql.batch_execute(&put).await?)
}

fn sent(reader: &Reader, id: &str) -> (usize, usize) {
    let taken_back = |what: &&What| matches!(what, What::Deletion { .. });
    let all = reader.about(id).count();
    let gone = reader.about(id).filter(taken_back).count();
    (all - gone, gone)
}

async fn a_patients_stream_follows_whose_each_resource_is(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for patient in ["a", "b"] {
        site.put("Patient", patient).await?;
        observe(&site, &format!("of-{patient}"), &format!("Patient/{patient}"), false).await?;
        observe(&site, &format!("large-of-{patient}"), &format!("Patient/{patient}"), true).await?;
    }
    site.settle().await?;
    let mut a = site.live(of("a")).await?;
    let mut b = site.live(of("b")).await?;
    for (reader, own, other) in [(&a, "a", "b"), (&b, "b", "a")] {
        for id in [own.to_owned(), format!("of-{own}"), format!("large-of-{own}")] {
            ensure!(sent(reader, &id) == (1, 0), "{id}: {}", reader.tail());
        }
        for id in [other.to_owned(), format!("of-{other}"), format!("large-of-{other}")] {
            ensure!(sent(reader, &id) == (0, 0), "{id}: {}", reader.tail());
        }
    }
    // A subject is corrected; a large content is left alone and then deleted; and one row takes another's place.
    observe(&site, "of-a", "Patient/b", false).await?;
    site.sql
        .batch_execute(
            "update fhir.resource set version_id = 0 where id = 'large-of-a'; \
             delete from fhir.resource where id = 'large-of-a'; \
             with gone as (delete from fhir.resource where id = 'of-b' returning *) \
             insert into fhir.resource (resource_type, id, content) \
             select resource_type, id, replace(content::text, 'Patient/b', 'Patient/a')::json from gone",
        )
        .await?;
    for (reader, end) in [(&mut a, "end-a"), (&mut b, "end-b")] {
        let patient = end.trim_start_matches("end-");
        observe(&site, end, &format!("Patient/{patient}"), false).await?;
        reader.hear(end, SOON, |reader| reader.heard_of(end)).await?;
    }
    for (id, of_a, of_b) in [
        ("of-a", (1, 1), (1, 0)),
        ("large-of-a", (2, 1), (0, 0)),
        ("of-b", (1, 0), (1, 1)),
        ("large-of-b", (0, 0), (1, 0)),
    ] {
        ensure!(sent(&a, id) == of_a, "{id}: {:?} {}", sent(&a, id), a.tail());
        ensure!(sent(&b, id) == of_b, "{id}: {:?} {}", sent(&b, id), b.tail());
    }
    Ok(())
}

/// What belongs to a patient, found without the service: by the compartment's parameters of the types that the sample has
/// (<https://hl7.org/fhir/R4/compartmentdefinition-patient.html>), of which some are never used in it.
const OF_A_PATIENT: &str = "\
    select resource_type, id from fhir.resource where (resource_type, id) = ('Patient', $1) \
    union \
    select resource_type, id from fhir.resource join (values \
        ('Encounter', '$.subject'), \
        ('Procedure', '$.subject'), ('Procedure', '$.performer.actor'), \
        ('Observation', '$.subject'), ('Observation', '$.performer'), \
        ('Condition', '$.subject'), ('Condition', '$.asserter'), \
        ('MedicationRequest', '$.subject'), \
        ('DiagnosticReport', '$.subject'), \
        ('Provenance', '$.target'), \
        ('MeasureReport', '$.subject'), \
        ('DetectedIssue', '$.patient'), \
        ('Immunization', '$.patient') \
    ) parameters (resource_type, path) using (resource_type) \
    where exists (select from jsonb_path_query(content::jsonb, (path || '.reference')::jsonpath) reference \
        where reference #>> '{}' = 'Patient/' || $1)";

async fn each_patient_of_a_sample_gets_what_sql_finds(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let binary = Binary::find()?;
    let sample = binary.succeed(&["sample", "--patients", "20", "--as-of", "2026-11-25"])?.stdout;
    let file = context.directory().join("sample.ndjson");
    std::fs::write(&file, sample)?;
    let path = file.to_str().context("a path that is not text")?;
    binary.succeed(&["load", path, "--database-url", &site.cluster.url("postgres")])?;
    site.settle().await?;
    let patients =
        site.sql.query("select id from fhir.resource where resource_type = 'Patient'", &[]).await?;
    ensure!(patients.len() == 20, "{} patients", patients.len());
    let mut all = 0;
    for patient in patients {
        let patient: String = patient.get(0);
        let rows = site.sql.query(OF_A_PATIENT, &[&patient]).await?;
        let mut expected: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        expected.sort_unstable();
        let reader = site.live(of(&patient)).await?;
        let keys = reader.heard.iter().filter_map(|heard| heard.what.key());
        let mut got: Vec<_> = keys.map(|key| (key.resource_type.clone(), key.id.clone())).collect();
        got.sort_unstable();
        ensure!(got == expected, "{patient}: {got:?} instead of {expected:?}");
        all += got.len();
    }
    ensure!(all > 1_000, "a sample of {all} resources tests little");
    Ok(())
}

/// As after an upgrade whose index was not built, and with the setting that `check` once advised.
async fn a_database_without_what_they_need_serves_all_other_streams(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "a").await?;
    site.settle().await?;
    site.sql
        .batch_execute(
            "drop index fhir.resource_mentions; alter table fhir.resource replica identity default",
        )
        .await?;
    // The second replaces the first, and the log does not have what it replaces: that is looked into at the next request.
    for _ in 0..2 {
        observe(&site, "of-a", "Patient/a", false).await?;
    }
    let url = site.cluster.url("postgres");
    let checked = Binary::find()?.run(&["check", "--json", "--database-url", &url])?.stdout;
    let checked: Value = serde_json::from_slice(&checked)?;
    for subject in ["before images", "patient index"] {
        let lines = checked["checks"].as_array().context("no checks")?;
        let line = lines.iter().find(|line| line["subject"] == subject).context("not checked")?;
        ensure!(line["verdict"] == "warning", "{line:#}");
        ensure!(
            line["message"].as_str().is_some_and(|message| message.contains("fhir-tail migrate")),
            "{line:#}"
        );
    }
    let at = site.server.listening()?;
    let outcome = tests::until("streams of patients to be refused", SOON, || async {
        let wanted = "Prefer: respond-eventsource\r\n";
        let mut answer = http::get(at, "/fhir/Patient/a/$export", wanted).await?;
        Ok(if answer.status == 503 { Some(String::from_utf8(answer.body().await?)?) } else { None })
    });
    let outcome = outcome.await?;
    ensure!(outcome.contains("fhir-tail migrate"), "no remedy: {outcome}");
    let mut all = site.live(Subscribe::all(Client::Raw)).await?;
    all.hear("everybody's", SOON, |reader| reader.heard_of("of-a")).await?;
    let mut ready = http::get(at, "/health/ready", "").await?;
    ensure!(ready.status == 200);
    let warnings = ready.json().await?["warnings"].to_string();
    ensure!(warnings.contains("before images") && warnings.contains("patient index"), "{warnings}");

    let migrate = Binary::find()?.succeed(&["migrate", "--database-url", &url])?;
    let said = String::from_utf8(migrate.stdout)?;
    for part in
        ["repaired: alter table fhir.resource replica identity full;", "done: create index concurrently"]
    {
        ensure!(said.contains(part), "no '{part}': {said}");
    }
    let again = Binary::find()?.succeed(&["migrate", "--database-url", &url])?;
    ensure!(String::from_utf8(again.stdout)?.starts_with("nothing to do"));
    let mut reader = site.live(of("a")).await?;
    reader.hear("his", SOON, |reader| reader.heard_of("of-a") && reader.heard_of("a")).await
}

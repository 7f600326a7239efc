//! `fhir-tail simulate`: a clinic that writes into a database of yours.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tests::{Case, Context, Running, SOON, Site, cases, until};
use tokio_postgres::Client;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each a_clinic_keeps_its_records_in_order_through_a_crash,
        once it_does_not_write_beside_the_data_of_real_people,
        once it_ends_when_it_is_refused_for_good,
    ]
}

/// References that lead nowhere.
const DANGLING: &str = "\
select r.resource_type || '/' || r.id || ' to ' || m.found[1]
  from fhir.resource r
 cross join lateral regexp_matches(r.content::text, '\"reference\":\"([^\"]+)\"', 'g') as m (found)
  left join fhir.resource t
    on t.resource_type = split_part(m.found[1], '/', 1) and t.id = split_part(m.found[1], '/', 2)
 where t.id is null
 limit 5";

async fn number(sql: &Client, query: &str) -> Result<i64> {
    Ok(sql.query_one(query, &[]).await?.try_get(0)?)
}

async fn resources(sql: &Client, resource_type: &str) -> Result<Vec<(String, Value)>> {
    let query = "select id, content::text from fhir.resource where resource_type = $1 order by version_id";
    let rows = sql.query(query, &[&resource_type]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, serde_json::from_str(row.try_get(1)?)?))).collect()
}

/// Waits for so many more versions, and so many deletions.
async fn busy(sql: &Client, more: i64, deletions: i64) -> Result<()> {
    let version = "select last_value from fhir.version";
    let from = number(sql, version).await?;
    until("the clinic to work", 2 * SOON, || async {
        let worked = number(sql, version).await? >= from + more;
        let deleted = number(sql, "select count(*) from fhir.tombstone").await? >= deletions;
        Ok((worked && deleted).then_some(()))
    })
    .await
}

async fn a_clinic_keeps_its_records_in_order_through_a_crash(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &[]).await?;
    let url = site.cluster.url("postgres");
    let mut clinic = Running::start(
        &context,
        "simulate",
        &["simulate", "--database-url", &url, "--patients", "60", "--rate", "400"],
    )?;
    busy(&site.sql, 5_000, 3).await?;
    site.cluster.stop_immediate().await?;
    site.cluster.start_again().await?;
    site.sql = site.cluster.connect().await?;
    busy(&site.sql, 1_000, 6).await?;
    let status = clinic.interrupt(SOON).await?;
    ensure!(status.code() == Some(0), "{status}: {}", clinic.log()?);

    let dangling: Vec<String> =
        site.sql.query(DANGLING, &[]).await?.iter().map(|row| row.get::<_, String>(0)).collect();
    ensure!(dangling.is_empty(), "{dangling:?}");
    let closed = closed_by(&site.sql).await?;
    ensure!(closed.len() > 20, "{} gaps are closed", closed.len());
    let mut wrong = BTreeSet::new();
    for of in ["Procedure", "Observation"] {
        for (id, resource) in resources(&site.sql, of).await? {
            if resource["status"] == "entered-in-error" {
                wrong.insert(format!("{of}/{id}"));
            }
        }
    }
    for (gap, by) in closed {
        ensure!(!by.is_empty(), "{gap} is closed by nothing");
        ensure!(by.is_disjoint(&wrong), "{gap} is closed by {by:?}, of which some were entered in error");
    }
    Ok(())
}

/// The gaps that are closed by the newest report of each patient, measure and period; and by what.
async fn closed_by(sql: &Client) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut newest: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for (id, report) in resources(sql, "MeasureReport").await? {
        let gap =
            format!("{} {} {}", report["subject"]["reference"], report["measure"], report["period"]["start"]);
        newest.insert(gap, (format!("MeasureReport/{id}"), report));
    }
    let mut statuses = BTreeMap::new();
    for (id, issue) in resources(sql, "DetectedIssue").await? {
        let report = issue["evidence"][0]["detail"][0]["reference"].as_str().context(id)?.to_owned();
        let status = &issue["modifierExtension"][0]["valueCodeableConcept"]["coding"][0]["code"];
        statuses.insert(report, status.clone());
    }
    let mut closed = BTreeMap::new();
    for (gap, (reference, report)) in newest {
        let status = statuses.get(&reference).with_context(|| format!("{reference} has no issue"))?;
        let met = report["group"][0]["measureScore"]["value"] == 1;
        ensure!((status == "closed-gap") == met, "{gap}: {status}, and its report has {}", report["group"]);
        if met {
            let evaluated = report["evaluatedResource"].as_array().context("nothing evaluated")?;
            let by = evaluated.iter().filter(|it| it["extension"][0]["valueString"] == "numerator");
            closed
                .insert(gap, by.map(|it| it["reference"].as_str().unwrap_or_default().to_owned()).collect());
        }
    }
    Ok(closed)
}

/// It ends with a message that has all of these, at the first try.
async fn refused(context: &Context, name: &'static str, url: &str, expected: &[&str]) -> Result<()> {
    let mut clinic = Running::start(context, name, &["simulate", "--database-url", url])?;
    let status = clinic.exited(Duration::from_secs(30)).await?;
    let log = clinic.log()?;
    ensure!(status.code() == Some(1), "{name}: {status}: {log}");
    ensure!(expected.iter().all(|part| log.contains(part)), "{name}: {log}");
    ensure!(!log.contains("tried again"), "{name}: {log}");
    Ok(())
}

async fn it_ends_when_it_is_refused_for_good(context: Context) -> Result<()> {
    let site = Site::prepare(&context, &[], &[]).await?;
    let url = site.cluster.url("reader");
    refused(&context, "no role", &url, &["does not exist"]).await?;
    site.sql
        .batch_execute(
            "create role reader login; grant usage on schema fhir to reader; grant select on fhir.resource to reader",
        )
        .await?;
    refused(&context, "no right", &url, &["42501", "permission denied"]).await?;
    site.sql.batch_execute("drop schema fhir cascade").await?;
    refused(&context, "no table", &url, &["fhir-tail migrate"]).await
}

async fn it_does_not_write_beside_the_data_of_real_people(context: Context) -> Result<()> {
    let site = Site::prepare(&context, &[], &[]).await?;
    site.put("Patient", "somebody").await?;
    let url = site.cluster.url("postgres");
    let mut clinic = Running::start(&context, "simulate", &["simulate", "--database-url", &url])?;
    let status = clinic.exited(Duration::from_secs(30)).await?;
    let log = clinic.log()?;
    ensure!(status.code() == Some(1), "{status}: {log}");
    ensure!(log.contains("Patient/somebody") && log.contains("HTEST"), "{log}");
    ensure!(number(&site.sql, "select count(*) from fhir.resource").await? == 1, "it wrote");
    Ok(())
}

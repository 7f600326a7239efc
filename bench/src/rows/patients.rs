//! Streams of one patient: what ten thousand of them cost a change of somebody else, how soon a change comes to the one whose it is,
//! and how soon one patient among very many resources is live.

use super::{Measured, finding, reference};
use crate::client::{Crowd, Ready, Spec, get};
use crate::lab::{Lab, caught_up, crowd, settled};
use crate::latency::Latencies;
use crate::report::{Finding, above_by_at_most, at_most};
use crate::writer::{self, Paced, of_patient};
use crate::{clock, usage};
use anyhow::{Result, ensure};
use tests::Site;

const PER_SECOND: u32 = 200;
/// Of the one among very many.
const HIS: u64 = 200;

/// What asks for one patient's resources, with what there is of them.
fn request(site: &Site, id: &str) -> Result<String> {
    Ok(get(site.server.listening()?, &format!("/fhir/Patient/{id}/$export"), ""))
}

/// Stores so many patients, `p0` and so on.
async fn patients(site: &Site, count: u32) -> Result<()> {
    let rows = "insert into fhir.resource (resource_type, id, content) \
        select 'Patient', 'p' || n, json_build_object('resourceType', 'Patient') from generate_series(0, $1::int4 - 1) n";
    site.sql.execute(rows, &[&i32::try_from(count)?]).await?;
    settled(site).await
}

pub(super) async fn routing(lab: &Lab) -> Result<Measured> {
    let (streams, commits) = (lab.scaled(10_000, 200), lab.scaled(2_000, 100));
    let changes = u64::from(lab.scaled(200_000, 5_000));
    let (context, mut site) = lab.running(&[]).await?;
    patients(&site, streams).await?;
    let (mut without, mut with, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut next, mut number) = (0, 0);
    // The first only warms up.
    for run in 0..=lab.runs {
        let alone = of_others(&site, &mut next, changes).await?;
        let record = context.directory().join("record");
        let requests = (0..streams).map(|n| Ok((request(&site, &format!("p{n}"))?, 1)));
        let mut crowd =
            crowd(site.server.listening()?, requests.collect::<Result<_>>()?, Some(record)).await?;
        let among = of_others(&site, &mut next, changes).await?;
        let mut paced = Paced::connect(&site.cluster).await?;
        crowd.count(commits.into()).await?;
        let of_one = move |number: u32| of_patient(number.into(), &format!("p{}", number % streams));
        let sent = paced.write_these(number..number + commits, PER_SECOND, of_one).await?;
        number += commits;
        crowd.counted().await?;
        let latencies = Latencies::of(&sent, &crowd.record()?, 1)?;
        if run > 0 {
            without.push(alone);
            with.push(among);
            p50.push(latencies.p50());
            p99.push(latencies.p99());
        }
        drop(crowd);
        site.server.terminate(std::time::Duration::from_secs(30)).await?;
        site.server.start().await?;
        crate::lab::ready(site.server.listening()?).await?;
    }
    let to_one = |part| {
        format!("COMMIT to the one of {streams} streams of one patient, {PER_SECOND} commits/s, {part}")
    };
    Ok(vec![
        Finding {
            reference: reference("without them", without),
            goal: above_by_at_most(1.0),
            ..finding(
                "patients",
                format!(
                    "processor time of a change of another patient, among {streams} streams of one patient"
                ),
                "µs/change",
                with,
            )
        },
        finding("patients", to_one("p50"), "ms", p50),
        finding("patients", to_one("p99"), "ms", p99),
    ]
    .into())
}

/// Microseconds of the service's processor time for each change of a patient whom nobody listens to. What heartbeats take
/// meanwhile is taken off.
async fn of_others(site: &Site, next: &mut u64, changes: u64) -> Result<f64> {
    let service = site.server.id()?;
    caught_up(site, "fhir_tail").await?;
    let quiet = (clock::now(), usage::processor(service)?);
    // As long as it is from heartbeat to heartbeat.
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
    let idle = (usage::processor(service)? - quiet.1) / clock::seconds(clock::now() - quiet.0);
    let began = (clock::now(), usage::processor(service)?);
    writer::at_once(&site.sql, *next..*next + changes).await?;
    *next += changes;
    caught_up(site, "fhir_tail").await?;
    let (used, seconds) = (usage::processor(service)? - began.1, clock::seconds(clock::now() - began.0));
    Ok((used - idle * seconds) * 1e6 / changes as f64)
}

pub(super) async fn one_among_many(lab: &Lab) -> Result<Measured> {
    let rows = u64::from(lab.scaled(1_000_000, 5_000));
    let (_context, site) = lab.loaded(rows).await?;
    patients(&site, 1).await?;
    writer::of_patient_at_once(&site.sql, rows..rows + HIS, "p0").await?;
    settled(&site).await?;
    let (address, mut took) = (site.server.listening()?, Vec::new());
    // The first only warms up. One replay is soon done: more of them tell more.
    for run in 0..=10 * lab.runs {
        let requests = vec![(request(&site, "p0")?, 1)];
        let spec = Spec { address, requests, ready: Ready::Live, record: None };
        let (_crowd, read) = Crowd::start(spec).await?;
        // With himself, and the notices `start` and `live`.
        ensure!(read.frames == HIS + 3, "{} frames came instead of {HIS} and three", read.frames);
        if run > 0 {
            took.push(clock::seconds(read.ended - read.began) * 1e3);
        }
    }
    let what = format!("one patient of {HIS} resources among {rows}, from the request to live");
    Ok(vec![Finding { goal: at_most(50.0), ..finding("patient", what, "ms", took) }].into())
}

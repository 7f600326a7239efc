//! A Group of very many members with very many subscribers: what each of these takes, beside one of a type, and how long it takes from the
//! COMMIT by which a patient joins until the last of them has his resources and the notice `members`.

use super::{Measured, finding, reference};
use crate::client::{Crowd, LIVE_ONLY, get};
use crate::lab::{Lab, caught_up, crowd, ready, settled, subscribers};
use crate::report::{Finding, above_by_at_most};
use crate::{clock, usage, writer};
use anyhow::Result;
use bench::documents::TYPE;
use std::time::Duration;
use tests::Site;

/// Resources of one who joins.
const HIS: u64 = 400;

pub(super) async fn measure(lab: &Lab) -> Result<Measured> {
    let (members, streams) = (lab.scaled(100_000, 1_000), lab.scaled(1_000, 20));
    let (_context, mut site) = lab.running(&[]).await?;
    write_group(&site, members, 0).await?;
    // Stored before there is a subscriber: what is measured is that somebody joins, not that his resources are written.
    for run in 0..=lab.runs as u64 {
        writer::of_patient_at_once(&site.sql, run * HIS..(run + 1) * HIS, &format!("j{}", run + 1)).await?;
    }
    settled(&site).await?;
    let plain = one_more(&mut site, streams, false).await?.0;
    let (each, mut crowd) = one_more(&mut site, streams, true).await?;
    let (mut joins, mut used) = (Vec::new(), Vec::new());
    // The first only warms up.
    for run in 0..=u32::try_from(lab.runs)? {
        let service = site.server.id()?;
        crowd.count(u64::from(streams) * (HIS + 1)).await?;
        let before = usage::processor(service)?;
        let began = write_group(&site, members, run + 1).await?;
        let counted = crowd.counted().await?;
        if run > 0 {
            joins.push(clock::seconds(counted.ended - began));
            used.push(usage::processor(service)? - before);
        }
        caught_up(&site, "fhir_tail").await?;
    }
    let what = format!("each of {streams} subscribers of a Group of {members}");
    Ok(vec![
        Finding {
            reference: reference("one of a type", vec![plain]),
            goal: above_by_at_most(1.0),
            ..finding("group", what, "KB", vec![each])
        },
        finding(
            "group",
            format!("COMMIT by which one of {HIS} resources joins, to the last of {streams} subscribers"),
            "s",
            joins,
        ),
        finding("group", "processor time of the service for it", "s", used),
    ]
    .into())
}

/// Opens `2 * streams` subscribers and then `streams` more. Returns the kilobytes of resident memory that each of the latter
/// adds, and their crowd. The memory that many need while they open at once stays with the allocator for later ones.
async fn one_more(site: &mut Site, streams: u32, of_group: bool) -> Result<(f64, Crowd)> {
    site.server.terminate(Duration::from_secs(30)).await?;
    site.server.start().await?;
    let address = site.server.listening()?;
    ready(address).await?;
    caught_up(site, "fhir_tail").await?;
    let open = async |count: u32| {
        if !of_group {
            return subscribers(site, usize::try_from(count)?, None).await;
        }
        let target = format!("/fhir/Group/g/$export?_type={TYPE}&{LIVE_ONLY}");
        crowd(address, vec![(get(address, &target, ""), usize::try_from(count)?)], None).await
    };
    // What the Group takes as such is not one subscriber's.
    let _first = open(2 * streams).await?;
    tokio::time::sleep(SETTLING).await;
    let (alone, _) = usage::memory(site.server.id()?)?;
    let crowd = open(streams).await?;
    tokio::time::sleep(SETTLING).await;
    let (with, _) = usage::memory(site.server.id()?)?;
    Ok(((with - alone) / 1024.0 / f64::from(streams), crowd))
}

/// What is kept for a moment for who comes late is free after it.
const SETTLING: Duration = Duration::from_secs(7);

/// Writes the Group, with so many members who are not stored and so many who are; when its COMMIT was sent.
async fn write_group(site: &Site, members: u32, joined: u32) -> Result<i64> {
    let write = "insert into fhir.resource (resource_type, id, content) \
        select 'Group', 'g', json_build_object('resourceType', 'Group', 'type', 'person', 'actual', true, 'member', \
            json_agg(json_build_object('entity', json_build_object('reference', 'Patient/' || id)))) \
          from (select 'm' || n as id from generate_series(1, $1::int4) n \
                union all select 'j' || n from generate_series(1, $2::int4) n) ids \
        on conflict (resource_type, id) do update set content = excluded.content";
    site.sql.batch_execute("begin").await?;
    site.sql.execute(write, &[&i32::try_from(members)?, &i32::try_from(joined)?]).await?;
    let sent = clock::now();
    site.sql.batch_execute("commit").await?;
    Ok(sent)
}

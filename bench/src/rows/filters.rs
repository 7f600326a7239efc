//! As many filters as subscribers: sets of three types, each with the type that changes. Nothing that is framed
//! is shared.

use super::{Measured, finding};
use crate::client::{LIVE_ONLY, get};
use crate::lab::{Lab, crowd};
use crate::report::{Finding, at_least};
use crate::{clock, writer};
use anyhow::Result;
use bench::documents;
use fhir::{RESOURCE_TYPES, ResourceType};

pub(super) async fn measure(lab: &Lab) -> Result<Measured> {
    let streams = usize::try_from(lab.scaled(1_000, 20))?;
    let events = u64::from(lab.scaled(500, 50));
    let (_context, site) = lab.running(&[]).await?;
    let address = site.server.listening()?;
    let requests = others().take(streams).map(|(a, b)| {
        let target = format!("/fhir/$export?{LIVE_ONLY}&_type={},{a},{b}", documents::TYPE);
        (get(address, &target, ""), 1)
    });
    let mut crowd = crowd(address, requests.collect(), None).await?;
    let mut rates = Vec::new();
    // The first only warms up.
    for run in 0..=u64::try_from(lab.runs)? {
        crowd.count(events * streams as u64).await?;
        let began = writer::at_once(&site.sql, run * events..(run + 1) * events).await?;
        let counted = crowd.counted().await?;
        rates.push(counted.frames as f64 / clock::seconds(counted.ended - began));
    }
    rates.remove(0);
    let what = format!("fan-out to {streams} clients with {streams} filters");
    Ok(vec![Finding { goal: at_least(300_000.0), ..finding("filters", what, "deliveries/s", rates) }].into())
}

/// Pairs of other types, all different.
fn others() -> impl Iterator<Item = (&'static str, &'static str)> {
    let types: Vec<&'static str> = (0..RESOURCE_TYPES)
        .filter_map(ResourceType::from_index)
        .map(ResourceType::as_str)
        .filter(|name| *name != documents::TYPE)
        .collect();
    let pairs = types.clone().into_iter().enumerate();
    pairs.flat_map(move |(index, a)| types.clone().into_iter().skip(index + 1).map(move |b| (a, b)))
}

//! How many deliveries a second: one transaction of many resources, from the moment its COMMIT is sent until the
//! last subscriber has read the last byte. Beside it nchan, which is told the same documents by HTTP, and a server of
//! plain sockets that only writes what it knows beforehand: the ceiling.

use super::{Measured, finding, reference};
use crate::client::{Counted, Crowd};
use crate::lab::{Lab, subscribers};
use crate::nchan::Nchan;
use crate::plain::Plain;
use crate::report::{Finding, at_least, times_at_least};
use crate::{clock, usage, writer};
use anyhow::Result;

/// How many frames the server of plain sockets sends with one write.
const PER_WRITE: u64 = 50;

pub(super) async fn measure(lab: &Lab) -> Result<Measured> {
    let streams = lab.scaled(1_000, 20);
    let (events, told) = (u64::from(lab.scaled(2_000, 100)), u64::from(lab.scaled(200, 10)));
    let crowd_size = usize::try_from(streams)?;
    let (context, site) = lab.running(&[]).await?;
    let mut ours = subscribers(&site, crowd_size, None).await?;
    let (mut plain, mut plain_crowd) = Plain::start(crowd_size).await?;
    let nchan = Nchan::start(&context.directory().join("nchan")).await?;
    let mut nchan = match nchan {
        Some(nchan) => Some((nchan.crowd(crowd_size).await?, nchan)),
        None => None,
    };
    let mut rates = Rates::default();
    // The first only warms up.
    for run in 0..=u64::try_from(lab.runs)? {
        let deliveries = events * u64::from(streams);
        let used = usage::processor(site.server.id()?)?;
        ours.count(deliveries).await?;
        let began = writer::at_once(&site.sql, run * events..(run + 1) * events).await?;
        let counted = ours.counted().await?;
        rates.ours.push(rate(counted, began));
        rates.service_cost.push((usage::processor(site.server.id()?)? - used) * 1e9 / deliveries as f64);
        rates.client_cost.push(cost(counted));

        for (per_write, into) in [(PER_WRITE, &mut rates.ceiling), (1, &mut rates.single)] {
            let counted = plain_run(&mut plain, &mut plain_crowd, events, per_write, deliveries).await?;
            into.0.push(counted.0);
            into.1.push(counted.1);
        }
        if let Some((crowd, nchan)) = &mut nchan {
            crowd.count(told * u64::from(streams)).await?;
            let began = nchan.publish(told).await?;
            rates.nchan.push(rate(crowd.counted().await?, began));
        }
    }
    Ok(rates.findings(streams).into())
}

/// Deliveries a second, and what the client used for each.
async fn plain_run(
    plain: &mut Plain,
    crowd: &mut Crowd,
    events: u64,
    per_write: u64,
    deliveries: u64,
) -> Result<(f64, f64)> {
    crowd.count(deliveries).await?;
    let began = plain.send(events, per_write).await?;
    let counted = crowd.counted().await?;
    Ok((rate(counted, began), cost(counted)))
}

fn rate(counted: Counted, began: i64) -> f64 {
    counted.frames as f64 / clock::seconds(counted.ended - began)
}

/// Nanoseconds of the client's processor time for a delivery.
fn cost(counted: Counted) -> f64 {
    counted.processor as f64 * 1e3 / counted.frames as f64
}

#[derive(Default)]
struct Rates {
    ours: Vec<f64>,
    service_cost: Vec<f64>,
    client_cost: Vec<f64>,
    ceiling: (Vec<f64>, Vec<f64>),
    single: (Vec<f64>, Vec<f64>),
    nchan: Vec<f64>,
}

impl Rates {
    fn findings(&self, streams: u32) -> Vec<Finding> {
        let warm = |runs: &[f64]| runs.iter().skip(1).copied().collect::<Vec<_>>();
        let what = format!("fan-out to {streams} clients");
        let line = || finding("fanout", what.clone(), "deliveries/s", warm(&self.ours));
        let own = |what: &str, runs: &[f64]| {
            finding("fanout", format!("processor time: {what}"), "ns/delivery", warm(runs))
        };
        vec![
            Finding { goal: at_least(1e6), ..line() },
            Finding { reference: reference("nchan", warm(&self.nchan)), goal: times_at_least(8.0), ..line() },
            Finding {
                reference: reference("plain sockets, 50 frames a write", warm(&self.ceiling.0)),
                goal: times_at_least(0.5),
                ..line()
            },
            Finding {
                reference: reference("plain sockets, 1 frame a write", warm(&self.single.0)),
                ..line()
            },
            own("the service", &self.service_cost),
            own("the client, reading ours", &self.client_cost),
            own("the client, reading plain sockets, 50 frames a write", &self.ceiling.1),
        ]
    }
}

//! Resident memory of the service (buffers of the kernel are not in it): when nobody is there, for each of very many
//! idle subscribers, and the most it has had while one very large transaction passes.

use super::{Measured, finding};
use crate::lab::{Lab, caught_up, ready, subscribers};
use crate::report::{Finding, at_most};
use crate::{usage, writer};
use anyhow::Result;
use std::time::Duration;

const MEGABYTE: f64 = 1024.0 * 1024.0;

pub(super) async fn measure(lab: &Lab) -> Result<Measured> {
    let (streams, rows) = (lab.scaled(10_000, 200), u64::from(lab.scaled(1_000_000, 5_000)));
    let (_context, mut site) = lab.running(&[]).await?;
    let (mut idle, mut each, mut most) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..u64::try_from(lab.runs)? {
        // A new process each time: what was given back is not given back to the machine at once.
        for what in 0..2 {
            site.server.terminate(Duration::from_secs(30)).await?;
            site.server.start().await?;
            ready(site.server.listening()?).await?;
            caught_up(&site, "fhir_tail").await?;
            let (alone, _) = usage::memory(site.server.id()?)?;
            if what == 0 {
                idle.push(alone / MEGABYTE);
                let _crowd = subscribers(&site, usize::try_from(streams)?, None).await?;
                let (with, _) = usage::memory(site.server.id()?)?;
                each.push((with - alone) / 1024.0 / f64::from(streams));
            } else {
                writer::at_once(&site.sql, run * rows..(run + 1) * rows).await?;
                caught_up(&site, "fhir_tail").await?;
                most.push(usage::memory(site.server.id()?)?.1 / MEGABYTE);
            }
        }
    }
    Ok(vec![
        Finding { goal: at_most(40.0), ..finding("memory", "idle", "MB", idle) },
        Finding {
            goal: at_most(12.0),
            ..finding("memory", format!("for each of {streams} idle subscribers"), "KB", each)
        },
        Finding {
            goal: at_most(150.0),
            ..finding(
                "memory",
                format!("at most, while {rows} resources pass in one transaction"),
                "MB",
                most,
            )
        },
    ]
    .into())
}

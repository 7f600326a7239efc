//! How fast the log comes in: from the start of the service, on a slot behind which all is written already, until all
//! is acknowledged, which is when it is on the disk of the journal. The reference reads the same log through a slot
//! that stands at the same place, into nothing.

use super::{Measured, finding, reference};
use crate::lab::{Lab, acknowledged};
use crate::report::{Finding, times_at_least};
use crate::{clock, receive, writer};
use anyhow::Result;
use std::time::Duration;
use tests::Server;

pub(super) async fn one(lab: &Lab) -> Result<Measured> {
    measure(lab, "intake-one", true).await
}

pub(super) async fn many(lab: &Lab) -> Result<Measured> {
    measure(lab, "intake-many", false).await
}

async fn measure(lab: &Lab, row: &'static str, one: bool) -> Result<Measured> {
    let rows = u64::from(lab.scaled(200_000, 1_000));
    let (context, site) = lab.site(&[]).await?;
    for run in 0..lab.runs {
        for whose in ["ours", "reference"] {
            let slot = format!("{whose}_{run}");
            site.sql.execute("select pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot]).await?;
        }
    }
    if one {
        writer::at_once(&site.sql, 0..rows).await?;
    } else {
        writer::one_by_one(&site.sql, 0..rows).await?;
    }
    // What is acknowledged beyond it shows that all before it is on disk.
    let target: String =
        site.sql.query_one("select pg_current_wal_insert_lsn()::text", &[]).await?.try_get(0)?;
    site.put("Basic", "after").await?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..lab.runs {
        let slot = format!("reference_{run}");
        theirs.push(rows as f64 / receive::drain(&context, &site.cluster, &slot, &target).await?);

        let slot = format!("ours_{run}");
        let folder = context.within(&slot)?;
        let arguments = ["--slot", &slot, "--log-level", "warn"];
        let mut server = Server::new(folder.directory(), &site.cluster.url("fhir_tail"), &arguments)?;
        let began = clock::now();
        server.start().await?;
        acknowledged(&site, &slot, &target).await?;
        ours.push(rows as f64 / clock::seconds(clock::now() - began));
        server.terminate(Duration::from_secs(30)).await?;
        std::fs::remove_dir_all(folder.directory())?;
    }
    let transactions = if one { "one transaction" } else { "each its own transaction" };
    Ok(vec![Finding {
        reference: reference("pg_recvlogical", theirs),
        goal: times_at_least(0.9),
        ..finding(row, format!("{rows} resources to disk, {transactions}"), "resources/s", ours)
    }]
    .into())
}

//! How fast the log comes in: from the moment when the server begins to serve us, on a slot behind which all is written
//! already, until all is on the disk of the journal. The reference reads the same log in the same way through a slot that
//! stands at the same place, into nothing.

use super::{Measured, finding, reference};
use crate::lab::{Lab, on_disk, read_since};
use crate::report::{Finding, times_at_least};
use crate::{clock, receive, writer};
use anyhow::Result;
use std::time::Duration;
use tests::{Cluster, Server};

pub(super) async fn one(lab: &Lab) -> Result<Measured> {
    measure(lab, "intake-one", true).await
}

pub(super) async fn many(lab: &Lab) -> Result<Measured> {
    measure(lab, "intake-many", false).await
}

/// How the database is reached.
type Reach = fn(&Cluster, &str) -> String;

async fn measure(lab: &Lab, row: &'static str, one: bool) -> Result<Measured> {
    let ways: [(&str, Reach); 2] = [("TCP", Cluster::tcp_url), ("a Unix socket", Cluster::url)];
    let rows = u64::from(lab.scaled(200_000, 1_000));
    let (context, site) = lab.site(&[]).await?;
    for run in 0..lab.runs {
        for whose in ["ours", "reference"] {
            for way in 0..ways.len() {
                let slot = format!("{whose}_{way}_{run}");
                let create = "select pg_create_logical_replication_slot($1, 'pgoutput')";
                site.sql.execute(create, &[&slot]).await?;
            }
        }
    }
    if one {
        writer::at_once(&site.sql, 0..rows).await?;
    } else {
        writer::one_by_one(&site.sql, 0..rows).await?;
    }
    // What is on disk beyond it shows that all before it is.
    let target: String =
        site.sql.query_one("select pg_current_wal_insert_lsn()::text", &[]).await?.try_get(0)?;
    site.put("Basic", "after").await?;

    let mut figures = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for run in 0..lab.runs {
        for (way, ((_, reach), (ours, theirs))) in ways.iter().zip(&mut figures).enumerate() {
            let (slot, url) = (format!("reference_{way}_{run}"), reach(&site.cluster, "postgres"));
            let draining = receive::drain(&context, &url, &slot, &target);
            let (ended, began) = tokio::try_join!(draining, read_since(&site.sql, &slot))?;
            theirs.push(rows as f64 / clock::seconds(ended - began));

            let slot = format!("ours_{way}_{run}");
            let folder = context.within(&slot)?;
            let arguments = ["--slot", &slot, "--log-level", "warn"];
            let url = reach(&site.cluster, "fhir_tail");
            let mut server = Server::new(folder.directory(), &url, &arguments)?;
            server.start().await?;
            let began = read_since(&site.sql, &slot).await?;
            on_disk(&site, server.listening()?, &target).await?;
            ours.push(rows as f64 / clock::seconds(clock::of_day() - began));
            server.terminate(Duration::from_secs(30)).await?;
            std::fs::remove_dir_all(folder.directory())?;
        }
    }
    let transactions = if one { "one transaction" } else { "each its own transaction" };
    let findings = ways.iter().zip(figures).map(|((way, _), (ours, theirs))| Finding {
        reference: reference("pg_recvlogical", theirs),
        goal: times_at_least(0.9),
        ..finding(row, format!("{rows} resources to disk, {transactions}, over {way}"), "resources/s", ours)
    });
    Ok(findings.collect::<Vec<_>>().into())
}

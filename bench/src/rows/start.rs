//! From the start of the process until it says that it is ready, with a large journal: 70 KB of text that
//! hardly anything compresses in each entry, so that the blocks on the disk are as many as they would be with small ones.

use super::{Measured, finding};
use crate::lab::{Lab, caught_up, ready, tidy};
use crate::report::{Finding, at_most};
use crate::{clock, output, usage};
use anyhow::Result;
use std::time::Duration;

/// Resources written again and again: the table stays small.
const ROWS: u32 = 1_000;
/// Characters in each. A round has the same text in every row: lz4 looks 65,535 bytes back, not as far as the row before.
const TEXT: u32 = 70_000;

pub(super) async fn measure(lab: &Lab) -> Result<Measured> {
    let rounds = lab.scaled(10_000_000_000_u64.div_ceil(u64::from(ROWS * TEXT)).try_into()?, 3);
    let (context, mut site) = lab.running(&["--retention-bytes", "30GiB", "--max-wal-held", "30GiB"]).await?;
    // What comes twice in digits of checksums are runs too short for lz4 to gain by them.
    site.sql
        .batch_execute(&format!(
            "create temporary table noise as select string_agg(md5(n::text), '' order by n) as text \
               from generate_series(1, {}) n; \
             insert into fhir.resource (resource_type, id, content) \
             select 'Binary', 'b' || n, '{{\"resourceType\":\"Binary\"}}'::json from generate_series(1, {ROWS}) n",
            TEXT.div_ceil(32)
        ))
        .await?;
    for round in 0..rounds {
        site.sql
            .execute(
                "update fhir.resource r set content = ('{\"resourceType\":\"Binary\",\"data\":\"' || \
                   substr(text, 1 + n, $1::int) || substr(text, 1, n) || '\"}')::json \
                 from (select text, (random() * $1::int)::int as n from noise) noise where r.resource_type = 'Binary'",
                &[&i32::try_from(TEXT)?],
            )
            .await?;
        if round % 10 == 9 {
            caught_up(&site, "fhir_tail").await?;
            tidy(&site).await?;
        }
    }
    caught_up(&site, "fhir_tail").await?;
    let mut seconds = Vec::new();
    for _ in 0..lab.runs {
        site.server.terminate(Duration::from_secs(60)).await?;
        let began = clock::now();
        site.server.start().await?;
        ready(site.server.listening()?).await?;
        seconds.push(clock::seconds(clock::now() - began));
    }
    let bytes = usage::disk(&context.directory().join("data"))? as f64 / 1e9;
    output::say(&format!("the journal takes {bytes:.2} GB on the disk"));
    let what = format!("start to ready, {bytes:.1} GB of journal on the disk");
    Ok(vec![Finding { goal: at_most(2.0), ..finding("start", what, "s", seconds) }].into())
}

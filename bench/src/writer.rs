//! Who writes: resources in bulk, in one transaction or each in its own, and at a pace.

use crate::clock;
use anyhow::Result;
use bench::documents::{OBSERVATION, TYPE};
use std::ops::Range;
use std::time::Duration;
use tests::Cluster;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Client;

/// Writes resources with these numbers in one transaction; when its COMMIT was sent.
pub(crate) async fn at_once(sql: &Client, numbers: Range<u64>) -> Result<i64> {
    // As a load does it.
    sql.batch_execute("begin; set local fhir.bulk_load = on").await?;
    let rows = "insert into fhir.resource (resource_type, id, content) \
        select $1, 'o-' || n, replace($2, '@', n::text)::json from generate_series($3::int8, $4::int8) n";
    let (first, last) = (i64::try_from(numbers.start)?, i64::try_from(numbers.end)? - 1);
    sql.execute(rows, &[&TYPE, &OBSERVATION, &first, &last]).await?;
    let sent = clock::now();
    sql.batch_execute("commit").await?;
    Ok(sent)
}

/// The content of a resource of a patient's.
pub(crate) fn of_patient(number: u64, patient: &str) -> String {
    let (before, after) = OBSERVATION.split_once(SUBJECT).unwrap_or((OBSERVATION, ""));
    format!("{before}{patient}{after}").replace('@', &number.to_string())
}

/// Whose the documents are.
const SUBJECT: &str = "0b8a6ef0-07c8-48ca-804d-1e64f6e44b95";

/// Writes resources of a patient's with these numbers in one transaction.
pub(crate) async fn of_patient_at_once(sql: &Client, numbers: Range<u64>, patient: &str) -> Result<()> {
    let rows = "insert into fhir.resource (resource_type, id, content) \
        select $1, $2 || '-' || n, replace(replace($3, $4, $2), '@', n::text)::json from generate_series($5::int8, $6::int8) n";
    let (first, last) = (i64::try_from(numbers.start)?, i64::try_from(numbers.end)? - 1);
    sql.execute(rows, &[&TYPE, &patient, &OBSERVATION, &SUBJECT, &first, &last]).await?;
    Ok(())
}

/// Writes resources with these numbers, each in a transaction of its own, as fast as the server takes them.
pub(crate) async fn one_by_one(sql: &Client, numbers: Range<u64>) -> Result<()> {
    // Without a wait for each: how fast they are written is not what is measured.
    sql.batch_execute("set synchronous_commit = off; set fhir.bulk_load = on").await?;
    let (first, last) = (numbers.start, numbers.end - 1);
    // Alone: it may end transactions only where none was begun for it.
    sql.batch_execute(&format!(
        "do $$ begin for n in {first}..{last} loop \
           insert into fhir.resource (resource_type, id, content) \
           values ('{TYPE}', 'o-' || n, replace($t${OBSERVATION}$t$, '@', n::text)::json); commit; \
         end loop; end $$"
    ))
    .await?;
    sql.batch_execute("reset synchronous_commit; reset fhir.bulk_load").await?;
    Ok(())
}

/// Those who write at a pace, each with a connection: a commit may take longer than the next may wait.
pub(crate) struct Paced {
    writers: Vec<Client>,
}

impl Paced {
    pub(crate) async fn connect(cluster: &Cluster) -> Result<Self> {
        let mut writers = Vec::new();
        for _ in 0..4 {
            writers.push(cluster.connect().await?);
        }
        Ok(Self { writers })
    }

    /// Writes numbered events at so many a second; of each, when its COMMIT was sent.
    pub(crate) async fn write(&mut self, numbers: Range<u32>, per_second: u32) -> Result<Vec<(u32, i64)>> {
        self.write_these(numbers, per_second, |number| OBSERVATION.replace('@', &number.to_string())).await
    }

    /// The same, with these contents.
    pub(crate) async fn write_these(
        &mut self,
        numbers: Range<u32>,
        per_second: u32,
        content: impl Fn(u32) -> String + Clone + Send + 'static,
    ) -> Result<Vec<(u32, i64)>> {
        let (begin, lanes) = (Instant::now() + Duration::from_millis(20), self.writers.len());
        let mut tasks = tokio::task::JoinSet::new();
        for (lane, writer) in self.writers.drain(..).enumerate() {
            let (numbers, content) = (numbers.clone(), content.clone());
            tasks.spawn(async move {
                let insert = "insert into fhir.resource (resource_type, id, content) values ($1, $2, ($3::text)::json)";
                let insert = writer.prepare(insert).await?;
                let mut sent = Vec::new();
                for (turn, number) in numbers.enumerate().skip(lane).step_by(lanes) {
                    sleep_until(begin + Duration::from_secs_f64(turn as f64 / f64::from(per_second))).await;
                    let (id, content) = (format!("latency-{number}"), content(number));
                    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&TYPE, &id, &content];
                    // Both on their way before the first is answered.
                    tokio::try_join!(writer.batch_execute("begin"), writer.execute(&insert, &parameters))?;
                    sent.push((number, clock::now()));
                    writer.batch_execute("commit").await?;
                }
                anyhow::Ok((writer, sent))
            });
        }
        let mut all = Vec::new();
        while let Some(task) = tasks.join_next().await {
            let (writer, sent) = task??;
            self.writers.push(writer);
            all.extend(sent);
        }
        Ok(all)
    }
}

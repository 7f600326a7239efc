//! Random writers, and readers that come and go as they please: whatever happens, each reader hears everything once and
//! in order. The same while the server is killed, and while Postgres is restarted.
//!
//! Each run prints its seed. `FHIR_TAIL_TEST_SEED` repeats one (the writers' and readers' choices; not the scheduler's),
//! `FHIR_TAIL_TEST_SECONDS` makes it longer.

use crate::crowd::{Crowd, Disturbance};
use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use std::time::Duration;
use tests::{Case, Context, Load, SOON, Site, cases, seconds, seed};
use tokio::time::sleep;

pub(crate) fn cases() -> Vec<Case> {
    cases![each readers_that_are_cut, each while_the_server_is_killed, each while_postgres_is_restarted]
}

async fn readers_that_are_cut(context: Context) -> Result<()> {
    run(&context, false, Undisturbed).await
}

async fn while_the_server_is_killed(context: Context) -> Result<()> {
    run(&context, false, ServerKilled).await
}

async fn while_postgres_is_restarted(context: Context) -> Result<()> {
    run(&context, true, PostgresRestarted).await
}

struct Undisturbed;

impl Disturbance for Undisturbed {
    async fn next(&mut self, _: &mut Site, _: &mut Rng) -> Result<()> {
        Ok(())
    }
}

struct ServerKilled;

impl Disturbance for ServerKilled {
    async fn next(&mut self, site: &mut Site, random: &mut Rng) -> Result<()> {
        sleep(Duration::from_millis(random.u64(200..2_500))).await;
        if random.u8(0..4) == 0 {
            let status = site.server.terminate(SOON).await?;
            ensure!(status.success(), "it ended with {status}");
        } else {
            site.server.kill().await?;
        }
        sleep(Duration::from_millis(random.u64(0..300))).await;
        site.server.start().await
    }
}

struct PostgresRestarted;

impl Disturbance for PostgresRestarted {
    async fn next(&mut self, site: &mut Site, random: &mut Rng) -> Result<()> {
        sleep(Duration::from_millis(random.u64(500..3_000))).await;
        if random.bool() {
            site.cluster.stop_fast().await?;
        } else {
            site.cluster.stop_immediate().await?;
        }
        sleep(Duration::from_millis(random.u64(0..300))).await;
        site.cluster.start_again().await?;
        site.sql = site.cluster.connect().await?;
        site.server.must_run()
    }
}

const SECONDS: u64 = 12;

async fn run(context: &Context, restarts: bool, disturbance: impl Disturbance) -> Result<()> {
    let mut site = Site::start(context).await?;
    let seed = seed()?;
    report(&format!("seed {seed}"));
    let crowd = Crowd {
        load: Load { writers: 6, pause: Duration::from_millis(12), restarts },
        readers: 8,
        spread: Duration::from_secs(3),
        time: Duration::from_secs(seconds()?.unwrap_or(SECONDS)),
        address: site.server.address(),
    };
    let tally = crowd
        .run(&mut site, Rng::with_seed(seed), disturbance)
        .await
        .with_context(|| format!("with FHIR_TAIL_TEST_SEED={seed}"))?;
    report(&format!("{tally:?}"));
    ensure!(tally.cut_in_replays > 0, "no replay was cut: nothing is tested of that");
    Ok(())
}

#[allow(clippy::print_stderr, reason = "the seed is what a failure is repeated by")]
fn report(text: &str) {
    eprintln!("{text}");
}

//! Database and journal are put back from copies of one moment, and overtake what was lost: the clients' ids look as if
//! nothing had happened, and are recognised all the same. And `fhir-tail restored`, for who knows that he has restored.

use crate::field::{not_root, until_the_journal_fails};
use crate::forks::is_corrected;
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{Binary, Case, Client, Context, Disk, Reader, SOON, Site, Subscribe, cases, put, until};

pub(crate) fn cases() -> Vec<Case> {
    let cases = cases![
        each both_restored_from_a_snapshot_of_a_running_machine,
        each both_restored_from_a_copy_of_a_stopped_machine,
        once the_journal_alone_restored_from_an_old_copy,
        once restored_is_told_by_an_operator,
    ];
    let mut on_a_disk = cases![once the_database_alone_restored_after_a_kill_before_the_journal_was_written];
    on_a_disk.iter_mut().for_each(|case| case.skip = not_root);
    [cases, on_a_disk].concat()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// The service is the same process before and after.
    Running,
    /// It is another.
    Stopped,
}

/// A site of which there are copies.
struct Copied {
    site: Site,
    /// Heard what was there before the copies were taken, and nothing since.
    early: Reader,
    /// Is live.
    late: Reader,
    data: PathBuf,
    saved: PathBuf,
}

async fn copied(context: &Context, taken: Taken) -> Result<Copied> {
    let mut site = Site::start(context).await?;
    let [mut early, mut late] =
        [site.live(Subscribe::all(Client::Raw)).await?, site.live(Subscribe::all(Client::Raw)).await?];
    for id in ["kept", "changed"] {
        site.put("Patient", id).await?;
    }
    for reader in [&mut early, &mut late] {
        reader.hear("what is kept", SOON, |reader| reader.heard_of("changed")).await?;
    }
    on_disk(&site).await?;
    let (data, saved) = (context.directory().join("data"), context.directory().join("saved"));
    match taken {
        Taken::Running => {
            site.server.freeze()?;
            site.cluster.snapshot("copy").await?;
            copy(&data, &saved)?;
            site.server.thaw()?;
            early.cut();
        }
        Taken::Stopped => {
            site.server.terminate(SOON).await?;
            early.cut();
            late.cut();
            site.cluster.copy("copy").await?;
            copy(&data, &saved)?;
            site.server.start().await?;
            late.connect(site.server.listening()?).await?;
        }
    }
    site.sql = site.cluster.connect().await?;
    for id in ["changed", "lost", "lost-too"] {
        site.put("Patient", id).await?;
    }
    late.hear("what is lost", SOON, |reader| reader.heard_of("lost-too")).await?;
    Ok(Copied { site, early, late, data, saved })
}

/// Waits until the journal has what was published.
async fn on_disk(site: &Site) -> Result<()> {
    until("the journal to have it too", SOON, || async {
        let (head, durable) = ("fhir_tail_head_lsn", "fhir_tail_durable_lsn");
        Ok((site.metric(durable).await? > site.metric(head).await?).then_some(()))
    })
    .await
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-Rp").args([from, to]).status()?;
    ensure!(copied.success(), "{} was not copied", from.display());
    Ok(())
}

/// The database's copy takes its place and is written to until it has passed all that was lost.
async fn restore_database(site: &mut Site) -> Result<()> {
    let reached = "select pg_current_wal_insert_lsn()::text";
    let reached: String = site.sql.query_one(reached, &[]).await?.try_get(0)?;
    site.cluster.become_copy("copy").await?;
    site.cluster.start_again().await?;
    site.sql = site.cluster.connect().await?;
    for number in 0.. {
        // Changes among all else: some of them may lie where there were others.
        put(&site.sql, "Patient", "new", number).await?;
        let passed = "select pg_current_wal_flush_lsn() > ($1::text)::pg_lsn";
        if site.sql.query_one(passed, &[&reached]).await?.try_get(0)? {
            break;
        }
    }
    put(&site.sql, "Patient", "new", -1).await?;
    Ok(())
}

impl Copied {
    /// The service is killed, and the journal's copy takes the journal's place.
    async fn restore_journal(&mut self) -> Result<()> {
        self.site.server.kill().await?;
        self.late.cut();
        std::fs::remove_dir_all(&self.data)?;
        std::fs::rename(&self.saved, &self.data).context("the journal's copy")
    }
}

async fn both(context: &Context, taken: Taken) -> Result<()> {
    let mut copied = copied(context, taken).await?;
    copied.restore_journal().await?;
    restore_database(&mut copied.site).await?;
    let Copied { mut site, mut early, mut late, .. } = copied;
    site.server.start().await?;
    is_corrected(&site, &mut late).await?;
    // What it has is of both histories: it goes on as if nothing had happened.
    let before = early.heard.len();
    early.connect(site.server.listening()?).await?;
    early.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
    ensure!(!early.noticed("reset") && !early.noticed("reset-all"), "{}", early.tail());
    let ids: Vec<_> = early.heard[before..].iter().filter_map(|heard| heard.what.key()).collect();
    ensure!(ids.iter().all(|key| key.id == "new" || key.id == "end"), "{ids:?}");
    let news: i64 = site
        .sql
        .query_one("select (content ->> 'n')::bigint from fhir.resource where id = 'new'", &[])
        .await?
        .try_get(0)?;
    ensure!(news == -1 && ids.len() > 2, "{ids:?}");
    Ok(())
}

async fn both_restored_from_a_snapshot_of_a_running_machine(context: Context) -> Result<()> {
    both(&context, Taken::Running).await
}

async fn both_restored_from_a_copy_of_a_stopped_machine(context: Context) -> Result<()> {
    both(&context, Taken::Stopped).await
}

/// The slot has moved on. What the journal does not know of it cannot tell from what was lost; what it knows it can.
async fn the_journal_alone_restored_from_an_old_copy(context: Context) -> Result<()> {
    let mut copied = copied(&context, Taken::Stopped).await?;
    on_disk(&copied.site).await?;
    // Acknowledged, and the slot with it on the database's disk.
    copied.site.server.terminate(SOON).await?;
    copied.site.server.start().await?;
    copied.restore_journal().await?;
    let Copied { mut site, mut early, mut late, .. } = copied;
    site.server.start().await?;
    site.put("Patient", "end").await?;
    for (reader, told, other) in [(&mut late, "reset-all", "reset"), (&mut early, "reset", "reset-all")] {
        reader.connect(site.server.listening()?).await?;
        reader.hear("the end", SOON, |reader| reader.heard_of("end") && reader.noticed("live")).await?;
        ensure!(reader.noticed(told) && !reader.noticed(other), "{}", reader.tail());
    }
    Ok(())
}

/// Neither the journal nor the database has what was lost: only the ids of the clients who heard of it live.
async fn the_database_alone_restored_after_a_kill_before_the_journal_was_written(
    context: Context,
) -> Result<()> {
    let data = context.directory().join("data");
    let disk = Disk::mount(&data)?.context("root may not mount a disk here")?;
    let mut site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.put("Patient", "changed").await?;
    reader.hear("what is kept", SOON, |reader| reader.heard_of("changed")).await?;
    disk.fill()?;
    until_the_journal_fails(&site).await?;
    // The journal lacks the last of what was written, and so what comes after it, too.
    site.server.freeze()?;
    site.cluster.snapshot("copy").await?;
    site.sql = site.cluster.connect().await?;
    let copied = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
    let copied: f64 = site.sql.query_one(copied, &[]).await?.try_get(0)?;
    site.server.thaw()?;
    for id in ["changed", "lost"] {
        site.put("Patient", id).await?;
    }
    reader.hear("what is lost", SOON, |reader| reader.heard_of("lost")).await?;
    ensure!(site.metric("fhir_tail_durable_lsn").await? <= copied, "the journal has it");
    site.server.kill().await?;
    reader.cut();
    disk.free()?;
    restore_database(&mut site).await?;
    site.server.start().await?;
    is_corrected(&site, &mut reader).await
}

async fn restored_is_told_by_an_operator(context: Context) -> Result<()> {
    let Copied { mut site, mut early, mut late, data, .. } = copied(&context, Taken::Stopped).await?;
    let binary = Binary::find()?;
    let restored = |data: &Path| -> Result<(Option<i32>, String)> {
        let output = binary.run(&["restored", "--data-dir", &data.display().to_string()])?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(said)?))
    };
    let (code, said) = restored(&data)?;
    ensure!(code == Some(1) && said.contains("stop the service first"), "while it runs: {code:?} {said}");
    site.server.terminate(SOON).await?;
    let none = context.directory().join("none");
    let (code, said) = restored(&none)?;
    ensure!(code == Some(1) && said.contains("there is no data directory") && !none.exists(), "{said}");
    std::fs::create_dir(&none)?;
    let (code, said) = restored(&none)?;
    ensure!(code == Some(1) && said.contains("there is no journal"), "{said}");
    for expected in ["begins a new epoch at its next start", "nothing to do"] {
        let (code, said) = restored(&data)?;
        ensure!(code == Some(0) && said.contains(expected), "{code:?} {said}");
    }
    site.server.start().await?;
    site.put("Patient", "end").await?;
    for reader in [&mut early, &mut late] {
        reader.cut();
        reader.connect(site.server.listening()?).await?;
        reader.hear("the end", SOON, |reader| reader.heard_of("end") && reader.noticed("reset-all")).await?;
        ensure!(reader.notices("reset-all").count() == 1 && !reader.noticed("reset"), "{}", reader.tail());
    }
    // Once: what is given out since is good.
    site.server.terminate(SOON).await?;
    site.server.start().await?;
    site.put("Patient", "once-more").await?;
    for reader in [&mut early, &mut late] {
        reader.cut();
        reader.connect(site.server.listening()?).await?;
        reader.hear("once more", SOON, |reader| reader.heard_of("once-more")).await?;
        ensure!(reader.notices("reset-all").count() == 1, "{}", reader.tail());
    }
    Ok(())
}

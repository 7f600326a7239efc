//! The database has another history than the one that was streamed: it failed over to a standby that lacked our last
//! commits, or is an old copy of itself. Recognised, told, and corrected: who comes back ends with what there is.

use anyhow::{Context as _, Result, ensure};
use tests::{
    Case, Client, Context, Cut, Ended, Reader, SOON, Site, Subscribe, Table, cases, put, until, within,
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = cases![
        each a_standby_that_lacked_our_last_commits,
        each a_standby_that_had_all_of_them,
        each a_primary_that_was_rewound,
        each a_data_directory_restored_from_an_old_copy,
        each an_old_copy_that_has_overtaken_the_journal,
        each an_old_copy_without_its_slot_that_has_overtaken_the_journal,
        each an_old_copy_whose_journal_was_moved_away,
        each an_old_copy_without_its_slot_whose_journal_was_moved_away,
        once an_id_ahead_of_database_and_journal,
    ];
    for case in &mut cases {
        // Some folders of server programs have no others.
        case.skip = || {
            let all = tests::Postgres::all().ok()?;
            let lacks = |program| all.iter().any(|postgres| !postgres.bin().join(program).is_file());
            ["pg_basebackup", "pg_rewind"]
                .into_iter()
                .find(|program| lacks(*program))
                .map(|lacks| format!("there is no {lacks}"))
        };
    }
    cases
}

/// A site with a live reader that has heard `kept`, before the copy was taken, and `lost`, after it.
struct Forked {
    site: Site,
    reader: Reader,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// With its slots, as a snapshot of the disk has it.
    Cold,
    /// Without them.
    BaseBackup,
}

async fn forked(context: &Context, taken: Taken) -> Result<Forked> {
    // For pg_rewind.
    let mut site = Site::prepare(context, &["wal_log_hints = on"], &[]).await?;
    site.server.start().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    for id in ["kept", "changed"] {
        site.put("Patient", id).await?;
    }
    reader.hear("what is kept", SOON, |reader| reader.heard_of("changed")).await?;
    match taken {
        Taken::BaseBackup => site.cluster.base_backup("copy")?,
        Taken::Cold => {
            // So that the copy's slot stands where ours does.
            site.server.terminate(SOON).await?;
            site.cluster.copy("copy").await?;
            site.sql = site.cluster.connect().await?;
            site.server.start().await?;
            reader.connect(site.server.listening()?).await?;
        }
    }
    for id in ["changed", "lost", "lost-too"] {
        site.put("Patient", id).await?;
    }
    reader.hear("what is lost", SOON, |reader| reader.heard_of("lost-too")).await?;
    // The reader has it a moment before the journal's disk does.
    let (head, durable) = ("fhir_tail_head_lsn", "fhir_tail_durable_lsn");
    until("the journal to have it too", SOON, || async {
        Ok((site.metric(durable).await? > site.metric(head).await?).then_some(()))
    })
    .await?;
    Ok(Forked { site, reader })
}

/// It is told, gets all there is, and drops the rest.
pub(crate) async fn is_corrected(site: &Site, reader: &mut Reader) -> Result<()> {
    site.put("Patient", "end").await?;
    let before = reader.heard.len();
    let address = site.server.address();
    let again = |reader: &Reader| {
        let since = &reader.heard[before..];
        since.iter().any(|heard| heard.what.code() == Some("live"))
            && since.iter().any(|heard| heard.what.key().is_some_and(|key| key.id == "end"))
    };
    reader.hear_on(|| address.now(), "all of it again", SOON, again).await?;
    let since: Vec<_> = reader.heard[before..].iter().map(|heard| &heard.what).collect();
    let told = since.iter().filter(|what| what.code() == Some("reset-all")).count();
    ensure!(told == 1, "reset-all was said {told} times: {since:#?}");
    let table = Table::read(&site.sql).await?;
    ensure!(!table.resources.keys().any(|key| key.id == "lost"), "{table:?}");
    for key in table.resources.keys() {
        ensure!(since.iter().any(|what| what.key() == Some(key)), "{key:?} did not come again: {since:#?}");
    }
    let gone = since.iter().filter_map(|what| what.key()).find(|key| !table.resources.contains_key(*key));
    ensure!(gone.is_none(), "{gone:?} came and does not exist");
    Ok(())
}

async fn a_standby_that_lacked_our_last_commits(context: Context) -> Result<()> {
    let Forked { mut site, mut reader } = forked(&context, Taken::BaseBackup).await?;
    site.cluster.fail_over_to("copy").await?;
    site.sql = site.cluster.connect().await?;
    is_corrected(&site, &mut reader).await
}

/// The service sees nothing of the server that was primary meanwhile: the one that it knows is there again, with its
/// address, on another history.
async fn a_primary_that_was_rewound(context: Context) -> Result<()> {
    let Forked { mut site, mut reader } = forked(&context, Taken::BaseBackup).await?;
    site.server.freeze()?;
    site.cluster.crash_and_fail_over_to("copy", "rewound").await?;
    site.sql = site.cluster.connect().await?;
    for id in ["changed", "meanwhile"] {
        site.put("Patient", id).await?;
    }
    site.cluster.fail_back_to("rewound").await?;
    site.sql = site.cluster.connect().await?;
    site.server.thaw()?;
    is_corrected(&site, &mut reader).await
}

/// Its history goes on from ours: nothing that was sent is gone, and its slot is a new one.
async fn a_standby_that_had_all_of_them(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    for id in ["first", "gone"] {
        site.put("Patient", id).await?;
    }
    reader.hear("the second", SOON, |reader| reader.heard_of("gone")).await?;
    site.settle().await?;
    site.server.terminate(SOON).await?;
    reader.cut();
    site.cluster.copy("copy").await?;
    site.cluster.fail_over_to("copy").await?;
    site.sql = site.cluster.connect().await?;
    site.delete("Patient", "gone").await?;
    site.server.start().await?;
    site.put("Patient", "end").await?;
    let address = site.server.address();
    reader
        .hear_on(
            || address.now(),
            "live again",
            SOON,
            |reader| {
                reader.notices("live").count() == 2
                    && reader.heard_of("end")
                    && reader.about("gone").count() == 2
            },
        )
        .await?;
    ensure!(reader.noticed("reset") && !reader.noticed("reset-all"), "{}", reader.tail());
    Ok(())
}

async fn a_data_directory_restored_from_an_old_copy(context: Context) -> Result<()> {
    let Forked { mut site, mut reader } = forked(&context, Taken::Cold).await?;
    // The service goes on meanwhile.
    site.cluster.become_copy("copy").await?;
    site.cluster.start_again().await?;
    site.sql = site.cluster.connect().await?;
    is_corrected(&site, &mut reader).await
}

/// What becomes of the journal when the database is restored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Journal {
    Kept,
    MovedAway,
}

/// While we are away more is written to the copy than was ever read from the original.
async fn overtaken(context: &Context, taken: Taken, journal: Journal) -> Result<()> {
    let Forked { mut site, mut reader } = forked(context, taken).await?;
    site.server.kill().await?;
    reader.cut();
    if journal == Journal::MovedAway {
        let data = context.directory().join("data");
        std::fs::rename(data.join("journal"), context.directory().join("journal-of-before"))?;
    }
    let reached = "select pg_current_wal_insert_lsn()::text";
    let reached: String = site.sql.query_one(reached, &[]).await?.try_get(0)?;
    site.cluster.become_copy("copy").await?;
    site.cluster.start_again().await?;
    site.sql = site.cluster.connect().await?;
    put(&site.sql, "Patient", "new", 1).await?;
    site.sql.batch_execute("create table noise (x text)").await?;
    loop {
        let passed = "select pg_current_wal_flush_lsn() > ($1::text)::pg_lsn";
        if site.sql.query_one(passed, &[&reached]).await?.try_get(0)? {
            break;
        }
        let noise = "insert into noise select repeat(md5(i::text), 30) from generate_series(1, 1000) i";
        site.sql.batch_execute(noise).await?;
    }
    site.server.start().await?;
    is_corrected(&site, &mut reader).await
}

async fn an_old_copy_that_has_overtaken_the_journal(context: Context) -> Result<()> {
    overtaken(&context, Taken::Cold, Journal::Kept).await
}

async fn an_old_copy_without_its_slot_that_has_overtaken_the_journal(context: Context) -> Result<()> {
    overtaken(&context, Taken::BaseBackup, Journal::Kept).await
}

/// As whoever restores everything has to: nothing but the clients' ids knows of what was lost, and they lie behind.
async fn an_old_copy_whose_journal_was_moved_away(context: Context) -> Result<()> {
    overtaken(&context, Taken::Cold, Journal::MovedAway).await
}

async fn an_old_copy_without_its_slot_whose_journal_was_moved_away(context: Context) -> Result<()> {
    overtaken(&context, Taken::BaseBackup, Journal::MovedAway).await
}

/// Database and journal are restored together: nothing but the clients' ids knows of what was lost. They are not waited
/// for.
async fn an_id_ahead_of_database_and_journal(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.put("Patient", "kept").await?;
    reader.hear("what is kept", SOON, |reader| reader.heard_of("kept")).await?;
    site.server.terminate(SOON).await?;
    let ended = within("the stream's end", SOON, async { Ok(reader.read_on(Cut::Never, |_| false).await) });
    ensure!(matches!(ended.await?, Ended::Lost(_)), "{}", reader.tail());
    site.cluster.copy("copy").await?;
    site.sql = site.cluster.connect().await?;
    let (data, saved) = (context.directory().join("data"), context.directory().join("saved"));
    let copied = std::process::Command::new("cp").arg("-Rp").args([&data, &saved]).status()?;
    ensure!(copied.success(), "the journal was not copied");
    site.server.start().await?;
    reader.connect(site.server.listening()?).await?;
    // Far ahead of all that the copy writes by itself.
    for number in 0..50 {
        site.put("Patient", &format!("lost-{number}")).await?;
    }
    reader.hear("what is lost", SOON, |reader| reader.heard_of("lost-49")).await?;
    site.server.kill().await?;
    reader.cut();
    site.cluster.become_copy("copy").await?;
    site.cluster.start_again().await?;
    site.sql = site.cluster.connect().await?;
    std::fs::remove_dir_all(&data)?;
    std::fs::rename(&saved, &data).context("the journal's copy")?;
    site.server.start().await?;
    let before = reader.heard.len();
    reader.connect(site.server.listening()?).await?;
    let live_again =
        |reader: &Reader| reader.heard[before..].iter().any(|heard| heard.what.code() == Some("live"));
    reader.hear("live again", SOON, live_again).await?;
    ensure!(reader.notices("reset-all").count() == 1, "{}", reader.tail());
    let ids = reader.heard[before..].iter().filter_map(|heard| Some(heard.what.key()?.id.as_str()));
    let ids: Vec<_> = ids.collect();
    ensure!(ids == ["kept"], "{ids:?}");
    Ok(())
}

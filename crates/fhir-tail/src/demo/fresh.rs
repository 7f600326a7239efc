//! `--fresh`: removes what the last demo left, and nothing else.

use crate::data_dir::DataDir;
use anyhow::Context as _;
use embedded::{Embedded, Search};
use std::io::ErrorKind;
use std::path::Path;

/// What holds data. The address and password of Postgres stay, so that URLs that people saved keep working.
const DATA: [&str; 2] = ["journal", "postgres"];

/// Removes cluster and journal. The directory is locked, so no other fhir-tail uses them.
pub(crate) async fn remove_data(data_dir: &DataDir, search: &Search) -> anyhow::Result<()> {
    if embedded::running(data_dir.path()).await?.is_some() {
        // One that a killed run left behind: a start stops it, and it is then shut down in order.
        Embedded::start(data_dir.path(), search).await?.stop().await?;
    }
    for name in DATA {
        remove(data_dir.path(), name)
            .with_context(|| format!("cannot remove {}", data_dir.path().join(name).display()))?;
    }
    Ok(())
}

/// Renames it first: half a cluster must never be taken for a whole one.
fn remove(directory: &Path, name: &str) -> std::io::Result<()> {
    let discarded = directory.join(format!("{name}.discarded"));
    let there = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    };
    // Of a run that was interrupted here. A link is removed, not what it leads to.
    there(std::fs::remove_dir_all(&discarded))?;
    there(std::fs::rename(directory.join(name), &discarded))?;
    there(std::fs::remove_dir_all(&discarded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_its_own_is_taken_away() {
        let home = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(&home.path().join("demo")).unwrap();
        let path = data_dir.path();
        std::fs::create_dir_all(path.join("postgres/data/base")).unwrap();
        std::fs::create_dir_all(path.join("postgres.discarded/data")).unwrap();
        std::fs::create_dir_all(path.join("journal")).unwrap();
        for kept in ["embedded.toml", "mine.txt"] {
            std::fs::write(path.join(kept), "x").unwrap();
        }
        remove_data(&data_dir, &Search::default()).await.unwrap();
        let mut left: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["embedded.toml", "lock", "mine.txt"]);
        remove_data(&data_dir, &Search::default()).await.unwrap();
    }

    #[test]
    fn a_link_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = home.path().join("elsewhere");
        std::fs::create_dir_all(elsewhere.join("precious")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, home.path().join("postgres")).unwrap();
        let _ = remove(home.path(), "postgres");
        assert!(elsewhere.join("precious").is_dir());
        assert!(!home.path().join("postgres").exists());
    }
}

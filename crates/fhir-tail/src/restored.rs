//! `fhir-tail restored`: an operator's word that the database was restored, for the service's next start.

use crate::data_dir::DataDir;
use crate::output::say;
use crate::settings::Settings;
use anyhow::bail;
use feed::Noted;
use nix::unistd::Uid;
use std::os::unix::fs::MetadataExt as _;

/// Notes it in the journal, whose service must not run.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let directory = &settings.data_dir;
    // A directory that was mistyped must not look as if all were well, nor be made.
    if !directory.is_dir() {
        bail!("there is no data directory {}: give the service's own --data-dir", directory.display());
    }
    let owner = std::fs::metadata(directory)?.uid();
    if owner != Uid::effective().as_raw() {
        // Files that this makes would be ours, and the service could not open its journal.
        bail!("{} belongs to the user with id {owner}: run this as that user", directory.display());
    }
    let data_dir = match DataDir::try_open(directory)? {
        Ok(data_dir) => data_dir,
        Err(in_use) => bail!("{in_use}: stop the service first, and start it afterwards"),
    };
    match feed::note_restored(&data_dir.path().join("journal"))? {
        Noted::Now => say(format_args!(
            "noted in {}: the service begins a new epoch at its next start, and answers each event id given out so far \
             with reset-all",
            directory.display()
        )),
        Noted::Before => say(format_args!(
            "nothing to do: it is noted in {} already, and the service has not begun a new epoch since",
            directory.display()
        )),
        Noted::NoJournal => bail!(
            "there is no journal in {}: if this is the service's data directory there is nothing to do, as a service \
             without a journal answers each event id with reset-all",
            directory.display()
        ),
    }
    Ok(())
}

//! Where lines go: standard output, numbered files, or a file per type.
//!
//! All are written at once, made durable by [`Output::sync`], and brought back by [`Output::open`] to what the
//! state file says was written.

mod appended;
mod by_type;
mod sequence;

use super::batch::Part;
use super::state::{Run, Written};
use super::{Destination, compact};
use crate::error::{Context as _, Result, bail};
use by_type::ByType;
pub(super) use by_type::{extension_of, partial};
use sequence::Sequence;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

/// Where lines go.
pub(super) enum Output {
    Stdout(File),
    Sequence(Sequence),
    ByType(ByType),
}

impl Output {
    /// Opens it as it was when `written` was saved. `None`: for the first time; then it must be empty.
    pub(super) fn open(destination: &Destination, written: Option<Written>) -> Result<Self> {
        match (destination, written) {
            (Destination::Stdout, None | Some(Written::Stdout)) => {
                // Unbuffered: what is written is on its way.
                let stdout = std::io::stdout().as_fd().try_clone_to_owned().context("no standard output")?;
                Ok(Self::Stdout(File::from(stdout)))
            }
            (Destination::Sequence { directory, rotate_bytes }, None) => {
                must_be_empty(directory)?;
                Ok(Self::Sequence(Sequence::new(directory, *rotate_bytes)))
            }
            (Destination::Sequence { directory, rotate_bytes }, Some(Written::Sequence { file, bytes })) => {
                Sequence::recover(directory, *rotate_bytes, file, bytes).map(Self::Sequence)
            }
            (Destination::Download { directory }, None) => {
                must_be_empty(directory)?;
                ByType::new(directory).map(Self::ByType)
            }
            (Destination::Download { directory }, Some(Written::Download { run, bytes, .. })) => {
                ByType::recover(directory, run, &bytes).map(Self::ByType)
            }
            (_, Some(written)) => bail!(
                "the state file is that of {}: name another --state, or follow as it was started",
                match written {
                    Written::Stdout => "what went to standard output",
                    Written::Sequence { .. } => "files that follow without end (no --until-live)",
                    Written::Download { .. } => "a download (--until-live)",
                }
            ),
        }
    }

    /// Writes lines.
    pub(super) fn append(&mut self, parts: &[Part]) -> Result<()> {
        match self {
            Self::Stdout(stdout) => parts
                .iter()
                .try_for_each(|part| stdout.write_all(&part.lines))
                .context("cannot write to standard output"),
            Self::Sequence(sequence) => parts.iter().try_for_each(|part| sequence.append(&part.lines)),
            Self::ByType(types) => parts.iter().try_for_each(|part| types.append(&part.name, &part.lines)),
        }
    }

    /// Returns when all that was written is on disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        match self {
            Self::Stdout(stdout) => match stdout.sync_data() {
                // A pipe or a terminal has no disk.
                Err(error) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                    Err(error).context("cannot write to standard output")
                }
                _ => Ok(()),
            },
            Self::Sequence(sequence) => sequence.sync(),
            Self::ByType(types) => types.sync(),
        }
    }

    /// What the state file is to say.
    pub(super) fn written(&self) -> Written {
        match self {
            Self::Stdout(_) => Written::Stdout,
            Self::Sequence(sequence) => sequence.written(),
            Self::ByType(types) => types.written(),
        }
    }

    /// The number of a download's run, after the first one.
    pub(super) fn later_run(&self) -> Option<u64> {
        match self {
            Self::ByType(types) if types.run() != Run::FIRST => Some(types.run().number),
            _ => None,
        }
    }

    /// From now on nothing counts as written. What there is stays until [`discard`](Self::discard): the state
    /// file must not speak of what is gone.
    pub(super) fn forget(&mut self) {
        if let Self::ByType(types) = self {
            types.forget();
        }
    }

    /// Removes what was forgotten.
    pub(super) fn discard(&mut self) -> Result<()> {
        match self {
            Self::ByType(types) => types.discard(),
            Self::Stdout(_) | Self::Sequence(_) => Ok(()),
        }
    }
}

/// Without a state file nobody knows what other files are.
fn must_be_empty(directory: &Path) -> Result<()> {
    for entry in
        std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if extension_of(&path) == Some("ndjson") || compact::is_folder(name) {
            bail!(
                "{} is there, and no state file tells how it came: empty the folder, or name another --output",
                path.display()
            );
        }
    }
    Ok(())
}

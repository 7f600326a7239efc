//! A small disk of a test's own, which can be full: a `tmpfs`. Only root may mount one.

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

const MEGABYTES: i64 = 192;
const PIECE: i64 = 64 << 10;

/// A mounted disk, unmounted when this is dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one at a folder, which is made; `None` if we may not.
    pub fn mount(at: &Path) -> Result<Option<Self>> {
        std::fs::create_dir(at)?;
        let size = format!("size={MEGABYTES}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(at).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        Ok(mounted.then(|| Self(at.to_owned())))
    }

    /// Fills it to the last block.
    pub fn fill(&self) -> Result<()> {
        let file = File::create(self.filler())?;
        let mut end = 0;
        let mut piece = MEGABYTES << 20;
        while piece >= PIECE {
            match fallocate(&file, FallocateFlags::empty(), end, piece) {
                Ok(()) => end += piece,
                Err(nix::errno::Errno::ENOSPC) => piece /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        ensure!(end > 0, "the disk at {} was full before", self.0.display());
        Ok(())
    }

    /// Gives the space back.
    pub fn free(&self) -> Result<()> {
        std::fs::remove_file(self.filler()).context("cannot free the disk")
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has files open there keeps them. A failure leaves a mount behind, no more.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

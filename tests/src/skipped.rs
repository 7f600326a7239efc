//! What a run leaves out because something cannot be had here: said at once, and again at the end of `make test`, which gives a
//! file for it. In CI nothing is left out.

use anyhow::{Context, Result, ensure};
use std::fs::OpenOptions;
use std::io::Write;

/// Names the file.
const FILE: &str = "FHIR_TAIL_TEST_SKIPPED";

/// Notes that something is left out; an error in CI.
#[allow(clippy::print_stderr, reason = "whoever reads the log must not think that this was tested")]
pub fn skip(what: &str) -> Result<()> {
    ensure!(std::env::var("CI").as_deref() != Ok("true"), "in CI nothing is left out: {what}");
    eprintln!("SKIPPED: {what}");
    if let Some(path) = std::env::var_os(FILE) {
        let mut file = OpenOptions::new().append(true).create(true).open(&path).context(FILE)?;
        // In one write, as others write too.
        file.write_all(format!("{what}\n").as_bytes()).context(FILE)?;
    }
    Ok(())
}

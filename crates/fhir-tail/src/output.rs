//! What the command says on standard output: plain lines, made to be read by programs too.

use std::fmt;
use std::io::Write as _;

/// Writes a line at once. Whoever reads it may have gone away: then nobody misses it.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub(crate) fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

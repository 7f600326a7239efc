//! What the person who measures sees.

/// A line of what goes on.
#[allow(clippy::print_stderr, reason = "this is the program that somebody looks at")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// A line of what came of it.
#[allow(clippy::print_stdout, reason = "as above, and so that it can be piped")]
pub(crate) fn show(line: &str) {
    println!("{line}");
}

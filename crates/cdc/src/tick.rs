//! Ticks: the messages of our own that we write into the log, so that time passes there.

use pg::pgoutput::Emitted;

/// The prefix of our own messages.
pub(crate) const PREFIX: &str = "fhir-tail";

/// Writes a tick: a message that comes with the log. What time it is says the commit.
pub(crate) fn statement() -> String {
    format!("begin read write; select pg_catalog.pg_logical_emit_message(true, '{PREFIX}', 'tick'); commit")
}

/// Whether it is a tick: part of a transaction, so that it comes with it.
pub(crate) fn is_tick(message: &Emitted<'_>) -> bool {
    message.flags & 1 == 1 && message.prefix == PREFIX
}

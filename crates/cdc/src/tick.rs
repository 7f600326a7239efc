//! Ticks: the messages of our own that we write into the log, so that time passes there.

use pg::pgoutput::Emitted;

/// The prefix of our own messages.
pub(crate) const PREFIX: &str = "fhir-tail";

/// Whether it is a tick: part of a transaction, so that it comes with it.
pub(crate) fn is_tick(message: &Emitted<'_>) -> bool {
    message.flags & 1 == 1 && message.prefix == PREFIX
}

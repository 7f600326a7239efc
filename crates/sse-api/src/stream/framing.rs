//! The bytes of Server-Sent Events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//!
//! Every frame has `id`, `event` and `data`, in this order: some clients ignore an id without data,
//! others turn it into an empty message.

use bytes::Bytes;
use feed::Framing;
use fhir::ResourceType;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The reconnect delay, random for each connection: after a restart clients must not reconnect all at
/// once.
pub(crate) const RETRY_MILLIS: RangeInclusive<u64> = 1_000..=4_000;

/// A comment line. An empty line after it would end a frame, which some clients turn into an empty message.
pub(crate) const HEARTBEAT: Bytes = Bytes::from_static(b": still here\n");

/// The feed's framing for Server-Sent Events.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventStream;

impl Framing for EventStream {
    fn begin(&self, id: &str, event: ResourceType, out: &mut Vec<u8>) {
        write_beginning(id.as_bytes(), event, out);
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(END);
    }
}

/// A random reconnect delay.
pub(crate) fn random_retry_delay() -> Duration {
    Duration::from_millis(fastrand::u64(RETRY_MILLIS))
}

/// A frame with an OperationOutcome, and optionally the reconnect delay.
pub(crate) fn outcome_frame(retry: Option<Duration>, id: &[u8], outcome: &str) -> Bytes {
    let mut out = Vec::with_capacity(outcome.len() + id.len() + 64);
    if let Some(retry) = retry {
        out.extend_from_slice(format!("retry: {}\n", retry.as_millis()).as_bytes());
    }
    write_beginning(id, ResourceType::OPERATION_OUTCOME, &mut out);
    out.extend_from_slice(outcome.as_bytes());
    out.extend_from_slice(END);
    out.into()
}

/// The end of a frame, after its data.
const END: &[u8] = b"\n\n";

/// The beginning of a frame, before its data. Neither contains a line break: ids are base64url or a
/// header's bytes, and data is one line of JSON.
fn write_beginning(id: &[u8], event: ResourceType, out: &mut Vec<u8>) {
    for part in [&b"id: "[..], id, b"\nevent: ", event.as_str().as_bytes(), b"\ndata: "] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_has_id_event_and_data() {
        let mut out = Vec::new();
        EventStream.frame("abc", ResourceType::PATIENT, br#"{"a":1}"#, &mut out);
        EventStream.frame("abd", ResourceType::BUNDLE, b"{}", &mut out);
        assert_eq!(
            &out[..],
            b"id: abc\nevent: Patient\ndata: {\"a\":1}\n\nid: abd\nevent: Bundle\ndata: {}\n\n"
        );
    }

    #[test]
    fn notice_may_set_the_reconnect_delay() {
        assert_eq!(
            outcome_frame(Some(Duration::from_millis(2719)), b"x", "{}"),
            "retry: 2719\nid: x\nevent: OperationOutcome\ndata: {}\n\n"
        );
        assert_eq!(outcome_frame(None, b"x", "{}"), "id: x\nevent: OperationOutcome\ndata: {}\n\n");
    }

    #[test]
    fn reconnect_delays_are_random_between_one_and_four_seconds() {
        let drawn: std::collections::BTreeSet<_> =
            (0..200).map(|_| random_retry_delay().as_millis()).collect();
        assert!(drawn.iter().all(|millis| (1_000..=4_000).contains(millis)));
        assert!(drawn.len() > 1);
    }

    #[test]
    fn heartbeat_does_not_end_a_frame() {
        assert!(HEARTBEAT.starts_with(b":") && HEARTBEAT.ends_with(b"\n"));
        assert_eq!(HEARTBEAT.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}

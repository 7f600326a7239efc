//! How a change becomes the bytes that clients get. Implemented by `sse-api`, so that the hub can frame
//! a change once for everyone without knowing the format.

use bytes::BytesMut;
use fhir::ResourceType;

/// A format of frames.
pub trait Framing: Send + Sync + 'static {
    /// Appends one frame. `id` is an event id in its text form, `event` the resource type of what
    /// `data` holds, `data` one line of JSON.
    fn frame(&self, id: &str, event: ResourceType, data: &[u8], out: &mut BytesMut);
}

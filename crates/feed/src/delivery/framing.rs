//! How a change becomes the bytes that clients get. Implemented by `sse-api`, so that the hub can frame
//! a change once for everyone without knowing the format.

use fhir::ResourceType;

/// A format of frames.
pub trait Framing: Send + Sync + 'static {
    /// Appends what comes before the data of a frame: one line of JSON, to be appended next. `id` is an event id in its
    /// text form, `event` the resource type of what the data holds.
    fn begin(&self, id: &str, event: ResourceType, out: &mut Vec<u8>);

    /// Appends what comes after the data.
    fn end(&self, out: &mut Vec<u8>);

    /// Appends one frame.
    fn frame(&self, id: &str, event: ResourceType, data: &[u8], out: &mut Vec<u8>) {
        self.begin(id, event, out);
        out.extend_from_slice(data);
        self.end(out);
    }
}

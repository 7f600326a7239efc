//! Between the readers and a connection: frames, the memory that they are held in, and who gets it.

pub(crate) mod budget;
pub(crate) mod count_guard;
pub(crate) mod frame_queue;
pub(crate) mod framing;
pub(crate) mod large_frame;
pub(crate) mod pressure;
pub(crate) mod read_size;
pub(crate) mod subscription;

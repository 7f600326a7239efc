//! What limits count by, and how often the log says that one is reached.

mod address;
mod log_limit;

pub(crate) use address::limit_key;
pub(crate) use log_limit::LogLimit;

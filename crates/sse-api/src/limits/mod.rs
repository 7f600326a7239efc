//! The key that limits count by, and the rate of log lines that clients can cause.

mod address;
mod log_limit;

pub(crate) use address::limit_key;
pub(crate) use log_limit::LogLimit;

//! Reading a request: its host, path and headers.

pub(crate) mod browser_policy;
pub(crate) mod cors;
pub(crate) mod endpoint;
pub(crate) mod host_guard;
pub(crate) mod hosts;
pub(crate) mod negotiate;
pub(crate) mod resume;

//! What a request says: which name of ours it used, what its path names, what its headers ask for.

pub(crate) mod browser_policy;
pub(crate) mod cors;
pub(crate) mod endpoint;
pub(crate) mod host_guard;
pub(crate) mod hosts;
pub(crate) mod negotiate;
pub(crate) mod resume;

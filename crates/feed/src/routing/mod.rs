//! Between a request and the hub: which changes a filter selects, and which channels a change concerns.

pub(crate) mod change_filter;
mod patient_index;
pub(crate) mod routes;

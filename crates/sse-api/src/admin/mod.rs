//! What operators and tools read: health, metrics, the CapabilityStatement and the list of URLs.

pub(crate) mod capability;
pub(crate) mod health;
pub(crate) mod scrape;
pub(crate) mod url_list;

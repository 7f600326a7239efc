//! Sample data: a made-up population, and a clinic that goes on treating it.
//!
//! [`Population`] writes people, their records, and their gaps in care as Da Vinci DEQM has them, the same bytes for
//! the same seed and day. [`Clinic`] decides what happens next, step by step; whoever owns it writes each step to the
//! database. Both judge a patient's evidence by the same rules, those of [`measure`], and write with the same charts,
//! so that gaps and reports agree however they came about. No I/O here.
//!
//! All of it is marked as test data (`meta.security` has `HTEST`), so that nobody takes it for somebody's.

#![allow(clippy::cast_precision_loss, reason = "ages, counts and readings are small numbers")]

mod body;
mod chart;
pub mod clinic;
mod codes;
mod dates;
mod gap;
mod history;
pub mod measure;
mod names;
mod person;
mod population;
mod random;
mod resources;
mod staff;
mod subject;

pub use clinic::Clinic;
pub use population::{COMPLETE, Population};

/// A resource, as it is to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// Such as `Patient`.
    pub resource_type: &'static str,
    /// Its id.
    pub id: String,
    /// Its JSON, in one line.
    pub content: String,
}

impl Resource {
    /// `Patient/17`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}/{}", self.resource_type, self.id)
    }
}

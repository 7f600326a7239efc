//! Streams of a Group's members, who may change while one listens: see `docs/membership.md`, whose rules have numbers.

mod as_of;
mod in_flight;
mod itself;
mod members;
mod now;
mod patient_set;
mod recent;
mod shared_transition;
mod stop;
mod stream;
mod transition;

pub(crate) use as_of::AsOf;
pub(crate) use members::{MemberSets, Members, NoMembers};
pub use now::GroupNow;
pub(crate) use now::{GroupReads, keep_time};
pub(crate) use patient_set::PatientSet;
pub(crate) use shared_transition::SharedTransitions;
pub(crate) use stream::GroupStream;

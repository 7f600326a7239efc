//! Streams of a Group's members, who may change while one listens: see `docs/membership.md`, whose rules have numbers.

mod as_of;
mod members;
mod now;
mod recent;
mod stream;
mod transition;

pub(crate) use as_of::{AsOf, NoMembers};
pub(crate) use members::{MemberSets, Members, PatientSet};
pub use now::GroupNow;
pub(crate) use now::{group_now, keep_time};
pub(crate) use stream::GroupStream;

//! What a demonstration needs: sample data, and a simulated clinic that writes it into a database.
//!
//! What happens at the clinic is decided by [`sample::Clinic`], without I/O; here it is read from a database and written to
//! it. Read [`work`] first.

mod clinic;
mod database;
mod population;
mod sample_data;

pub use clinic::{Options, work};
pub use population::populate;
pub use sample_data::{today, write};

//! What the end-to-end tests are made of: a real Postgres ([`Cluster`]), a real server process ([`Server`]),
//! subscribers ([`Reader`], and [`http`] for the bytes on the wire), [`Writers`], the truth about what was committed
//! ([`History`]), and the judge who compares what a subscriber heard with it ([`check`]).
//!
//! The tests themselves are in `tests/tests`, one program. Nothing here links the crates under test: they are
//! met through the command line and the network only.

mod browser;
pub mod check;
mod cluster;
mod history;
pub mod http;
mod meaning;
mod postgres;
mod process;
mod reader;
mod run;
mod server;
mod site;
pub mod sse;
mod wait;
mod writers;

pub use browser::Browser;
pub use cluster::Cluster;
pub use history::{Entry, History, Table};
pub use meaning::{Heard, Key, What, micros};
pub use postgres::Postgres;
pub use reader::{Client, Cut, Ended, Reader, Subscribe};
pub use run::{Case, Context, main};
pub use server::{Address, Binary, Server};
pub use site::{SOON, Site, put};
pub use wait::{until, within};
pub use writers::{Load, TYPES, Writers};

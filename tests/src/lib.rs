//! What the end-to-end tests are made of: a real Postgres ([`Cluster`]), a real server process ([`Server`]),
//! subscribers ([`Reader`], and [`http`] for the bytes on the wire), what goes wrong ([`Proxy`], [`Clock`], [`Disk`]), [`Writers`], the truth about what was committed
//! ([`History`]), and the judge who compares what a subscriber heard with it ([`check`]). What documents show is read by
//! [`markdown`].
//!
//! The tests themselves are in `tests/tests`, one program. Nothing here links the crates under test: they are
//! met through the command line and the network only.

mod browser;
pub mod check;
mod clock;
mod cluster;
mod disk;
mod font;
mod history;
pub mod http;
pub mod markdown;
mod meaning;
mod nginx;
mod pgbouncer;
mod placeholders;
mod postgres;
mod process;
mod proxy;
mod reader;
mod run;
mod running;
mod server;
mod site;
mod skipped;
pub mod sse;
pub mod tail;
mod takers;
mod wait;
mod writers;

pub use browser::{Browser, ENTER, Engine, OpenPage, TAB};
pub use clock::Clock;
pub use cluster::Cluster;
pub use disk::Disk;
pub use font::font;
pub use history::{Entry, History, Table};
pub use meaning::{Heard, Key, What, micros};
pub use nginx::Nginx;
pub use pgbouncer::Pgbouncer;
pub use placeholders::Placeholders;
pub use postgres::{Postgres, create_owned};
pub use process::Process;
pub use proxy::{Proxy, Target};
pub use reader::{Client, Cut, Ended, Reader, Subscribe};
pub use run::{Case, Context, logs, main, seconds, seed};
pub use running::Running;
pub use server::{Address, Binary, Descriptors, Server};
pub use site::{SOON, Site, metric, put};
pub use skipped::skip;
pub use takers::Takers;
pub use wait::{until, within};
pub use writers::{Load, TYPES, Writers};

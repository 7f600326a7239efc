//! The crate against real servers: each test starts its own, of each version that is there.
//!
//! `FHIR_TAIL_TEST_POSTGRES_BIN` names folders of server binaries, separated by colons; without it they are looked
//! for where Debian puts them. New tests go to the file of what they are about.

// Helpers of tests are tests too, which clippy.toml's allowance does not see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod login;
mod outage;
mod slot;
mod stream;
mod support;

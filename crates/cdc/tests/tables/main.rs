//! The native layout on a real Postgres: what its triggers keep, watermarks, pages, and the log's rows.

// Helpers of tests are tests: they may stop at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attacks;
mod cluster;
mod contention;
mod encodings;
mod following;
mod log;
mod mentions;
mod migration;
mod pages;
mod patient_pages;
mod second_layout;
mod stamps;
mod watermark;

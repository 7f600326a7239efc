//! The native layout on a real Postgres: what its triggers keep, marks, pages, and the log's rows.

mod cluster;
mod contention;
mod following;
mod log;
mod marks;
mod migration;
mod pages;
mod stamps;

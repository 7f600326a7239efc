//! What happens to a subscriber that is slow, quiet, or comes back with an id that cannot be continued.

// A test may stop at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ahead;
mod cutover;
mod fixtures;
mod freshness;
mod group;
mod group_reads;
mod large;
mod purged;
mod resets;
mod restored;
mod scoped;
mod shared;
mod slow;

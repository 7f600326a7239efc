//! What is generated is FHIR, holds together, and is plausible; and stays so while the clinic works.

// Helpers may stop at the first surprise as the tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clinic;
mod population;
mod store;

//! What the harness and the loops have in common: the documents, and the inner loops of the service, ready to be run
//! alone. `cargo bench -p bench` times them; `bench/instructions` counts their instructions.

pub mod documents;
pub mod loops;

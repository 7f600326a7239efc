//! fhir-tail
fn main() {}

//! fhir-tail
mod data_dir;
mod postgres;
mod settings;
fn main() {}

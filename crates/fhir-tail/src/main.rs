//! fhir-tail
mod cli;
mod data_dir;
mod logging;
mod output;
mod postgres;
mod settings;
mod signals;
mod supervisor;
fn main() {}

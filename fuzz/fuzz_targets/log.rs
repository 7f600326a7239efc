//! A log of pgoutput messages, assembled into batches of changes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cdc::fuzzing::log(bytes));

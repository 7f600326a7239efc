//! The bytes that a server sends on a replication connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg::fuzzing::wire(bytes));

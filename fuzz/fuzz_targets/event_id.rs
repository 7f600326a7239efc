//! The id that a client comes back with.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feed::fuzzing::event_id(bytes));

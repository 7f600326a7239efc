//! The event id that a client resumes with.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feed::fuzzing::event_id(bytes));

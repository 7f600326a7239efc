//! One message of pgoutput.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg::fuzzing::pgoutput(bytes));

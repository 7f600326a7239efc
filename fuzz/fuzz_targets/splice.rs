//! A stored resource, into which id and meta are set.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fhir::fuzzing::splice(bytes));

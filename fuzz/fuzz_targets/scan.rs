//! A stored resource, searched for the patients it refers to.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fhir::fuzzing::scan(bytes));

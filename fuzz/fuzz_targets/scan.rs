//! A stored resource, in which the patients are looked for.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fhir::fuzzing::scan(bytes));

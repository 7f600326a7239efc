//! The query of a request, after a byte for its path and its preferences. A body of Parameters, once there is one, belongs here
//! too: it has the same meaning.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((number, query)) = bytes.split_first() else { return };
    let pairs: Vec<_> = form_urlencoded::parse(query).into_owned().collect();
    fhir::fuzzing::query(*number, &pairs);
});

//! Properties of any input: the bodies of the fuzz targets, which also run as property tests. Not part
//! of release builds.

use crate::Handling;
use crate::{compartment, request, resource, scan};

/// A resource as it is stored.
pub fn splice(content: &[u8]) {
    resource::oracle::holds(content);
}

/// A resource as it is stored, of which only the patients are wanted, and any other JSON.
pub fn scan(content: &[u8]) {
    compartment::oracle::holds(content);
    for paths in [&["subject.reference"][..], &["a", "a.b", "b.a"], &["a.a.b", "b"]] {
        scan::oracle::holds(content, paths);
    }
}

/// The parameters of a request, decoded. The number stands for the path and for how strictly they are taken.
pub fn query(number: u8, pairs: &[(String, String)]) {
    let handling = if number & 0x80 == 0 { Handling::Strict } else { Handling::Lenient };
    request::oracle::holds(&request::oracle::level(number), pairs, handling);
}

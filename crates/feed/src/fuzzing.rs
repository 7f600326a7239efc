//! What holds of any input: the body of a fuzz target, which also runs as a property test over generated input. Not
//! part of the crate as it is used.

use crate::EventId;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// An id that a client gives: as text, and once more as the bytes of one whose hash is right, since whoever wants to can
/// compute it.
pub fn event_id(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = text.parse::<EventId>()
    {
        survives(&id);
    }
    let hash = fhir::stable_hash(bytes.iter().copied()).to_be_bytes();
    let text = URL_SAFE_NO_PAD.encode([bytes, &hash].concat());
    if let Ok(id) = text.parse::<EventId>() {
        survives(&id);
    }
}

fn survives(id: &EventId) {
    let text = id.to_string();
    // Ids of others may be longer (a resource's id is not looked at until it is needed), and so are refused.
    assert!(text.len() > 256 || text.parse().as_ref() == Ok(id), "it is not read as it is written");
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_under_a_right_hash_are_read_or_refused(kind in 0x0f_u8..0x15, mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            bytes.insert(0, kind);
            event_id(&bytes);
        }
    }

    /// What the fuzzer begins with, and what it once found.
    #[test]
    fn every_seed_holds() {
        let seeds =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/event_id")).unwrap();
        let count = seeds.map(|seed| event_id(&std::fs::read(seed.unwrap().path()).unwrap())).count();
        assert!(count > 5);
    }
}

//! What holds of any input: the bodies of fuzz targets, which also run as property tests over generated input. Not
//! part of the crate as it is used.

use crate::pgoutput::{Message, encode};
use crate::replication;

/// A message of pgoutput: refused, or decoded into what gives the same bytes again.
pub fn pgoutput(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        assert!(
            encode::encode(&message) == bytes || encode::has_replaced(&message),
            "decoded into something else"
        );
    }
}

/// What a server sends, from the login on: read to its end, or an error; cut anywhere it is the same.
pub fn wire(bytes: &[u8]) {
    replication::fuzzing::cut_anywhere(bytes);
    replication::fuzzing::conversation(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_server_is_understood_or_refused(parts in vec((any::<u8>(), vec(any::<u8>(), 0..40)), 0..8), cut in any::<usize>()) {
            let mut bytes: Vec<u8> = parts
                .iter()
                .flat_map(|(tag, body)| {
                    let tag = b"dWRSKZETNCcD"[usize::from(*tag) % 12];
                    [&[tag][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
                })
                .collect();
            bytes.truncate(bytes.len().saturating_sub(cut % 8));
            wire(&bytes);
        }
    }

    /// What the fuzzer begins with, and what it once found.
    #[test]
    fn every_seed_holds() {
        for (target, holds) in [("pgoutput", pgoutput as fn(&[u8])), ("wire", wire)] {
            let folder = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
            let seeds = std::fs::read_dir(folder).unwrap();
            let count = seeds.map(|seed| holds(&std::fs::read(seed.unwrap().path()).unwrap())).count();
            assert!(count > 3, "{target}");
        }
    }
}

//! What holds of any input: the bodies of fuzz targets, which also run as property tests over generated input. Not
//! part of the crate as it is used.

use crate::batch::Assembler;
use crate::layout::RowContext;
use crate::layout::native::NativeRows;
use feed::Position;
use pg::replication::Event;

/// Messages of pgoutput, each after its length in two bytes, into batches: positions rise within a batch, and a change is one
/// line.
pub fn log(mut bytes: &[u8]) {
    let mut assembler = Assembler::new(Box::new(NativeRows::new(RowContext::default())));
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (message, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        bytes = rest;
        if assembler.push(&Event::Message(message.to_vec().into())).is_err() {
            // As the session does: from the start of what was cut off.
            assembler.restart();
        }
        if !bytes.is_empty() && !assembler.is_full() {
            continue;
        }
        let Some(batch) = assembler.take() else { continue };
        let mut last = Position::ZERO;
        let mut first = true;
        for change in &batch.changes {
            let same_transaction = change.position.commit_lsn == last.commit_lsn;
            assert!(first || !same_transaction || change.position > last, "a position that does not rise");
            assert!(!change.data.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "it is more than a line");
            assert!(std::str::from_utf8(&change.data).is_ok(), "it is no text");
            (last, first) = (change.position, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg::pgoutput::{Column, encode};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A message with its length.
    fn framed(message: &[u8]) -> Vec<u8> {
        [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    /// Messages that make up transactions most of the time.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let begin = any::<[u8; 20]>().prop_map(|rest| [b"B".as_slice(), &rest].concat());
        let commit = any::<[u8; 25]>().prop_map(|rest| [b"C".as_slice(), &rest].concat());
        let columns = (any::<Vec<u8>>(), any::<Vec<u8>>()).prop_map(|(id, content)| {
            let stamp = b"2026-11-22 21:16:00.5+00".as_slice();
            encode::insert(7, &[&b"Basic"[..], &id, b"12", stamp, &content].map(Column::Text))
        });
        let shape = Just({
            let mut bytes = b"R\0\0\0\x07fhir\0resource\0d\0\x05".to_vec();
            for name in ["resource_type", "id", "version_id", "last_updated", "content"] {
                bytes.push(0);
                bytes.extend_from_slice(name.as_bytes());
                bytes.extend_from_slice(&[0, 0, 0, 0, 25, 255, 255, 255, 255]);
            }
            bytes
        });
        prop_oneof![begin, commit, columns, shape, vec(any::<u8>(), 0..60)]
    }

    proptest! {
        #[test]
        fn any_log_is_followed_or_refused(messages in vec(message(), 0..12)) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
            log(&bytes);
        }
    }

    /// What the fuzzer begins with, and what it once found.
    #[test]
    fn every_seed_holds() {
        let folder = format!("{}/../../fuzz/corpus/log", env!("CARGO_MANIFEST_DIR"));
        let seeds = std::fs::read_dir(folder).unwrap();
        let count = seeds.map(|seed| log(&std::fs::read(seed.unwrap().path()).unwrap())).count();
        assert!(count > 3, "{count} seeds");
    }
}

//! What is written is read, what is damaged is recognised.

use super::*;
use proptest::prelude::*;

fn position() -> impl Strategy<Value = Position> {
    any::<(u64, u64, u16)>().prop_map(|(lsn, ordinal, part)| Position {
        commit_lsn: Lsn::new(lsn),
        ordinal,
        part,
    })
}

fn anchor() -> impl Strategy<Value = Anchor> {
    (position(), any::<u32>()).prop_map(|(position, transaction)| Anchor { position, transaction })
}

fn instant() -> impl Strategy<Value = Instant> {
    any::<i64>().prop_map(Instant::from_unix_micros)
}

fn watermark() -> impl Strategy<Value = Watermark> {
    (instant(), any::<u64>())
        .prop_map(|(safe_time, fence_lsn)| Watermark { safe_time, fence_lsn: Lsn::new(fence_lsn) })
}

fn place() -> impl Strategy<Value = Place> {
    let replay = (
        any::<(u64, Option<i64>, u32, bool)>(),
        watermark(),
        0..fhir::RESOURCE_TYPES,
        instant(),
        "[A-Za-z0-9.-]{1,64}",
    )
        .prop_map(|((run, since, filter, deletion), watermark, index, stamp, id)| {
            let kind = if deletion { Kind::Deletion } else { Kind::Upsert };
            let resource_type = ResourceType::from_index(index).unwrap();
            let since = since.filter(|since| *since != i64::MIN).map(Instant::from_unix_micros);
            let cursor = Cursor { kind, resource_type, stamp, id: id.into() };
            Replaying { run, since, watermark, filter, group: None, cursor }
        });
    let group = (any::<Option<()>>(), anchor(), anchor(), any::<(bool, u32)>()).prop_map(
        |(begun, from, to, (leaving, batch))| GroupPages { from: begun.map(|()| from), to, leaving, batch },
    );
    let replay = (replay, prop::option::of(group))
        .prop_map(|(row, group)| Replaying { group: group.map(Box::new), ..row })
        .boxed();
    let position = anchor().prop_map(|anchor| anchor.position);
    let recent = (replay.clone(), position).prop_map(|(row, at)| {
        // It holds a place of the feed and no row's.
        let cursor = Cursor { id: "".into(), ..row.cursor };
        Place::Recent { pages: Box::new(Replaying { cursor, ..row }), at }
    });
    let fading = prop::option::of((anchor(), any::<u64>().prop_map(Lsn::new)));
    let changing = (any::<(u64, u32)>(), anchor(), anchor(), fading, instant()).prop_map(
        |((run, scope), anchor, from, fading, safe_time)| {
            let change = Box::new(MembersChange { from, fading });
            Place::Changing { run, scope, anchor, change, safe_time }
        },
    );
    prop_oneof![
        Just(Place::Beginning),
        any::<u32>().prop_map(|filter| Place::Anew { filter }),
        (any::<(u64, Option<u32>)>(), anchor(), instant())
            .prop_map(|((run, scope), anchor, safe_time)| Place::Live { run, scope, anchor, safe_time }),
        (any::<(u64, Option<u32>)>(), anchor(), watermark(), instant()).prop_map(
            |((run, scope), anchor, watermark, safe_time)| Place::Cutover {
                run,
                scope,
                anchor,
                watermark,
                safe_time
            }
        ),
        (any::<u64>(), any::<Option<i64>>()).prop_map(|(epoch, since)| {
            let since = since.filter(|since| *since != i64::MIN).map(Instant::from_unix_micros);
            Place::Old { epoch, since }
        }),
        replay.prop_map(Place::Replay),
        recent,
        changing,
    ]
}

proptest! {
    #[test]
    fn the_text_gives_back_the_place(place in place()) {
        let id = EventId(place);
        let text = id.to_string();
        prop_assert_eq!(&text.parse::<EventId>().unwrap(), &id);
        let limit = match id.0 {
            Place::Live { scope: None, .. } => 64,
            Place::Live { .. } => 72,
            _ => 256,
        };
        prop_assert!(text.len() < limit);
    }

    #[test]
    fn ids_of_rows_have_the_text_of_any_other(
        place in place(),
        rows in prop::collection::vec((instant(), "[A-Za-z0-9.-]{1,64}"), 1..5)
    ) {
        let Place::Replay(mut place) = place else { return Ok(()) };
        let mut ids = RowIds::new(&place);
        for (stamp, id) in rows {
            place.cursor = Cursor { stamp, id: id.as_str().into(), ..place.cursor };
            prop_assert_eq!(ids.text(stamp, &id), EventId(Place::Replay(place.clone())).to_string());
        }
    }

    #[test]
    fn a_damaged_id_is_recognised(place in place(), at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_-]") {
        let text = EventId(place).to_string();
        let at = at.index(text.len());
        let damaged = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        // The hash has 32 bits and one character six, so that no single one can hide.
        prop_assert_eq!(damaged.parse::<EventId>().is_ok(), damaged == text);
        prop_assert!(text[..at].parse::<EventId>().is_err());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,300}") {
        let _ = text.parse::<EventId>();
    }
}

/// Generated out by the release before, with their hashes.
#[test]
fn ids_of_the_form_before_say_from_where_a_reset_goes_on() {
    let id = |fill: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        fill(&mut bytes);
        bytes.extend_from_slice(&stable_hash(bytes.iter().copied()).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes).parse::<EventId>().unwrap()
    };
    let (position, safe_time) =
        (Position { commit_lsn: Lsn::new(9), ordinal: 300, part: 1 }, Instant::from_unix_micros(5));
    let watermark = Watermark { safe_time: Instant::from_unix_micros(6), fence_lsn: Lsn::new(10) };
    let old = EventId(Place::Old { epoch: 7, since: Some(safe_time) });
    let live = id(&|bytes| {
        bytes.push(LIVE_BEFORE);
        put_u64(7, bytes);
        put_position(position, bytes);
        put_instant(safe_time, bytes);
    });
    let cutover = id(&|bytes| {
        bytes.push(SPLIT_BEFORE);
        put_u64(7, bytes);
        put_position(position, bytes);
        put_watermark(watermark, bytes);
        put_instant(safe_time, bytes);
    });
    let cursor =
        Cursor { kind: Kind::Upsert, resource_type: ResourceType::PATIENT, stamp: safe_time, id: "a".into() };
    let replay = Replaying { run: 7, since: Some(safe_time), watermark, filter: 3, group: None, cursor };
    let replay = id(&|bytes| {
        put_stage(&replay, bytes);
        bytes[0] = REPLAY_BEFORE;
        put_row(safe_time, "a", bytes);
    });
    assert_eq!([&live, &cutover, &replay], [&old; 3]);
    assert_eq!(old.to_string().parse::<EventId>().unwrap(), old);
}

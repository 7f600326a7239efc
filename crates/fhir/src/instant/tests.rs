use super::*;
use proptest::prelude::*;

fn micros(text: &str) -> i64 {
    text.parse::<Instant>().unwrap().unix_micros()
}

#[test]
fn a_shorter_instant_is_its_beginning() {
    let noon = micros("2024-05-01T12:30:00.000000Z");
    assert_eq!(noon, 1_714_566_600_000_000);
    assert_eq!(micros("2024-05-01T12:30Z"), noon);
    assert_eq!(micros("2024-05-01T12:30:00Z"), noon);
    assert_eq!(micros("2024-05-01T12:30:00.5Z"), noon + 500_000);
    assert_eq!(micros("2024-05-01T12:30:00.1234567Z"), noon + 123_456);
    assert_eq!(micros("2024-05-01T14:30:00+02:00"), noon);
    assert_eq!(micros("2024-05-01T14:30:00 02:00"), noon);
    assert_eq!(micros("2024-05-01T14:30 02:00"), noon);
    assert_eq!(micros("2024-05-01T01:30:00-11:00"), noon);
    assert_eq!(micros("2016-12-31T23:59:60Z"), micros("2016-12-31T23:59:59Z"));
    assert_eq!(micros("2024-02-29T00:00:00Z") + 86_400_000_000, micros("2024-03-01T00:00:00Z"));
}

#[test]
fn what_is_no_instant_says_why() {
    for date in ["2024", "2024-05", "2024-05-01"] {
        let error = date.parse::<Instant>().unwrap_err();
        assert_eq!(error, InvalidInstant::Date(date.to_owned()));
        assert!(error.to_string().contains("without a time"));
    }
    for local in ["2024-05-01T12:30", "2024-05-01T12:30:00", "2024-05-01T12:30:00.5"] {
        assert_eq!(local.parse::<Instant>(), Err(InvalidInstant::NoZone(local.to_owned())));
    }
    for bad in [
        "",
        " ",
        "now",
        "2024-05-01T",
        "2024-05-01T12",
        "2024-05-01T12Z",
        "2024-05-01 12:30:00Z",
        "2024-13-01T12:30:00Z",
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2024-05-01T24:00:00Z",
        "2024-05-01T12:60:00Z",
        "2024-05-01T12:30:61Z",
        "2024-05-01T12:30:00.Z",
        "2024-05-01T12:30:00ZZ",
        "2024-05-01T12:30:00+15:00",
        "2024-05-01T12:30:00+14:01",
        "2024-05-01T12:30:00+2:00",
        "2024-05-01T12:30:00  02:00",
        "0000-01-01T00:00:00Z",
        "-2024-05-01T12:30:00Z",
        "2024-05-01t12:30:00z",
        "1714566600",
        "2024-05-0١T12:30:00Z",
    ] {
        let error = bad.parse::<Instant>().unwrap_err();
        assert_eq!(error, InvalidInstant::Malformed(bad.to_owned()));
    }
    let long = "9".repeat(100_000);
    assert!(long.parse::<Instant>().unwrap_err().to_string().len() < 300);
}

#[test]
fn beyond_what_fhir_can_write_the_nearest_is_written() {
    assert_eq!(Instant::MIN.to_fhir(), "0001-01-01T00:00:00.000000Z");
    assert_eq!(Instant::from_unix_micros(i64::MAX).to_fhir(), "9999-12-31T23:59:59.999999Z");
    assert_eq!(Instant::from_postgres(i64::MAX).to_fhir(), "9999-12-31T23:59:59.999999Z");
    assert_eq!(Instant::from_unix_micros(-1).to_fhir(), "1969-12-31T23:59:59.999999Z");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(micros in FHIR_MIN..=FHIR_MAX) {
        let instant = Instant::from_unix_micros(micros);
        prop_assert_eq!(instant.to_fhir().parse::<Instant>(), Ok(instant));
        // The calendar is not only its own inverse: jiff agrees.
        let at = jiff::Timestamp::from_microsecond(micros).unwrap();
        prop_assert_eq!(instant.to_fhir(), format!("{at:.6}"));
    }

    #[test]
    fn an_offset_is_taken_off(micros in 0_i64..4_000_000_000_000_000, offset in -14 * 60..=14 * 60_i64, digits in 0_usize..10) {
        let at = jiff::Timestamp::from_microsecond(micros).unwrap();
        let zone = jiff::tz::Offset::from_seconds(i32::try_from(offset * 60).unwrap()).unwrap();
        let local = zone.to_datetime(at);
        let sign = if offset < 0 { '-' } else { '+' };
        let (date, time) = (local.date(), local.time());
        let fraction = format!("{:09}", local.subsec_nanosecond());
        let fraction = if digits == 0 { String::new() } else { format!(".{}", &fraction[..digits.min(9)]) };
        let text = format!(
            "{date}T{:02}:{:02}:{:02}{fraction}{sign}{:02}:{:02}",
            time.hour(), time.minute(), time.second(), offset.abs() / 60, offset.abs() % 60
        );
        let unit = 10_i64.pow(u32::try_from(6_usize.saturating_sub(digits)).unwrap());
        prop_assert_eq!(text.parse::<Instant>().unwrap().unix_micros(), micros / unit * unit);
        prop_assert_eq!(text.replace('+', " ").parse::<Instant>().unwrap().unix_micros(), micros / unit * unit);
    }

    #[test]
    fn nothing_that_is_read_panics(text in "\\PC*", digits in "[-0-9TZ:.+ ]{0,40}") {
        let _ = text.parse::<Instant>();
        let _ = digits.parse::<Instant>();
    }
}

#[test]
fn an_interval_is_as_wide_as_its_precision() {
    let micros = |text: &str| text.parse::<Instant>().unwrap();
    for (text, start, end) in [
        ("2024", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
        ("2024-12", "2024-12-01T00:00:00Z", "2025-01-01T00:00:00Z"),
        ("2024-02", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("2024-02-29", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("2024-05-01T14:30+02:00", "2024-05-01T12:30:00Z", "2024-05-01T12:31:00Z"),
        ("2024-05-01T12:30:00", "2024-05-01T12:30:00Z", "2024-05-01T12:30:01Z"),
        ("2024-05-01T12:30:00.5Z", "2024-05-01T12:30:00.5Z", "2024-05-01T12:30:00.6Z"),
        ("2024-05-01T12:30:00.1234567Z", "2024-05-01T12:30:00.123456Z", "2024-05-01T12:30:00.123457Z"),
        ("9999", "9999-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    ] {
        let interval: Interval = text.parse().unwrap();
        assert_eq!(interval.start, micros(start), "{text}");
        let beyond = i64::from(text == "9999");
        assert_eq!(interval.end.unix_micros(), micros(end).unix_micros() + beyond, "{text}");
    }
    for text in ["", "24", "2024-13", "2023-02-29", "2024-5-1", "2024-05-01T", "2024-05-01T25:00Z", "2024 "] {
        assert!(text.parse::<Interval>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn an_interval_begins_where_the_instant_is(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,8})?)?(Z|[+-]0[0-9]:00)") {
        let interval = text.parse::<Interval>();
        prop_assert_eq!(interval.clone().map(|interval| interval.start).ok(), text.parse::<Instant>().ok());
        if let Ok(interval) = interval {
            prop_assert!(interval.start < interval.end);
        }
    }
}

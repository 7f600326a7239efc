//! Databases of every encoding: what comes is what the server itself converts, and nothing else.

use crate::cluster::{Cluster, TestDatabase};
use crate::pages::{basic, read};
use crate::watermark::start;
use feed::Kind;
use futures_util::future::join_all;
use std::collections::BTreeMap;

const SINGLE_BYTE: [&str; 27] = [
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
    "KOI8R",
    "KOI8U",
    "WIN866",
    "WIN874",
    "WIN1250",
    "WIN1251",
    "WIN1252",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1256",
    "WIN1257",
    "WIN1258",
];
const EUC: [&str; 5] = ["EUC_JP", "EUC_JIS_2004", "EUC_KR", "EUC_CN", "EUC_TW"];

/// Codes that a database of this encoding takes, whether they mean something or not.
fn codes(encoding: &str) -> Vec<Vec<u8>> {
    if !encoding.starts_with("EUC") {
        return (0x80..=0xff).map(|byte| vec![byte]).collect();
    }
    let high = || 0xa1_u8..=0xfe;
    let mut codes: Vec<Vec<u8>> = high().flat_map(|a| high().step_by(9).map(move |b| vec![a, b])).collect();
    match encoding {
        "EUC_JP" | "EUC_JIS_2004" => {
            codes.extend((0xa1..=0xdf).map(|b| vec![0x8e, b]));
            codes.extend(high().step_by(3).flat_map(|a| high().step_by(9).map(move |b| vec![0x8f, a, b])));
            // Two characters of Unicode.
            codes.extend([vec![0xa4, 0xf7], vec![0xab, 0xc4]]);
        }
        "EUC_TW" => codes.extend((0xa1..=0xa7).flat_map(|plane| {
            high().step_by(10).flat_map(move |a| high().step_by(10).map(move |b| vec![0x8e, plane, a, b]))
        })),
        _ => {}
    }
    codes
}

async fn streams_what_the_server_converts(encoding: &str) {
    let database: TestDatabase = Cluster::shared().of_encoding(encoding).await;
    let client = database.client().await;
    let codes: Vec<String> =
        codes(encoding).iter().map(|code| code.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    let insert = "insert into fhir.resource (resource_type, id, content)
        select 'Basic', code, convert_from('{\"resourceType\":\"Basic\",\"x\":\"'::bytea || decode(code, 'hex')
                                           || '\"}'::bytea, getdatabaseencoding())::json
          from unnest($1::text[]) code";
    client.execute(insert, &[&codes]).await.unwrap();

    // To this client the server converts.
    let select = "select content->>'x' from fhir.resource where id = $1";
    let select = client.prepare(select).await.unwrap();
    let converted = join_all(codes.iter().map(|code| {
        let (client, select) = (&client, &select);
        async move {
            match client.query_one(select, &[code]).await {
                // A line break within a line.
                Ok(row) => Some((code.clone(), row.get::<_, String>(0).replace('\u{85}', "\\u0085"))),
                Err(error) => {
                    assert_eq!(error.code().unwrap().code(), "22P05", "{encoding} {code}: {error:?}");
                    None
                }
            }
        }
    }));
    let expected: BTreeMap<String, String> = converted.await.into_iter().flatten().collect();
    assert!(expected.len() > 50, "{encoding}: {}", expected.len());

    let running = start(&database, "postgres");
    let (rows, _) = read(&running, basic(Kind::Upsert)).await;
    let streamed: BTreeMap<String, String> = rows
        .into_iter()
        .map(|row| {
            let data = String::from_utf8(row.data).unwrap();
            let (_, x) = data.split_once("\"x\":\"").unwrap();
            (row.id, x.split_once('"').unwrap().0.to_owned())
        })
        .collect();
    assert_eq!(streamed, expected, "{encoding}");
    let bad = codes.len() - expected.len();
    assert_eq!(running.tables.bad_rows().count(), bad as u64, "{encoding}");
}

#[tokio::test]
async fn each_byte_is_streamed_as_the_server_converts_it() {
    for encoding in SINGLE_BYTE {
        streams_what_the_server_converts(encoding).await;
    }
}

#[tokio::test]
async fn characters_of_several_bytes_are_streamed_as_the_server_converts_them() {
    for encoding in EUC {
        streams_what_the_server_converts(encoding).await;
    }
}

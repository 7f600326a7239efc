//! What is loaded, and what is not, into the tables of a real Postgres.

use super::*;
use embedded::{Embedded, Search};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A Postgres with the tables, and a directory for files.
struct Site {
    home: tempfile::TempDir,
    embedded: Embedded,
    database: Database,
    client: tokio_postgres::Client,
}

impl Site {
    async fn new() -> Self {
        // The user of the embedded Postgres has to pass through.
        let home =
            tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let data = home.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let path = std::env::var_os("PATH");
        let search = Search::of_this_machine(None, path.as_ref());
        let embedded = Embedded::start(&data, &search).await.unwrap();
        let database = embedded.administrator().unwrap();
        let mut client = database.connect("test").await.unwrap();
        cdc::layout::native::migrate(&mut client).await.unwrap();
        cdc::layout::native::repair(&client).await.unwrap();
        Self { home, embedded, database, client }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    async fn load(&self, file: &Path, keep_going: bool) -> Result<String, String> {
        let inputs = Inputs::of(&[file.to_owned()]).unwrap();
        load(inputs, keep_going, &self.database).await.map_err(|error| format!("{error:#}"))
    }

    async fn load_text(&self, content: impl AsRef<[u8]>, keep_going: bool) -> Result<String, String> {
        self.load(&self.file("input", content), keep_going).await
    }

    /// All that is there: `Type/id content`, in order.
    async fn there(&self) -> Vec<String> {
        let query = "select resource_type || '/' || id || ' ' || content::text from fhir.resource order by 1";
        self.client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn count(&self) -> i64 {
        self.client.query_one("select count(*) from fhir.resource", &[]).await.unwrap().get(0)
    }

    async fn clear(&self) {
        self.client.batch_execute("delete from fhir.resource").await.unwrap();
    }

    async fn close(self) {
        drop(self.client);
        self.embedded.stop().await.unwrap();
    }
}

fn patient(id: &str, rest: &str) -> String {
    format!(r#"{{"resourceType":"Patient","id":"{id}"{rest}}}"#)
}

fn patients(ids: std::ops::Range<usize>) -> String {
    ids.fold(String::new(), |mut lines, id| {
        writeln!(lines, "{}", patient(&format!("p{id}"), "")).unwrap();
        lines
    })
}

// One server for all: each test would spend its time on making a cluster.
#[tokio::test]
async fn what_is_loaded_and_what_is_not() {
    let site = Site::new().await;
    text_stays_as_it_was_written(&site).await;
    an_id_that_exists_is_updated(&site).await;
    entries_are_loaded_and_their_references_follow(&site).await;
    entries_that_delete_delete(&site).await;
    of_a_batch_with_something_bad_nothing_is_kept(&site).await;
    what_is_good_is_kept_on_request(&site).await;
    a_transaction_bundle_is_all_or_nothing(&site).await;
    what_the_database_refuses_is_found(&site).await;
    what_is_kept_is_a_beginning_of_the_input(&site).await;
    who_deletes_meanwhile_does_not_stop_it(&site).await;
    who_holds_a_row_delays_all_that_follows(&site).await;
    without_the_tables_migrate_is_named(&site).await;
    site.close().await;
}

async fn text_stays_as_it_was_written(site: &Site) {
    let text = "{ \"resourceType\" : \"Observation\",\n  \"id\":\"o\", \"valueDecimal\":1.50, \"n\":1e400,\r\n \"x\":\"\\u0000\\ud800\",\"x\":2 }";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
    site.load_text(gzip.finish().unwrap(), false).await.unwrap();
    assert_eq!(site.there().await, [format!("Observation/o {text}")]);
    site.clear().await;
}

async fn an_id_that_exists_is_updated(site: &Site) {
    site.load_text(patient("a", ""), false).await.unwrap();
    let lines = [patient("a", ",\"n\":1"), patient("b", ""), patient("a", ",\"n\":2")].join("\n");
    let summary = site.load_text(&lines, false).await.unwrap();
    assert!(summary.starts_with("2 resources loaded"), "{summary}");
    let expected = [patient("a", ",\"n\":2"), patient("b", "")];
    assert_eq!(
        site.there().await,
        [format!("Patient/a {}", expected[0]), format!("Patient/b {}", expected[1])]
    );
    site.clear().await;
}

async fn entries_are_loaded_and_their_references_follow(site: &Site) {
    let bundle = r#"{"resourceType":"Bundle","type":"TYPE","entry":[
        {"fullUrl":"urn:uuid:o-1","resource":{"resourceType":"Observation","subject":{"reference":"urn:uuid:p-1"},
            "performer":[{"reference":"Practitioner?identifier=x|1"}]}},
        {"fullUrl":"urn:uuid:p-1","resource":{"resourceType":"Patient","identifier":[{"value":"urn:uuid:p-1"}]},
            "request":{"method":"PUT","url":"Patient/p"}}]}"#;
    for kind in ["transaction", "batch", "collection", "searchset"] {
        let bundle = bundle.replace("TYPE", kind);
        let compact = bundle.replace("\n        ", "").replace("\n    ", "");
        for text in [format!("{bundle}\n"), format!("{}\n{compact}\n", patient("first", ""))] {
            site.load_text(&text, false).await.unwrap();
            let there = site.there().await;
            assert!(there[0].starts_with("Observation/o-1 "), "{there:?}");
            assert!(there[0].contains(r#"{"reference":"Patient/p"}"#), "{there:?}");
            assert!(there[0].contains("Practitioner?identifier=x|1"), "{there:?}");
            assert!(there.last().unwrap().starts_with(
                r#"Patient/p {"resourceType":"Patient","identifier":[{"value":"urn:uuid:p-1"}]}"#
            ));
            site.clear().await;
        }
    }
    // A document is one resource, and a history is none.
    let document = r#"{"resourceType":"Bundle","type":"document","id":"d","entry":[]}"#;
    site.load_text(document, false).await.unwrap();
    assert_eq!(site.there().await, [format!("Bundle/d {document}")]);
    site.clear().await;
    assert!(site.load_text(document.replace("document", "history"), false).await.is_err());
    assert_eq!(site.count().await, 0);
}

async fn entries_that_delete_delete(site: &Site) {
    site.load_text(patients(0..3), false).await.unwrap();
    let delete = |id: &str| format!(r#"{{"request":{{"method":"DELETE","url":"Patient/{id}"}}}}"#);
    let put = format!(r#"{{"resource":{}}}"#, patient("p1", ",\"again\":true"));
    let bundle = |kind: &str, entries: &[String]| {
        format!(r#"{{"resourceType":"Bundle","type":"{kind}","entry":[{}]}}"#, entries.join(","))
    };
    let entries = [delete("p0"), delete("p1"), put, delete("p9"), delete("p2")];
    // Not p1 twice in a transaction; in a batch one entry follows the other.
    let error = site.load_text(bundle("transaction", &entries), false).await.unwrap_err();
    assert!(error.contains("0 resources loaded"), "{error}");
    let summary = site.load_text(bundle("transaction", &[delete("p0")]), false).await.unwrap();
    assert!(summary.starts_with("0 resources loaded, 1 deleted"), "{summary}");
    let summary = site.load_text(bundle("batch", &entries[1..]), false).await.unwrap();
    assert!(summary.starts_with("1 resource loaded, 1 deleted"), "{summary}");
    assert_eq!(site.there().await, [format!("Patient/p1 {}", patient("p1", ",\"again\":true"))]);
    site.clear().await;
}

async fn of_a_batch_with_something_bad_nothing_is_kept(site: &Site) {
    for bad in [
        "{\"resourceType\":\"Patient\"}",
        "nonsense",
        "{\"cut",
        r#"{"resourceType":"Patient","id":"x","a":}"#,
    ] {
        let lines = format!("{}{bad}\n{}", patients(0..1_500), patients(1_500..1_600));
        let error = site.load_text(&lines, false).await.unwrap_err();
        assert!(error.contains("1,000 resources loaded") && error.contains("--keep-going"), "{error}");
        assert_eq!(site.count().await, 1_000);
        site.clear().await;
    }
}

async fn what_is_good_is_kept_on_request(site: &Site) {
    let lines = format!(
        "{}{{\"resourceType\":\"Secret\"}}\n[]\n{}\n{{\"cut",
        patients(0..1_500),
        patient("last", "")
    );
    let error = site.load_text(&lines, true).await.unwrap_err();
    assert!(error.contains("bad (3)") && error.contains("1,501 resources loaded"), "{error}");
    assert_eq!(site.count().await, 1_501);
    site.clear().await;
}

async fn a_transaction_bundle_is_all_or_nothing(site: &Site) {
    let bundle = |kind: &str, count: usize, bad: &str| {
        let entries: Vec<_> =
            (0..count).map(|id| format!(r#"{{"resource":{}}}"#, patient(&format!("t{id}"), ""))).collect();
        format!(r#"{{"resourceType":"Bundle","type":"{kind}","entry":[{}{bad}]}}"#, entries.join(","))
    };
    let versions = "select count(distinct xmin::text) from fhir.resource";
    site.load_text(format!("{}{}\n", patients(0..10), bundle("transaction", 2_500, "")), false)
        .await
        .unwrap();
    assert_eq!(site.count().await, 2_510);
    let transactions: i64 = site.client.query_one(versions, &[]).await.unwrap().get(0);
    assert_eq!(transactions, 2, "the lines before, and the Bundle");
    site.clear().await;

    let bad = ",{\"resource\":{\"resourceType\":\"Patient\"}}";
    for keep_going in [false, true] {
        let error =
            site.load_text(format!("{}\n", bundle("transaction", 1_200, bad)), keep_going).await.unwrap_err();
        assert!(error.contains("0 resources loaded"), "{error}");
        assert_eq!(site.count().await, 0);
    }
    let error = site.load_text(bundle("batch", 1_200, bad), true).await.unwrap_err();
    assert!(error.contains("1,200 resources loaded"), "{error}");
    site.clear().await;
}

async fn what_the_database_refuses_is_found(site: &Site) {
    let rule = "alter table fhir.resource add constraint not_p7 check (id not like '%7')";
    site.client.batch_execute(rule).await.unwrap();
    let error = site.load_text(patients(0..10), false).await.unwrap_err();
    assert!(error.contains("0 resources loaded") && error.contains("--keep-going"), "{error}");
    assert_eq!(site.count().await, 0);
    let error = site.load_text(patients(0..20), true).await.unwrap_err();
    assert!(error.contains("bad (2)") && error.contains("18 resources loaded"), "{error}");
    assert_eq!(site.count().await, 18);
    site.clear().await;
    // A Bundle of several pieces: nothing of it, but what comes after it.
    let entries: Vec<_> =
        (0..2_500).map(|id| format!(r#"{{"resource":{}}}"#, patient(&format!("t{id}"), ""))).collect();
    let bundle =
        format!(r#"{{"resourceType":"Bundle","type":"transaction","entry":[{}]}}"#, entries.join(","));
    let error = site.load_text(format!("{bundle}\n{}", patients(0..5)), true).await.unwrap_err();
    assert!(error.contains("bad (1)") && error.contains("5 resources loaded"), "{error}");
    assert_eq!(site.count().await, 5);
    site.client.batch_execute("alter table fhir.resource drop constraint not_p7").await.unwrap();
    site.clear().await;
}

async fn what_is_kept_is_a_beginning_of_the_input(site: &Site) {
    for refused in [0, 1_000, 2_500, 4_999] {
        let rule = format!("alter table fhir.resource add constraint no check (id <> 'p{refused}')");
        site.client.batch_execute(&rule).await.unwrap();
        let error = site.load_text(patients(0..6_000), false).await.unwrap_err();
        assert!(error.contains("stopped"), "{error}");
        assert_eq!(site.count().await, refused / 1_000 * 1_000);
        let error = site.load_text(patients(0..6_000), true).await.unwrap_err();
        assert!(error.contains("bad (1)"), "{error}");
        assert_eq!(site.count().await, 5_999);
        site.client.batch_execute("alter table fhir.resource drop constraint no").await.unwrap();
        site.clear().await;
    }
}

/// Loads beside somebody who is in the middle of something, who goes on once the load waits for it.
async fn load_beside(site: &Site, lines: &str, begun: &str, going_on: &str) -> (i64, String) {
    let mut other = site.database.connect("other").await.unwrap();
    let transaction = other.transaction().await.unwrap();
    transaction.batch_execute(begun).await.unwrap();
    let go_on = async {
        let waiting = "select exists (select from pg_stat_activity a, lateral pg_blocking_pids(a.pid) b
                        where a.application_name = 'fhir-tail load' and cardinality(b) > 0)";
        while !site.client.query_one(waiting, &[]).await.unwrap().get::<_, bool>(0) {}
        let seen = site.count().await;
        transaction.batch_execute(going_on).await.unwrap();
        transaction.commit().await.unwrap();
        seen
    };
    let (loaded, seen) = tokio::join!(site.load_text(lines, false), go_on);
    (seen, loaded.unwrap())
}

async fn who_deletes_meanwhile_does_not_stop_it(site: &Site) {
    site.load_text(patients(1..2), false).await.unwrap();
    // The deletion is stamped after the load's insert.
    let update = "update fhir.resource set content = content where id = 'p1'";
    let delete = "delete from fhir.resource where id = 'p1'";
    let (_, summary) = load_beside(site, &patients(0..10), update, delete).await;
    assert!(summary.starts_with("10 resources loaded"), "{summary}");
    assert_eq!(site.count().await, 10);
    let dead: i64 = site
        .client
        .query_one("select count(*) from fhir.tombstone t where t.id = 'p1'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(dead, 0);
    site.clear().await;
}

async fn who_holds_a_row_delays_all_that_follows(site: &Site) {
    site.load_text(patient("p0", ""), false).await.unwrap();
    let lock = "select from fhir.resource where id = 'p0' for update";
    // It goes on with what the second batch holds: unless that is taken back, both wait for ever.
    let touch = "insert into fhir.resource (resource_type, id, content)
                 values ('Patient', 'p1500', '{\"resourceType\":\"Patient\"}')
                 on conflict (resource_type, id) do nothing";
    let (seen, summary) = load_beside(site, &patients(0..4_000), lock, touch).await;
    assert_eq!(seen, 1, "nothing that follows was committed before it");
    assert!(summary.starts_with("4,000 resources loaded"), "{summary}");
    assert_eq!(site.count().await, 4_000);
    site.clear().await;
}

async fn without_the_tables_migrate_is_named(site: &Site) {
    site.client.batch_execute("alter schema fhir rename to elsewhere").await.unwrap();
    let error = site.load_text(patients(0..5_000), false).await.unwrap_err();
    assert!(error.contains("fhir-tail migrate"), "{error}");
}

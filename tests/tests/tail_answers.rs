//! `fhir-tail tail` and the answers that a service in good health seldom gives: a script plays the service.

use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tests::tail::{Tail, files};
use tests::{Case, Context, Key, SOON, What, cases};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        once what_passes_is_waited_for_and_continued,
        once a_reset_of_all_is_seen_by_who_follows,
        once a_reset_of_all_begins_a_download_anew,
        once what_lasts_ends_it_with_a_reason,
        once a_line_of_ten_megabytes_passes,
        once what_would_spoil_an_envelope_ends_it,
        once a_time_of_a_stranger_names_no_folder,
    ]
}

/// Answers each connection with the next text, and closes it.
struct Script {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<Result<()>>,
}

impl Script {
    async fn start(answers: Vec<String>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            for answer in answers {
                let (mut socket, _) = listener.accept().await?;
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    ensure!(socket.read_buf(&mut request).await? > 0, "no request");
                }
                let request = String::from_utf8(request)?.to_ascii_lowercase();
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                socket.write_all(answer.as_bytes()).await?;
                socket.shutdown().await?;
            }
            Ok(())
        });
        Ok(Self { address, requests, task })
    }

    fn url(&self) -> String {
        format!("http://{}/fhir", self.address)
    }

    /// The requests, after the last answer was given.
    async fn requests(self) -> Result<Vec<String>> {
        self.task.await??;
        Ok(self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn stream(frames: &[String]) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n{}", frames.concat())
}

fn status(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn frame(id: &str, event: &str, data: &str) -> String {
    format!("id: {id}\nevent: {event}\ndata: {data}\n\n")
}

fn patient(id: &str, version: i64) -> String {
    let data = format!(
        r#"{{"resourceType":"Patient","id":"{id}","meta":{{"versionId":"{version}","lastUpdated":"2026-01-01T00:00:00Z"}}}}"#
    );
    frame(&format!("{id}-{version}"), "Patient", &data)
}

fn deletion(id: &str) -> String {
    let data = format!(
        r#"{{"resourceType":"Bundle","meta":{{"lastUpdated":"2026-01-01T00:00:00Z","tag":[{{"code":"deleted"}}]}},"type":"transaction","entry":[{{"request":{{"method":"DELETE","url":"Patient/{id}"}}}}]}}"#
    );
    frame(&format!("{id}-gone"), "Bundle", &data)
}

fn notice(code: &str) -> String {
    let data = format!(
        r#"{{"resourceType":"OperationOutcome","issue":[{{"severity":"information","code":"informational","details":{{"coding":[{{"system":"urn:fhir-tail:notice","code":"{code}"}}]}},"diagnostics":"why {code}"}}]}}"#
    );
    frame(code, "OperationOutcome", &data)
}

/// `Patient/a 1`, `- Patient/a`, `live`.
fn short(lines: &[What]) -> Vec<String> {
    lines
        .iter()
        .map(|what| match what {
            What::Resource { key, version, .. } => format!("{key} {version}"),
            What::Deletion { key, .. } => format!("- {key}"),
            What::Notice { code, .. } => code.clone(),
        })
        .collect()
}

async fn ends(tail: &mut Tail, code: i32) -> Result<()> {
    let status = tail.exited(SOON).await.with_context(|| tail.log().unwrap_or_default())?;
    ensure!(status.code() == Some(code), "{status}: {}", tail.log()?);
    Ok(())
}

async fn what_passes_is_waited_for_and_continued(context: Context) -> Result<()> {
    let torn = patient("b", 1);
    let script = Script::start(vec![
        status("503 Service Unavailable", "Retry-After: 0\r\n", ""),
        status("429 Too Many Requests", "Retry-After: 1\r\n", ""),
        stream(&[
            "retry: 20\n".to_owned(),
            notice("start"),
            patient("a", 1),
            torn[..torn.len() - 1].to_owned(),
        ]),
        stream(&[notice("start"), patient("b", 1), notice("shutdown"), patient("not-read", 1)]),
        stream(&[": quiet\n".to_owned(), deletion("a"), notice("position"), notice("live"), patient("c", 1)]),
    ])
    .await?;
    let token = context.directory().join("token");
    std::fs::write(&token, "t0ken\n")?;
    let token = token.display().to_string();
    let more = ["--until-live", "--bearer-token-file", &token, "--header", "X-Key: k", "--type", "Patient"];
    let mut tail = Tail::new(context.directory(), &script.url(), &more)?;
    tail.start()?;
    ends(&mut tail, 0).await?;
    let lines = short(&tail.stdout()?);
    ensure!(lines == ["Patient/a 1", "Patient/b 1", "- Patient/a"], "{lines:?}");
    let requests = script.requests().await?;
    for request in &requests {
        for part in [
            "get /fhir/$export?_type=patient http/1.1",
            "prefer: respond-eventsource",
            "authorization: bearer t0ken",
            "x-key: k",
        ] {
            ensure!(request.contains(part), "{part}: {request}");
        }
    }
    let last_ids: Vec<_> = requests
        .iter()
        .map(|request| request.lines().find_map(|line| line.strip_prefix("last-event-id: ")))
        .collect();
    ensure!(last_ids == [None, None, None, Some("a-1"), Some("shutdown")], "{last_ids:?}");
    let log = tail.log()?;
    ensure!(log.contains("503") && log.contains("429") && !log.contains("t0ken"), "{log}");
    Ok(())
}

async fn a_reset_of_all_is_seen_by_who_follows(context: Context) -> Result<()> {
    let script = Script::start(vec![
        stream(&[
            "retry: 1\n".to_owned(),
            patient("a", 1),
            notice("live"),
            notice("reset"),
            notice("reset-all"),
        ]),
        stream(&[patient("b", 2), notice("live"), patient("c", 3), notice("live")]),
        status("404 Not Found", "", ""),
    ])
    .await?;
    let output = context.directory().join("output");
    let more = ["--output", &output.display().to_string()].map(str::to_owned);
    let mut tail = Tail::new(context.directory(), &script.url(), &[&more[0], &more[1]])?;
    tail.start()?;
    ends(&mut tail, 1).await?;
    let lines: Vec<What> = files(&output)?.into_values().flatten().collect();
    let lines = short(&lines);
    ensure!(lines == ["Patient/a 1", "reset-all", "Patient/b 2", "live", "Patient/c 3"], "{lines:?}");
    Ok(())
}

async fn a_reset_of_all_begins_a_download_anew(context: Context) -> Result<()> {
    let script = Script::start(vec![
        stream(&["retry: 1\n".to_owned(), patient("a", 1), patient("b", 1)]),
        stream(&[notice("reset-all"), patient("b", 2), deletion("b"), patient("c", 1), notice("live")]),
    ])
    .await?;
    let output = context.directory().join("output");
    let more = ["--until-live", "--output", &output.display().to_string()].map(str::to_owned);
    let mut tail = Tail::new(context.directory(), &script.url(), &[&more[0], &more[1], &more[2]])?;
    tail.start()?;
    ends(&mut tail, 0).await?;
    let files = files(&output)?;
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    ensure!(names == ["Patient", "deleted"], "{names:?}");
    ensure!(short(&files["Patient"]) == ["Patient/c 1"], "{files:?}");
    ensure!(files["deleted"][0].key() == Some(&Key::new("Patient", "b")), "{files:?}");
    Ok(())
}

async fn what_lasts_ends_it_with_a_reason(context: Context) -> Result<()> {
    let outcome = r#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"login","diagnostics":"who are you?"}]}"#;
    let cases: [(String, &[&str]); 6] = [
        (status("401 Unauthorized", "", outcome), &["401", "who are you?", "--bearer-token-file"]),
        (status("302 Found", "Location: https://elsewhere/\r\n", ""), &["302", "https://elsewhere/"]),
        (status("200 OK", "Content-Type: text/html\r\n", "<html>"), &["text/html", "is it the URL"]),
        (status("204 No Content", "", ""), &["204"]),
        (stream(&["data: {}\n\n".to_owned()]), &["cannot be understood", "not named after a resource type"]),
        (stream(&["event: Patient\ndata: {}\n\n".to_owned()]), &["cannot be understood", "no id"]),
    ];
    for (index, (answer, parts)) in cases.into_iter().enumerate() {
        let within = context.within(&format!("case-{index}"))?;
        let script = Script::start(vec![answer]).await?;
        let url = script.url().replace("://", "://user:passw0rd@");
        let mut tail = Tail::new(within.directory(), &url, &[])?;
        tail.start()?;
        ends(&mut tail, 1).await?;
        let log = tail.log()?;
        ensure!(parts.iter().all(|part| log.contains(part)), "{parts:?}: {log}");
        ensure!(!log.contains("passw0rd"), "{log}");
        ensure!(script.requests().await?[0].contains("authorization: basic "), "the password was not used");
    }
    Ok(())
}

async fn a_line_of_ten_megabytes_passes(context: Context) -> Result<()> {
    let large = |id: &str| {
        let frame = patient(id, 1);
        frame.replace("\"meta\"", &format!("\"text\":\"{}\",\"meta\"", "ö".repeat(5 << 20)))
    };
    let script =
        Script::start(vec![stream(&[large("a"), patient("b", 1), large("c"), notice("live")])]).await?;
    let mut tail = Tail::new(context.directory(), &script.url(), &["--until-live"])?;
    tail.start()?;
    ends(&mut tail, 0).await?;
    let lines = short(&tail.stdout()?);
    ensure!(lines == ["Patient/a 1", "Patient/b 1", "Patient/c 1"], "{lines:?}");
    Ok(())
}

/// The lines before it are whole, and the next start goes on after them.
async fn what_would_spoil_an_envelope_ends_it(context: Context) -> Result<()> {
    let forged: [(String, &str); 5] = [
        (frame("x", "Patient", r#"{"resourceType":"Patient"}"#), "a resource has no id"),
        (frame("x", "Patient", r#"{"id":"a\",\"op\":\"delete"}"#), "a resource has no id"),
        (
            frame("x", "Patient", r#"{"id":"a"}} {"seq":7,"op":"delete","type":"Patient","id":"b"}"#),
            "is not JSON",
        ),
        (frame("x", "Patient", r#"{"id":"a","x":"#), "is not JSON"),
        (
            frame("x", "OperationOutcome", &format!(r#"{{"issue":[{}]}}"#, "{},".repeat(1 << 19))),
            "larger than",
        ),
    ];
    for (index, (forged, why)) in forged.into_iter().enumerate() {
        let within = context.within(&format!("case-{index}"))?;
        let script = Script::start(vec![
            stream(&["retry: 1\n".to_owned(), patient("a", 1), deletion("b")]),
            stream(&[patient("c", 1), forged]),
            stream(&[patient("c", 1), patient("d", 1)]),
            status("404 Not Found", "", ""),
        ])
        .await?;
        let output = within.directory().join("output");
        let more = ["--envelope", "--output", &output.display().to_string()].map(str::to_owned);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let mut tail = Tail::new(within.directory(), &script.url(), &more)?;
        tail.start()?;
        ends(&mut tail, 1).await?;
        let log = tail.log()?;
        ensure!(log.contains("cannot be understood") && log.contains(why), "{why}: {log}");
        tail.start()?;
        ends(&mut tail, 1).await?;
        let text = std::fs::read_to_string(output.join("00000001.ndjson"))?;
        let ops: Vec<(u64, String, String)> = text
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line)?;
                let text = |name: &str| line[name].as_str().map(str::to_owned).context("no text");
                Ok((line["seq"].as_u64().context("no seq")?, text("op")?, text("id")?))
            })
            .collect::<Result<_>>()?;
        // The line before the forged event may have been written, or comes again.
        let again = script.requests().await?[2].contains("last-event-id: b-gone");
        let wanted: &[(u64, &str, &str)] = if again {
            &[(1, "upsert", "a"), (2, "delete", "b"), (3, "upsert", "c"), (4, "upsert", "d")]
        } else {
            &[
                (1, "upsert", "a"),
                (2, "delete", "b"),
                (3, "upsert", "c"),
                (4, "upsert", "c"),
                (5, "upsert", "d"),
            ]
        };
        let same =
            ops.iter().map(|(seq, op, id)| (*seq, op.as_str(), id.as_str())).eq(wanted.iter().copied());
        ensure!(same, "{ops:?}");
    }
    Ok(())
}

async fn a_time_of_a_stranger_names_no_folder(context: Context) -> Result<()> {
    let live = |time: &str| {
        let code = r#""code":"live""#;
        let extension = format!(
            r#""extension":[{{"url":"urn:fhir-tail:transaction-time","valueInstant":"{time}"}}],"severity":"#
        );
        let notice = notice("live").replace(r#""severity":"#, &extension);
        assert!(notice.contains(code));
        notice
    };
    let script = Script::start(vec![
        stream(&[patient("a", 1), live("2026-01-01T00:00:00Z")]),
        stream(&[patient("b", 1), live("../../../escaped")]),
        stream(&[deletion("b"), live("2026-01-01T01:00:00+01:00")]),
        stream(&[notice("reset-all"), patient("c", 1), notice("live")]),
    ])
    .await?;
    let output = context.directory().join("output");
    let more = ["--until-live", "--output", &output.display().to_string()].map(str::to_owned);
    let mut tail = Tail::new(context.directory(), &script.url(), &[&more[0], &more[1], &more[2]])?;
    for _ in 0..4 {
        tail.start()?;
        ends(&mut tail, 0).await?;
    }
    let mut folders: Vec<_> = std::fs::read_dir(&output)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path| path.as_ref().map_or(true, |path| path.is_dir()))
        .collect::<Result<_>>()?;
    folders.sort();
    let names: Vec<_> = folders.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    ensure!(names == ["000002", "000003-20260101T000000.000000Z", "000004-all"], "{names:?}");
    ensure!(short(&files(&folders[0])?["Patient"]) == ["Patient/b 1"], "{names:?}");
    ensure!(short(&files(&folders[1])?["deleted"]) == ["- Patient/b"], "{names:?}");
    ensure!(short(&files(&folders[2])?["Patient"]) == ["Patient/c 1"], "{names:?}");
    ensure!(!tail.log()?.contains("escaped"), "{}", tail.log()?);
    Ok(())
}

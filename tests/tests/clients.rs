//! Subscribers in other languages, with the clients that people use there; they resume by themselves when the server is
//! killed. `FHIR_TAIL_TEST_NODE_MODULES` is a `node_modules` with `eventsource`, `FHIR_TAIL_TEST_PYTHON` a Python
//! with `httpx-sse`; where they are not, these tests are listed as ignored.

use anyhow::{Context as _, Result, ensure};
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use tests::{Case, Context, Heard, SOON, Site, What, cases, until, within};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

pub(crate) fn cases() -> Vec<Case> {
    let needs = |mut cases: Vec<Case>, skip| {
        cases.iter_mut().for_each(|case| case.skip = skip);
        cases
    };
    [
        needs(cases![once node_eventsource], || missing("FHIR_TAIL_TEST_NODE_MODULES")),
        needs(cases![once python_httpx_sse], || missing("FHIR_TAIL_TEST_PYTHON")),
        needs(cases![once python_httpx_sse_that_splits_at_other_line_breaks], || {
            missing("FHIR_TAIL_TEST_OLD_HTTPX_SSE")
        }),
    ]
    .concat()
}

pub(crate) fn missing(variable: &str) -> Option<String> {
    std::env::var_os(variable).is_none().then(|| format!("{variable} is not set"))
}

fn script(name: &str) -> OsString {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name).into()
}

async fn node_eventsource(context: Context) -> Result<()> {
    let mut node = Command::new("node");
    node.arg(script("subscriber.mjs"));
    subscribes_and_comes_back(context, node).await
}

async fn python_httpx_sse(context: Context) -> Result<()> {
    let mut python =
        Command::new(std::env::var_os("FHIR_TAIL_TEST_PYTHON").context("FHIR_TAIL_TEST_PYTHON")?);
    python.arg(script("subscriber.py"));
    subscribes_and_comes_back(context, python).await
}

/// Below 0.4.2 it reads lines as `str.splitlines` does, which takes more for the end of one than Server-Sent Events do.
async fn python_httpx_sse_that_splits_at_other_line_breaks(context: Context) -> Result<()> {
    let mut python =
        Command::new(std::env::var_os("FHIR_TAIL_TEST_PYTHON").context("FHIR_TAIL_TEST_PYTHON")?);
    let old = std::env::var_os("FHIR_TAIL_TEST_OLD_HTTPX_SSE").context("FHIR_TAIL_TEST_OLD_HTTPX_SSE")?;
    let version = "import importlib.metadata; print(importlib.metadata.version('httpx-sse'))";
    let output = python.args(["-c", version]).env("PYTHONPATH", &old).output().await?;
    ensure!(output.stdout == b"0.4.1\n", "it is version {}", String::from_utf8_lossy(&output.stdout));
    let mut python =
        Command::new(std::env::var_os("FHIR_TAIL_TEST_PYTHON").context("FHIR_TAIL_TEST_PYTHON")?);
    python.arg(script("subscriber.py")).env("PYTHONPATH", &old);
    subscribes_and_comes_back(context, python).await
}

async fn subscribes_and_comes_back(context: Context, mut client: Command) -> Result<()> {
    let mut site = Site::start(&context).await?;
    put_line_breaks(&site, "before").await?;
    site.put("Observation", "gone").await?;
    site.settle().await?;
    let address = site.server.listening()?;
    let errors = std::fs::File::create(context.directory().join("client.log"))?;
    client.arg(format!("http://{address}/fhir/$export")).arg("end").stderr(errors).stdout(Stdio::piped());
    // Both ask by Accept, as browsers do; neither is to ask a proxy.
    client.env("NO_PROXY", "*").kill_on_drop(true);
    let mut child = client.spawn().with_context(|| format!("cannot start {client:?}"))?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut heard: Vec<Heard> = Vec::new();
    let mut hear_of = async |heard: &mut Vec<Heard>, id: &str| {
        let read = async {
            while !heard.iter().any(|heard| heard.what.key().is_some_and(|key| key.id == id)) {
                let line = lines.next_line().await?.context("the client has ended")?;
                let (event, event_id, data): (String, String, String) = serde_json::from_str(&line)?;
                heard.push(Heard { connection: 0, event_id, what: What::read(&event, &data)? });
            }
            Ok(())
        };
        within(id, SOON, read).await
    };
    hear_of(&mut heard, "gone").await?;
    for round in 0..2 {
        put_line_breaks(&site, &format!("live{round}")).await?;
        hear_of(&mut heard, &format!("live{round}")).await?;
        site.server.kill().await?;
        site.put("Patient", &format!("missed{round}")).await?;
        site.delete("Observation", "gone").await?;
        site.server.start_on(address.port()).await?;
        hear_of(&mut heard, &format!("missed{round}")).await?;
    }
    site.put("Patient", "end").await?;
    hear_of(&mut heard, "end").await?;
    let status = until("the client's end", SOON, || {
        let status = child.try_wait();
        async move { Ok(status?) }
    })
    .await?;
    ensure!(status.success(), "{status}");
    let said = |what: &What| match what {
        What::Resource { key, .. } => Some(key.to_string()),
        What::Deletion { key, .. } => Some(format!("-{key}")),
        What::Notice { .. } => None,
    };
    let mut got: Vec<String> = heard.iter().filter_map(|heard| said(&heard.what)).collect();
    got[..2].sort_unstable();
    let expected = [
        "Observation/gone",
        "Patient/before",
        "Patient/live0",
        "Patient/missed0",
        "-Observation/gone",
        "Patient/live1",
        "Patient/missed1",
        "Patient/end",
    ];
    ensure!(got == expected, "{got:?}");
    Ok(())
}

/// Puts a patient whose name has what Unicode calls line breaks, and Server-Sent Events do not.
async fn put_line_breaks(site: &Site, id: &str) -> Result<()> {
    let content = "{\"resourceType\":\"Patient\",\"name\":[{\"text\":\"a\u{85}b\u{2028}c\u{2029}d\"}]}";
    let put = "select fhir.put('Patient', $1, ($2::text)::json)";
    site.sql.execute(put, &[&id, &content]).await?;
    Ok(())
}

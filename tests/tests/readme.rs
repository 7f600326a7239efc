//! The clients that the README shows, run as they stand there, but for the server's address: they hear what was there, what
//! comes, and, when the server was killed, what they missed. Where a runtime is not there they are listed as ignored.

use crate::{clients, documents};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::process::Stdio;
use tests::markdown::Document;
use tests::{Browser, Case, Context, Engine, SOON, Site, cases, until, within};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

pub(crate) fn cases() -> Vec<Case> {
    let needs = |mut cases: Vec<Case>, skip| {
        cases.iter_mut().for_each(|case| case.skip = skip);
        cases
    };
    [
        needs(cases![once curl, once curl_of_a_group], || documents::missing("curl")),
        needs(cases![once python], || clients::missing("FHIR_TAIL_TEST_PYTHON")),
        needs(cases![once node], || clients::missing("FHIR_TAIL_TEST_NODE_MODULES")),
        needs(cases![once java], || documents::missing("java")),
        needs(cases![once browser], || Engine::Chromium.missing()),
    ]
    .concat()
}

/// Where the README's clients look for the server.
const SHOWN: &str = "http://127.0.0.1:8080";

/// The only block of a language that begins so, with the server's address.
fn snippet(site: &Site, language: &str, begins: &str) -> Result<String> {
    let blocks = Document::read("README.md")?.blocks();
    let mut fit = blocks.iter().filter(|block| block.language == language && block.text.starts_with(begins));
    let block = fit.next().with_context(|| format!("the README shows no {language}"))?;
    ensure!(fit.next().is_none(), "the README shows more than one {language}");
    let address = site.server.listening()?;
    Ok(block.text.replace(SHOWN, &format!("http://{address}")))
}

/// A client that is running.
struct Running {
    /// Ends with it.
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let output = child.stdout.take().context("no output")?;
        Ok(Self { _child: child, lines: BufReader::new(output).lines() })
    }

    /// Reads on until a line has a word; all lines up to there.
    async fn hear(&mut self, word: &str) -> Result<Vec<String>> {
        let mut heard = Vec::new();
        let read = async {
            while !heard.last().is_some_and(|line: &String| line.contains(word)) {
                heard.push(self.lines.next_line().await?.context("the client has ended")?);
            }
            Ok(())
        };
        within(word, SOON, read).await?;
        Ok(heard)
    }
}

/// What every client has to hear.
async fn hears(site: &mut Site, client: &mut Running) -> Result<()> {
    client.hear("from-before").await?;
    // A notice is a line that can be read.
    client.hear("notice: the replay has ended; changes follow as they commit").await?;
    site.put("Patient", "alive").await?;
    client.hear("alive").await?;
    let port = site.server.listening()?.port();
    site.server.kill().await?;
    site.put("Patient", "missed").await?;
    site.server.start_on(port).await?;
    let heard = client.hear("missed").await?;
    ensure!(!heard.iter().any(|line| line.contains("alive")), "it heard again: {heard:?}");
    Ok(())
}

async fn site(context: &Context) -> Result<Site> {
    let site = Site::start(context).await?;
    site.ready().await?;
    site.put("Patient", "from-before").await?;
    Ok(site)
}

/// As a file in the test's folder.
fn write(context: &Context, name: &str, text: &str) -> Result<()> {
    Ok(std::fs::write(context.directory().join(name), text)?)
}

/// It does not come back by itself.
async fn curl(context: Context) -> Result<()> {
    let site = site(&context).await?;
    let line = snippet(&site, "sh", &format!("{CURL}/fhir/$export"))?;
    let mut client = Running::start(Command::new("sh").args(["-c", &line]))?;
    client.hear("from-before").await?;
    site.put("Patient", "alive").await?;
    client.hear("alive").await.map(drop)
}

const CURL: &str = "curl -N -H 'Prefer: respond-eventsource' 'http://127.0.0.1:8080";

async fn curl_of_a_group(context: Context) -> Result<()> {
    let site = site(&context).await?;
    let group = r#"select fhir.put('Group', 'payer-blue-heron', '{"resourceType":"Group","type":"person","actual":true,
        "member":[{"entity":{"reference":"Patient/ann"}}]}')"#;
    site.sql.batch_execute(group).await?;
    site.put("Patient", "ann").await?;
    let line = snippet(&site, "sh", &format!("{CURL}/fhir/Group/payer-blue-heron"))?;
    let mut client = Running::start(Command::new("sh").args(["-c", &line]))?;
    client.hear("\"ann\"").await?;
    let gap = r#"select fhir.put('DetectedIssue', 'gap', '{"resourceType":"DetectedIssue","status":"final",
        "patient":{"reference":"Patient/ann"}}')"#;
    site.sql.batch_execute(gap).await?;
    client.hear("\"gap\"").await.map(drop)
}

async fn python(context: Context) -> Result<()> {
    let mut site = site(&context).await?;
    write(&context, "tail.py", &snippet(&site, "python", "")?)?;
    let python = std::env::var_os("FHIR_TAIL_TEST_PYTHON").context("no python")?;
    let mut client = Running::start(Command::new(python).arg("tail.py").current_dir(context.directory()))?;
    hears(&mut site, &mut client).await
}

async fn node(context: Context) -> Result<()> {
    let mut site = site(&context).await?;
    write(&context, "tail.mjs", &snippet(&site, "javascript", "")?)?;
    // Where Node looks for what a module imports.
    let modules = std::env::var_os("FHIR_TAIL_TEST_NODE_MODULES").context("no modules")?;
    std::os::unix::fs::symlink(Path::new(&modules), context.directory().join("node_modules"))?;
    let mut client = Running::start(Command::new("node").arg("tail.mjs").current_dir(context.directory()))?;
    hears(&mut site, &mut client).await
}

async fn java(context: Context) -> Result<()> {
    let mut site = site(&context).await?;
    write(&context, "Tail.java", &snippet(&site, "java", "")?)?;
    let mut client = Running::start(Command::new("java").arg("Tail.java").current_dir(context.directory()))?;
    hears(&mut site, &mut client).await
}

async fn browser(context: Context) -> Result<()> {
    let mut site = site(&context).await?;
    let address = site.server.listening()?;
    let snippet = snippet(&site, "js", "")?;
    let browser = Browser::start(&context, Engine::Chromium).await?;
    browser.open(&format!("http://{address}/fhir/")).await?;
    let handle = "window.heard = []; const handle = (type, resource) => window.heard.push(resource.id);";
    browser.run(&format!("{handle}\n{snippet}")).await?;
    let hear = async |id: &str| {
        let ask = format!("return window.heard.filter((id) => id === '{id}').length");
        until(id, SOON, || async { Ok((browser.run(&ask).await? == 1).then_some(())) }).await
    };
    hear("from-before").await?;
    site.put("Patient", "alive").await?;
    hear("alive").await?;
    site.server.kill().await?;
    site.put("Patient", "missed").await?;
    site.server.start_on(address.port()).await?;
    hear("missed").await?;
    let twice = browser
        .run("return new Set(window.heard.filter(Boolean)).size < window.heard.filter(Boolean).length");
    ensure!(twice.await? == false, "something came twice");
    browser.close().await
}

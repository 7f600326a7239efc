//! `docs/http.md`, run from its beginning to its end against a server: the statements of its `sql` blocks are executed, the
//! requests of its `http` blocks are sent, and what comes is compared with the answer that is shown. A `text` block after an
//! answer is what comes next in that stream.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::http::{self, Response};
use tests::markdown::Document;
use tests::sse::{Item, Parser};
use tests::{Case, Context, Placeholders, SOON, Site, cases, within};

pub(crate) fn cases() -> Vec<Case> {
    cases![each what_is_shown_is_what_comes]
}

async fn what_is_shown_is_what_comes(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.ready().await?;
    let document = Document::read("docs/http.md")?;
    let mut reading = Reading { site: &site, known: Placeholders::default(), answer: None };
    let mut run = 0;
    for block in document.blocks() {
        let result = match block.language.as_str() {
            "sql" => reading.execute(&block.text).await,
            "http" if block.text.starts_with("HTTP/") => reading.answers(&block.text).await,
            "http" => reading.ask(&block.text).await,
            "text" => reading.goes_on(&block.text).await,
            _ => continue,
        };
        result.with_context(|| format!("{}, line {}", document.path, block.line))?;
        run += 1;
    }
    ensure!(run > 20, "only {run} blocks were run: are they still marked sql, http and text?");
    Ok(())
}

/// A document that is being read.
struct Reading<'a> {
    site: &'a Site,
    known: Placeholders,
    /// What the last request was answered with, and what of it was read.
    answer: Option<(Response, Parser)>,
}

impl Reading<'_> {
    async fn execute(&mut self, sql: &str) -> Result<()> {
        self.site.change(sql).await
    }

    async fn ask(&mut self, request: &str) -> Result<()> {
        let address = self.site.server.listening()?;
        let request = self.known.fill(request)?;
        let (head, body) = request.split_once("\n\n").unwrap_or((request.trim_end(), ""));
        let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
        if !lines.iter().any(|line| line.starts_with("Host:")) {
            lines.push(format!("Host: {address}"));
        }
        if !body.is_empty() {
            lines.push(format!("Content-Length: {}", body.len()));
        }
        let request = format!("{}\r\n\r\n{body}", lines.join("\r\n"));
        let response = within("an answer", SOON, http::send(address, &request)).await?;
        self.answer = Some((response, Parser::default()));
        Ok(())
    }

    async fn answers(&mut self, shown: &str) -> Result<()> {
        let (response, _) = self.answer.as_mut().context("an answer is shown before a request")?;
        let (head, body) = shown.split_once("\n\n").unwrap_or((shown.trim_end(), ""));
        let mut lines = head.lines();
        let came = String::from_utf8_lossy(&response.head).into_owned();
        let status = came.lines().next().unwrap_or_default();
        ensure!(lines.next() == Some(status), "{came}");
        for line in lines {
            let (name, value) = line.split_once(": ").with_context(|| format!("no header: {line}"))?;
            let came = response.header(name).with_context(|| format!("no {name} in {came}"))?.to_owned();
            self.known.compare(value, &came).with_context(|| name.to_owned())?;
        }
        if response.header("content-type") == Some("text/event-stream") {
            return self.goes_on(body).await;
        }
        let came = within("the body", SOON, response.body()).await?;
        let came = String::from_utf8(came)?;
        match came.starts_with('{') {
            true if !body.is_empty() => {
                let quoted = body.replace(": <number>", ": \"<number>\"");
                let shown: Value = serde_json::from_str(&quoted).context("what is shown is no JSON")?;
                let result = self.known.compare_json(&shown, &serde_json::from_str(&came)?);
                result.with_context(|| format!("{came} came"))
            }
            true => Ok(()),
            false => self.known.compare(body.trim_end(), came.trim_end()),
        }
    }

    /// Frames and comment lines, as far as they are shown. Comments that are not shown are passed over: they come whenever it is
    /// quiet.
    async fn goes_on(&mut self, shown: &str) -> Result<()> {
        let (response, parser) = self.answer.as_mut().context("a stream is shown before a request")?;
        let mut expected = Parser::default();
        expected.push(format!("{}\n\n", shown.trim_end()).as_bytes());
        while let Some(shown) = expected.next_item() {
            let came = loop {
                let came = within("the next of a stream", SOON, next(response, parser)).await?;
                if matches!(shown, Item::Comment(_)) || matches!(came, Item::Frame(_)) {
                    break came;
                }
            };
            match (&shown, &came) {
                (Item::Comment(shown), Item::Comment(came)) => ensure!(shown == came, "a comment: {came}"),
                (Item::Frame(shown), Item::Frame(came)) => {
                    let names = |frame: &tests::sse::Frame| -> Vec<String> {
                        frame.fields.iter().map(|(name, _)| name.clone()).collect()
                    };
                    ensure!(names(shown) == names(came), "{came:?} came and {shown:?} is shown");
                    for ((name, shown), (_, came)) in shown.fields.iter().zip(&came.fields) {
                        self.known.compare(shown, came).with_context(|| name.clone())?;
                    }
                }
                _ => bail!("{came:?} came and {shown:?} is shown"),
            }
        }
        Ok(())
    }
}

async fn next(response: &mut Response, parser: &mut Parser) -> Result<Item> {
    loop {
        if let Some(item) = parser.next_item() {
            return Ok(item);
        }
        parser.push(&response.next().await?.context("the stream has ended")?);
    }
}

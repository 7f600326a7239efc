//! A real browser, driven by WebDriver (<https://www.w3.org/TR/webdriver2/>) through chromedriver.

use crate::process::Process;
use crate::{Context, SOON, until};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// A headless Chromium with one page. Call [`close`](Self::close) at the end.
pub struct Browser {
    session: String,
    http: reqwest::Client,
    /// Ends the browser with itself.
    _driver: Process,
}

impl Browser {
    /// chromedriver: `FHIR_TAIL_TEST_CHROMEDRIVER`, else in `PATH`.
    pub fn driver() -> Option<PathBuf> {
        let named = std::env::var_os("FHIR_TAIL_TEST_CHROMEDRIVER").map(PathBuf::from);
        let path: OsString = std::env::var_os("PATH").unwrap_or_default();
        let found = || {
            std::env::split_paths(&path).map(|folder| folder.join("chromedriver")).find(|file| file.is_file())
        };
        named.or_else(found)
    }

    /// Starts it.
    pub async fn start(context: &Context) -> Result<Self> {
        let driver = Self::driver().context("no chromedriver")?;
        let (output, log) =
            (context.directory().join("chromedriver.out"), context.directory().join("chromedriver.log"));
        let mut command = Command::new(driver);
        command.arg("--port=0");
        let mut driver = Process::start("chromedriver", Signal::SIGTERM, &mut command, Some(&output), &log)?;
        let port = until("chromedriver", SOON, || {
            let alive = driver.must_run();
            let output = std::fs::read_to_string(&output);
            async move {
                alive?;
                Ok(port(&output?))
            }
        })
        .await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let root = format!("http://127.0.0.1:{port}/session");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let session = post(&http, &root, &wanted).await?;
        let id = session["sessionId"].as_str().with_context(|| format!("no session: {session}"))?;
        Ok(Self { session: format!("{root}/{id}"), http, _driver: driver })
    }

    /// Opens a page.
    pub async fn open(&self, url: &str) -> Result<()> {
        post(&self.http, &format!("{}/url", self.session), &json!({"url": url})).await.map(drop)
    }

    /// Runs a script in the page; what it returns.
    pub async fn run(&self, script: &str) -> Result<Value> {
        let body = json!({"script": script, "args": []});
        post(&self.http, &format!("{}/execute/sync", self.session), &body).await
    }

    /// Closes the browser.
    pub async fn close(self) -> Result<()> {
        self.http.delete(&self.session).send().await?.error_for_status()?;
        Ok(())
    }
}

fn port(output: &str) -> Option<u16> {
    let line = output.lines().find(|line| line.contains("started successfully on port "))?;
    line.rsplit(' ').next()?.trim_end_matches('.').parse().ok()
}

async fn post(http: &reqwest::Client, url: &str, body: &Value) -> Result<Value> {
    let request = http.post(url).header("Content-Type", "application/json").body(body.to_string());
    let text = request.send().await?.text().await?;
    let mut answer: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
    let value = answer["value"].take();
    anyhow::ensure!(value.get("error").is_none(), "WebDriver: {value}");
    Ok(value)
}

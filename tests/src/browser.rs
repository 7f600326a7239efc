//! A real browser, driven by WebDriver BiDi (<https://www.w3.org/TR/webdriver-bidi/>): Chromium through chromedriver,
//! Firefox by itself.

use crate::process::Process;
use crate::{Context, SOON, until, within};
use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Which browser.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// Debian's `chromium`, with `chromium-driver`.
    Chromium,
    /// Debian's `firefox-esr`.
    Firefox,
}

impl Engine {
    /// Why it cannot be used here, if it cannot.
    pub fn missing(self) -> Option<String> {
        self.program().is_none().then(|| format!("{} is not installed", self.programs()[0]))
    }

    /// What speaks the protocol, by its usual names.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Chromium => &["chromedriver"],
            Self::Firefox => &["firefox-esr", "firefox"],
        }
    }

    fn program(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        let in_path = |name: &&str| {
            std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
        };
        self.programs().iter().find_map(in_path)
    }

    /// What it writes before the port that it listens on.
    fn before_port(self) -> &'static str {
        match self {
            Self::Chromium => "started successfully on port ",
            Self::Firefox => "WebDriver BiDi listening on ws://127.0.0.1:",
        }
    }

    fn command(self, home: &std::path::Path) -> Result<Command> {
        let mut command = Command::new(self.program().with_context(|| format!("no {self:?}"))?);
        // Whatever they keep, they keep in the test's folder; all of their processes can be ended together.
        command.env("HOME", home).process_group(0);
        match self {
            Self::Chromium => command.arg("--port=0"),
            Self::Firefox => {
                let profile = home.join("profile");
                std::fs::create_dir(&profile)?;
                std::fs::write(profile.join("user.js"), FIREFOX)?;
                command
                    .args(["--headless", "--no-remote", "--remote-debugging-port=0", "--profile"])
                    .arg(profile)
            }
        };
        Ok(command)
    }

    /// What a session of it is asked for.
    fn capabilities(self, home: &std::path::Path) -> Value {
        match self {
            Self::Chromium => {
                let profile = format!("--user-data-dir={}", home.join("profile").display());
                let arguments: Vec<&str> = CHROMIUM.iter().copied().chain([profile.as_str()]).collect();
                json!({"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}})
            }
            Self::Firefox => json!({}),
        }
    }
}

/// Headless, as any user, and without a word to anybody.
const CHROMIUM: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
];

/// The same for Firefox.
const FIREFOX: &str = r#"
user_pref("network.proxy.type", 0);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("app.update.auto", false);
user_pref("app.normandy.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("services.settings.server", "data:,#remote-settings-dummy/v1");
"#;

/// The Tab key, for [`Browser::press`].
pub const TAB: &str = "\u{e004}";
/// The Enter key.
pub const ENTER: &str = "\u{e007}";

/// A tab or a window of a [`Browser`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenPage(String);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A headless browser. What is asked of it is asked of the page that it has turned to. Call [`close`](Self::close) at the end.
pub struct Browser {
    connection: Mutex<(Socket, u64)>,
    page: String,
    home: PathBuf,
    process: Process,
    left_behind: LeftBehind,
}

/// The processes that a browser leaves behind when it is ended (its renderers, and chromedriver its Chromium) and that would go
/// on writing into its folder: this ends them too.
struct LeftBehind(Vec<Pid>);

impl Drop for LeftBehind {
    fn drop(&mut self) {
        for &id in &self.0 {
            // They may have ended by themselves, and need not be the first of their group.
            let _ = killpg(id, Signal::SIGKILL);
            let _ = kill(id, Signal::SIGKILL);
        }
    }
}

impl Browser {
    /// Starts it.
    pub async fn start(context: &Context, engine: Engine) -> Result<Self> {
        let home = context.directory().join("browser");
        std::fs::create_dir(&home)?;
        let (output, log) = (home.join("out"), context.directory().join("browser.log"));
        let mut command = engine.command(&home)?;
        let mut process = Process::start("the browser", Signal::SIGTERM, &mut command, Some(&output), &log)?;
        let port = until("the browser", SOON, || {
            let alive = process.must_run();
            let written = [&output, &log].map(std::fs::read_to_string);
            async move {
                alive?;
                let [output, log] = written;
                Ok(port(engine.before_port(), &(output? + &log?)))
            }
        })
        .await?;
        let (socket, _) = connect_async(format!("ws://127.0.0.1:{port}/session")).await?;
        let connection = Mutex::new((socket, 0));
        let left_behind = LeftBehind(vec![Pid::from_raw(process.id().try_into()?)]);
        let mut browser = Self { connection, page: String::new(), home: home.clone(), process, left_behind };
        let wanted = json!({"capabilities": engine.capabilities(&home)});
        let session = browser.call("session.new", wanted).await?;
        if let Some(id) = session["capabilities"]["goog:processID"].as_i64() {
            browser.left_behind.0.push(Pid::from_raw(id.try_into()?));
        }
        let tree = browser.call("browsingContext.getTree", json!({})).await?;
        browser.page = tree["contexts"][0]["context"].as_str().context("no page")?.to_owned();
        Ok(browser)
    }

    /// Closes it, and waits until it has let go of its folder.
    pub async fn close(self) -> Result<()> {
        self.call("browser.close", json!({})).await?;
        drop(self.process);
        drop(self.left_behind);
        until("the browser to let go of its folder", SOON, || async {
            Ok(std::fs::remove_dir_all(&self.home).is_ok().then_some(()))
        })
        .await
    }

    /// Opens another tab, or another window, and turns to it; the one before.
    pub async fn another(&mut self, kind: &str) -> Result<OpenPage> {
        let created = self.call("browsingContext.create", json!({"type": kind})).await?;
        let page = created["context"].as_str().context("no page")?.to_owned();
        Ok(OpenPage(std::mem::replace(&mut self.page, page)))
    }

    /// Turns to a page that is open.
    pub async fn turn_to(&mut self, page: &OpenPage) -> Result<()> {
        self.page.clone_from(&page.0);
        self.call("browsingContext.activate", json!({"context": self.page})).await?;
        Ok(())
    }

    /// Closes a page to which it has not turned.
    pub async fn close_page(&self, page: OpenPage) -> Result<()> {
        self.call("browsingContext.close", json!({"context": page.0})).await?;
        Ok(())
    }

    /// The page that it has turned to.
    pub fn current(&self) -> OpenPage {
        OpenPage(self.page.clone())
    }

    /// Opens a page, and waits until it is loaded.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.call("browsingContext.navigate", json!({"context": self.page, "url": url, "wait": "complete"}))
            .await?;
        Ok(())
    }

    /// Runs the body of an async function in the page; what it returns.
    pub async fn run(&self, script: &str) -> Result<Value> {
        let expression =
            format!("(async () => JSON.stringify((await (async () => {{{script}}})()) ?? null))()");
        let target = json!({"context": self.page});
        let parameters = json!({"expression": expression, "target": target, "awaitPromise": true});
        let answer = self.call("script.evaluate", parameters).await?;
        match answer["result"]["value"].as_str() {
            Some(text) => Ok(serde_json::from_str(text)?),
            None => bail!("the page throws: {}", answer["exceptionDetails"]["text"]),
        }
    }

    /// Waits until this, the body of a function, returns true.
    pub async fn sees(&self, what: &str, script: &str) -> Result<()> {
        let seen = until(what, SOON, || async { Ok((self.run(script).await? == true).then_some(())) }).await;
        match seen {
            Ok(()) => Ok(()),
            Err(error) => {
                let text = self.run("return document.body.innerText").await?;
                Err(error.context(format!("the page has: {}", text.as_str().unwrap_or_default())))
            }
        }
    }

    /// Presses keys, one after the other.
    pub async fn press(&self, keys: &str) -> Result<()> {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|action| json!({"type": action, "value": key.to_string()}))
            })
            .collect();
        let keyboard = json!([{"type": "key", "id": "keyboard", "actions": actions}]);
        self.call("input.performActions", json!({"context": self.page, "actions": keyboard})).await?;
        Ok(())
    }

    /// Gives the page a size in CSS pixels.
    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let viewport = json!({"width": width, "height": height});
        self.call("browsingContext.setViewport", json!({"context": self.page, "viewport": viewport})).await?;
        Ok(())
    }

    /// As if its user liked it `dark` or `light`. Chromium only: the standard has no word for it yet.
    pub async fn prefer(&self, scheme: &str) -> Result<()> {
        let session =
            self.call("goog:cdp.getSession", json!({"context": self.page})).await?["session"].take();
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let parameters = json!({"method": "Emulation.setEmulatedMedia", "params": {"features": features}, "session": session});
        self.call("goog:cdp.sendCommand", parameters).await?;
        Ok(())
    }

    async fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        let mut connection = self.connection.lock().await;
        let (socket, id) = &mut *connection;
        *id += 1;
        let id = *id;
        let command = json!({"id": id, "method": method, "params": parameters});
        let answer = async {
            socket.send(Message::text(command.to_string())).await?;
            while let Some(message) = socket.next().await {
                let Message::Text(text) = message? else { continue };
                let mut answer: Value = serde_json::from_str(&text)?;
                if answer["id"] != id {
                    continue;
                }
                if answer["type"] == "error" {
                    bail!("{}: {}", answer["error"], answer["message"]);
                }
                return Ok(answer["result"].take());
            }
            bail!("the browser has closed the connection")
        };
        within(method, SOON, answer).await
    }
}

fn port(before: &str, output: &str) -> Option<u16> {
    let (_, after) = output.split_once(before)?;
    // The whole number: what follows it has been written too.
    let end = after.find(|letter: char| !letter.is_ascii_digit())?;
    after[..end].parse().ok()
}

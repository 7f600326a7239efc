//! `EventSource` in a browser: no headers of its own, coming back by itself, and never from any status but 200.

use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use tests::{Browser, Case, Context, Engine, Heard, SOON, Site, What, cases, until};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = cases![once a_page_that_listens, once a_page_with_the_polyfill];
    let [native, polyfill] = &mut cases[..] else { return cases };
    native.skip = || Engine::Chromium.missing();
    polyfill.skip = || Engine::Chromium.missing().or_else(|| polyfill_script().err());
    cases
}

/// The script of `event-source-polyfill`, from the `node_modules` that `FHIR_TAIL_TEST_NODE_MODULES` names.
fn polyfill_script() -> Result<String, String> {
    let modules =
        std::env::var_os("FHIR_TAIL_TEST_NODE_MODULES").ok_or("FHIR_TAIL_TEST_NODE_MODULES is not set")?;
    let script = Path::new(&modules).join("event-source-polyfill/src/eventsource.min.js");
    std::fs::read_to_string(&script).map_err(|error| format!("{}: {error}", script.display()))
}

const LISTEN: &str = "
    window.heard = [];
    window.source = new EventSource('/fhir/$export?_type=Patient,Observation');
    const hear = (event) => window.heard.push([event.type, event.lastEventId, event.data]);
    for (const type of ['Patient', 'Observation', 'Bundle', 'OperationOutcome']) source.addEventListener(type, hear);
    source.onmessage = hear;";

const LISTEN_ANEW: &str = "
    window.anew = [];
    window.other = new EventSource('/fhir/Encounter/$export');
    for (const type of ['Encounter', 'OperationOutcome']) {
        other.addEventListener(type, (event) => window.anew.push([event.type, event.data]));
    }";

struct Page {
    browser: Browser,
    heard: Vec<Heard>,
}

impl Page {
    /// Collects what the page has heard until this is so.
    async fn hear(&mut self, what: &str, done: impl Fn(&[Heard]) -> bool) -> Result<()> {
        let (browser, heard) = (&self.browser, std::sync::Mutex::new(&mut self.heard));
        let collect = || async {
            let new = browser.run("return [window.source.readyState, window.heard.splice(0)]").await?;
            ensure!(new[0] != 2, "the page has given up");
            let mut heard = heard.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
            for event in new[1].as_array().context("no array")? {
                let field = |index: usize| event[index].as_str().context("no string");
                let what = What::read(field(0)?, field(2)?)?;
                heard.push(Heard { connection: 0, event_id: field(1)?.to_owned(), what });
            }
            Ok(done(&heard).then_some(()))
        };
        let result = until(what, SOON, collect).await;
        result.with_context(|| format!("{:#?}", self.heard))
    }

    async fn hear_of(&mut self, id: &str) -> Result<()> {
        self.hear(id, |heard| heard.iter().any(|heard| heard.what.key().is_some_and(|key| key.id == id)))
            .await
    }
}

async fn a_page_that_listens(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    site.put("Patient", "before").await?;
    let address = site.server.listening()?;
    let mut page = Page { browser: Browser::start(&context, Engine::Chromium).await?, heard: vec![] };
    // Of our own origin: to another the browser would not show anything.
    page.browser.open(&format!("http://{address}/fhir/")).await?;
    page.browser.run(LISTEN).await?;
    page.hear_of("before").await?;
    page.hear("live", |heard| heard.iter().any(|heard| heard.what.code() == Some("live"))).await?;
    site.put("Patient", "live").await?;
    page.hear_of("live").await?;

    // Killed, and stopped with its last word.
    site.server.kill().await?;
    site.put("Patient", "missed").await?;
    site.server.start_on(address.port()).await?;
    page.hear_of("missed").await?;
    site.server.terminate(SOON).await?;
    site.delete("Patient", "missed").await?;
    site.put("Encounter", "of-another-type").await?;
    site.server.start_on(address.port()).await?;
    site.put("Patient", "again").await?;
    page.hear_of("again").await?;

    // Started while its database is away: who has a position is served from the journal; who has none must be told in a
    // way that a browser comes back from.
    site.server.kill().await?;
    site.cluster.stop_fast().await?;
    site.server.start_on(address.port()).await?;
    page.browser.run(LISTEN_ANEW).await?;
    let refused = "return window.anew.some(([type, data]) => type === 'OperationOutcome' && data.includes('transient'))";
    page.browser.sees("a refusal that passes", refused).await?;
    site.cluster.start_again().await?;
    site.sql = site.cluster.connect().await?;
    site.put("Patient", "end").await?;
    page.hear_of("end").await?;
    page.browser.sees("the state", "return window.anew.some(([type]) => type === 'Encounter')").await?;

    let said = |what: &What| match what {
        What::Resource { key, .. } => Some(key.id.clone()),
        What::Deletion { key, .. } => Some(format!("-{}", key.id)),
        What::Notice { .. } => None,
    };
    let got: Vec<String> = page.heard.iter().filter_map(|heard| said(&heard.what)).collect();
    ensure!(got == ["before", "live", "missed", "-missed", "again", "end"], "{:#?}", page.heard);
    page.browser.close().await
}

/// It sends a header, and gives the last id back in the URL, also where that has one already.
async fn a_page_with_the_polyfill(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    site.put("Patient", "before").await?;
    let address = site.server.listening()?;
    let mut page = Page { browser: Browser::start(&context, Engine::Chromium).await?, heard: vec![] };
    page.browser.open(&format!("http://{address}/fhir/")).await?;
    page.browser.run(&polyfill_script().map_err(anyhow::Error::msg)?).await?;
    let listen = |url: &str| {
        LISTEN
            .replace(
                "new EventSource('/fhir/$export?_type=Patient,Observation')",
                &format!(
                    "new EventSourcePolyfill('{url}', {{ headers: {{ Authorization: 'Bearer none' }} }})"
                ),
            )
            .replace("window.heard = [];", "window.source?.close(); window.heard = [];")
    };
    let url = "/fhir/$export?_type=Patient,Observation";
    let script = listen(url);
    ensure!(script.contains("EventSourcePolyfill"), "{script}");
    page.browser.run(&script).await?;
    page.hear_of("before").await?;
    for round in 0..2 {
        site.server.kill().await?;
        site.put("Patient", &format!("missed{round}")).await?;
        site.server.start_on(address.port()).await?;
        page.hear_of(&format!("missed{round}")).await?;
        // As an application does that has kept an id: from then on the polyfill's is the newer one.
        let kept = page.heard.last().context("nothing was heard")?.event_id.clone();
        page.browser.run(&listen(&format!("{url}&_lastEventId={kept}"))).await?;
        site.put("Patient", &format!("live{round}")).await?;
        page.hear_of(&format!("live{round}")).await?;
    }
    let got: Vec<&str> =
        page.heard.iter().filter_map(|heard| heard.what.key()).map(|key| key.id.as_str()).collect();
    ensure!(got == ["before", "missed0", "live0", "missed1", "live1"], "{:#?}", page.heard);
    ensure!(
        !page.heard.iter().any(|heard| heard.what.code().is_some_and(|code| code.starts_with("reset"))),
        "{:#?}",
        page.heard
    );
    page.browser.close().await
}

//! Many tabs and windows with the page, over HTTP/1.1, where a browser opens six connections to one host: each page shows what
//! there is, or says what it waits for.

use crate::page::{LIVE, Watched};
use anyhow::{Result, ensure};
use tests::{Case, Context, Engine, OpenPage, SOON, cases, put, until};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = cases![once seven_tabs, once seven_windows];
    cases.iter_mut().for_each(|case| case.skip = || Engine::Chromium.missing());
    cases
}

/// Of these only one is seen at a time.
async fn seven_tabs(context: Context) -> Result<()> {
    let mut watched = Watched::start(&context, Engine::Chromium).await?;
    let url = format!("http://{}/", watched.site.server.listening()?);
    let mut tabs: Vec<OpenPage> = Vec::new();
    for tab in 2..=7 {
        tabs.push(watched.browser.another("tab").await?);
        watched.browser.open(&url).await?;
        watched.browser.sees(&format!("tab {tab} live"), LIVE).await?;
    }
    put(&watched.site.sql, "Observation", "missed", 1).await?;
    watched.newest("missed").await?;
    // Those that nobody sees have let go of theirs.
    until("the streams of one page", SOON, || async {
        Ok((watched.site.metric("fhir_tail_streams_open").await? == 2.0).then_some(()))
    })
    .await?;
    for tab in [&tabs[0], &tabs[5]] {
        watched.browser.turn_to(tab).await?;
        watched.browser.sees("a tab that is seen again", LIVE).await?;
        watched.newest("missed").await?;
        let shown = watched.shown().await?;
        ensure!(shown.iter().filter(|id| *id == "missed").count() == 1, "{shown:?}");
    }
    put(&watched.site.sql, "Observation", "live", 1).await?;
    watched.newest("live").await?;
    watched.browser.close().await
}

/// Of these all are seen.
async fn seven_windows(context: Context) -> Result<()> {
    let mut watched = Watched::start(&context, Engine::Chromium).await?;
    let url = format!("http://{}/", watched.site.server.listening()?);
    let mut windows: Vec<OpenPage> = Vec::new();
    for _ in 2..=7 {
        windows.push(watched.browser.another("window").await?);
        watched.browser.open(&url).await?;
        let visible = watched.browser.run("return document.visibilityState").await?;
        ensure!(visible == "visible", "this browser shows one window at a time: {visible}");
    }
    windows.push(watched.browser.current());
    let says = "return document.getElementById('state').textContent === 'Waiting'
        && document.getElementById('state-detail').textContent.includes('connections')";
    for window in &windows[2..] {
        watched.browser.turn_to(window).await?;
        watched.browser.sees("what it waits for", says).await?;
    }
    // As they are closed, the others come to their turn.
    put(&watched.site.sql, "Observation", "missed", 1).await?;
    while windows.len() > 1 {
        let closed = windows.remove(0);
        watched.browser.close_page(closed).await?;
    }
    watched.browser.sees("live", LIVE).await?;
    watched.newest("missed").await?;
    watched.browser.close().await
}

//! The page at the root, in real browsers: what it shows, what can be done with it, that it comes back, and that everybody
//! can use it. What of it needs no browser is tried by Node, in `crates/dashboard/tests/page`.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use tests::{Browser, Case, Context, ENTER, Engine, Nginx, SOON, Site, TAB, cases, put};
use tokio_postgres::Client as Sql;

pub(crate) fn cases() -> Vec<Case> {
    let needs = |mut cases: Vec<Case>, skip| {
        cases.iter_mut().for_each(|case| case.skip = skip);
        cases
    };
    [
        needs(cases![once its_logic], || (!has_node()).then(|| "node is not installed".to_owned())),
        needs(
            cases![once what_it_shows, once what_can_be_done_with_it, once a_board_of_a_group, once a_flood, once a_journal_that_is_lost, once a_database_that_is_away],
            || Engine::Chromium.missing(),
        ),
        needs(cases![once it_comes_back_in_chromium], || Engine::Chromium.missing().or_else(Nginx::missing)),
        needs(cases![once it_comes_back_in_firefox], || Engine::Firefox.missing().or_else(Nginx::missing)),
        needs(cases![once everybody_can_use_it], || Engine::Chromium.missing().or_else(|| axe().err())),
    ]
    .concat()
}

fn has_node() -> bool {
    Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The script of axe-core, from the `node_modules` that `FHIR_TAIL_TEST_NODE_MODULES` names.
fn axe() -> Result<String, String> {
    let modules =
        std::env::var_os("FHIR_TAIL_TEST_NODE_MODULES").ok_or("FHIR_TAIL_TEST_NODE_MODULES is not set")?;
    let script = Path::new(&modules).join("axe-core/axe.min.js");
    std::fs::read_to_string(&script).map_err(|error| format!("{}: {error}", script.display()))
}

async fn its_logic(_: Context) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/dashboard/tests/page");
    let output = tokio::process::Command::new("node")
        .args(["--test", "--test-reporter=tap"])
        .current_dir(folder)
        .output()
        .await?;
    let wrote = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{wrote}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(wrote.contains("\n# pass ") && !wrote.contains("\n# pass 0\n"), "no test was run: {wrote}");
    Ok(())
}

const NAME: &str = r#"<img src=x onerror="window.harmed = true"> & "O'Neil""#;
pub(crate) const LIVE: &str =
    "return ['live', 'resumed'].includes(document.getElementById('state').dataset.state)";

/// A site, and a browser that shows its page.
pub(crate) struct Watched {
    pub(crate) site: Site,
    pub(crate) browser: Browser,
}

impl Watched {
    /// A patient with an open gap; the page is live.
    pub(crate) async fn start(context: &Context, engine: Engine) -> Result<Self> {
        let site = Site::start(context).await?;
        let name = json!({"resourceType": "Patient", "name": [{"text": NAME}]});
        write(&site.sql, "Patient", "p1", &name).await?;
        let measure = json!({"resourceType": "Measure", "url": "http://example.org/Measure/crc", "title": "<b>Screening</b>"});
        write(&site.sql, "Measure", "crc", &measure).await?;
        write(&site.sql, "MeasureReport", "r1", &report("2026-01-10")).await?;
        write(&site.sql, "DetectedIssue", "i1", &issue("r1", "open-gap")).await?;
        let watched = Self { site, browser: Browser::start(context, engine).await? };
        watched.open(&watched.site.server.listening()?.to_string()).await?;
        Ok(watched)
    }

    async fn open(&self, host: &str) -> Result<()> {
        self.browser.open(&format!("http://{host}/")).await?;
        self.browser.sees("live", LIVE).await?;
        self.counts("the state", [1, 0, 0]).await
    }

    /// Waits until the board of the one measure has these: open, closed, prospective.
    async fn counts(&self, what: &str, counts: [u32; 3]) -> Result<()> {
        let script = format!(
            "const cells = [...document.querySelectorAll('#measures td.number')];
             return JSON.stringify(cells.map((cell) => Number(cell.textContent))) === '{counts:?}'.replaceAll(' ', '')"
        );
        self.browser.sees(what, &script).await
    }

    /// Waits until the newest resource that is shown is this one.
    pub(crate) async fn newest(&self, id: &str) -> Result<()> {
        let script = format!("return document.querySelector('#resources li')?.dataset.id === '{id}'");
        self.browser.sees(id, &script).await
    }

    /// The ids of what is shown, the newest first; `-` before that of a deletion.
    pub(crate) async fn shown(&self) -> Result<Vec<String>> {
        let script = "return [...document.querySelectorAll('#resources li')].map((item) =>
            (item.querySelector('.deleted') ? '-' : '') + item.dataset.id)";
        Ok(serde_json::from_value(self.browser.run(script).await?)?)
    }

    /// Waits until the newest flip of a gap has this text in it.
    pub(crate) async fn flipped(&self, change: &str) -> Result<()> {
        let script =
            format!("return document.querySelector('#flips li')?.textContent.includes({})", json!(change));
        self.browser.sees(change, &script).await
    }

    /// Presses Tab until an element has the focus.
    async fn tab_to(&self, selector: &str) -> Result<()> {
        let focused = format!("return document.activeElement.matches({})", json!(selector));
        for _ in 0..80 {
            if self.browser.run(&focused).await? == true {
                return Ok(());
            }
            self.browser.press(TAB).await?;
        }
        anyhow::bail!("80 times Tab do not lead to {selector}")
    }
}

pub(crate) async fn write(sql: &Sql, resource_type: &str, id: &str, content: &Value) -> Result<()> {
    write_text(sql, resource_type, id, &content.to_string()).await
}

async fn write_text(sql: &Sql, resource_type: &str, id: &str, content: &str) -> Result<()> {
    sql.execute("select fhir.put($1, $2, ($3::text)::json)", &[&resource_type, &id, &content]).await?;
    Ok(())
}

fn report(date: &str) -> Value {
    json!({
        "resourceType": "MeasureReport", "status": "complete", "type": "individual", "date": date,
        "measure": "http://example.org/Measure/crc|2.0.0", "subject": {"reference": "Patient/p1"},
        "period": {"start": "2026-01-01", "end": "2026-12-31"},
    })
}

pub(crate) fn issue(report: &str, status: &str) -> Value {
    let coding = json!({"coding": [{"system": "http://hl7.org/fhir/uv/deqm/CodeSystem/deqm-gaps-status", "code": status}]});
    let url = "http://hl7.org/fhir/uv/deqm/StructureDefinition/deqm-gapStatus";
    json!({
        "resourceType": "DetectedIssue", "status": "final", "patient": {"reference": "Patient/p1"},
        "modifierExtension": [{"url": url, "valueCodeableConcept": coding}],
        "evidence": [{"detail": [{"reference": format!("MeasureReport/{report}")}]}],
    })
}

async fn what_it_shows(context: Context) -> Result<()> {
    let watched = Watched::start(&context, Engine::Chromium).await?;
    let (sql, browser) = (&watched.site.sql, &watched.browser);
    // They are drawn with the next picture, which may be after the notice that they are all there.
    browser.sees("the four", "return document.querySelectorAll('#resources li').length >= 4").await?;
    let shown: std::collections::BTreeSet<String> = watched.shown().await?.into_iter().collect();
    ensure!(shown == ["crc", "i1", "p1", "r1"].map(str::to_owned).into(), "{shown:?}");

    // A gap closes by an update of its issue, and opens again by a new one with a new report.
    write(sql, "DetectedIssue", "i1", &issue("r1", "closed-gap")).await?;
    watched.flipped(&format!("{NAME}open→closed<b>Screening</b>, 2026")).await?;
    watched.counts("closed", [0, 1, 0]).await?;
    sql.batch_execute("begin").await?;
    write(sql, "DetectedIssue", "i2", &issue("r2", "open-gap")).await?;
    write(sql, "MeasureReport", "r2", &report("2026-02-10")).await?;
    sql.batch_execute("commit").await?;
    watched.flipped("closed→open").await?;
    watched.counts("open", [1, 0, 0]).await?;
    watched.site.delete("DetectedIssue", "i2").await?;
    watched.flipped("open→closed").await?;
    watched.counts("what was before the one that was deleted", [0, 1, 0]).await?;
    watched.newest("i2").await?;
    ensure!(watched.shown().await?[0] == "-i2", "{:?}", watched.shown().await?);

    // A resource opens to its text as it was written, but for white space.
    let text = r#"{"resourceType":"Observation","status":"final","b":"</script><i>","valueQuantity":{"value":1.50,"a":1e-7}}"#;
    write_text(sql, "Observation", "o1", text).await?;
    watched.newest("o1").await?;
    let line = browser.run("return document.querySelector('#resources .what').textContent").await?;
    ensure!(line == "1.50 · final", "{line}");
    browser.run("document.querySelector('#resources summary').click()").await?;
    browser.sees("its JSON", "return document.querySelector('#resources pre') !== null").await?;
    let json = browser.run("return document.querySelector('#resources pre').textContent").await?;
    let json = json.as_str().context("no text")?;
    ensure!(
        json.contains("\n    \"value\": 1.50,\n    \"a\": 1e-7\n") && json.contains("</script><i>"),
        "{json}"
    );

    let harmed =
        "return window.harmed === undefined && document.querySelector('img, b, i, main script') === null";
    ensure!(browser.run(harmed).await? == true, "what is in a resource became markup");
    let latency = "return /^[\\d.,]+ (ms|s)$/.test(document.getElementById('latency').textContent)";
    browser.sees("a latency", latency).await?;
    let rates = "return [...document.querySelectorAll('#legend li')].some((item) => item.textContent.startsWith('DetectedIssue'))";
    browser.sees("the chart's legend", rates).await?;
    watched.browser.close().await
}

async fn what_can_be_done_with_it(context: Context) -> Result<()> {
    let watched = Watched::start(&context, Engine::Chromium).await?;
    let browser = &watched.browser;
    for id in ["a", "b"] {
        put(&watched.site.sql, "Observation", id, 1).await?;
    }
    watched.newest("b").await?;

    // All of it by keyboard. The filter: another stream, whose URL is shown.
    watched.tab_to("input[value=Observation]").await?;
    browser.press(" ").await?;
    let url = "const url = document.getElementById('url').textContent;
        return url.startsWith(`${location.origin}/fhir/$export?_type=Observation&_since=`)
            && document.getElementById('curl').textContent.endsWith(` '${url}'`)
            && new URLSearchParams(location.search).get('_type') === 'Observation'";
    browser.sees("the URL of the filtered stream", url).await?;
    browser.sees("live again", LIVE).await?;
    put(&watched.site.sql, "Patient", "not-asked-for", 1).await?;
    put(&watched.site.sql, "Observation", "c", 1).await?;
    watched.newest("c").await?;
    ensure!(watched.shown().await? == ["c", "b", "a"], "{:?}", watched.shown().await?);

    // Pause and resume: nothing is missed, nothing comes twice; and the board hears of what is filtered out.
    browser.run("document.activeElement.blur()").await?;
    watched.tab_to("#pause").await?;
    browser.press(ENTER).await?;
    browser.sees("paused", "return document.getElementById('state').textContent === 'Paused'").await?;
    put(&watched.site.sql, "Observation", "d", 1).await?;
    watched.site.delete("Observation", "a").await?;
    put(&watched.site.sql, "Observation", "e", 1).await?;
    write(&watched.site.sql, "DetectedIssue", "i1", &issue("r1", "closed-gap")).await?;
    browser.press(ENTER).await?;
    watched.newest("e").await?;
    let expected = ["e", "-a", "d", "c", "b", "a"];
    ensure!(watched.shown().await? == expected, "{:?}", watched.shown().await?);
    watched.flipped("open→closed").await?;

    // While one is read the list stands still.
    watched.tab_to("#resources summary").await?;
    browser.press(ENTER).await?;
    browser.sees("open", "return document.querySelector('#resources details').open").await?;
    put(&watched.site.sql, "Observation", "f", 1).await?;
    browser
        .sees("word of it", "return document.getElementById('newer').textContent === 'Show 1 newer'")
        .await?;
    ensure!(watched.shown().await? == expected, "{:?}", watched.shown().await?);
    browser.run("document.getElementById('newer').focus()").await?;
    browser.press(ENTER).await?;
    watched.newest("f").await?;

    // What is no instant is said; all is replayed on demand.
    browser.run("const since = document.getElementById('since'); since.focus(); since.select()").await?;
    browser.press(&format!("2026-01-31{ENTER}")).await?;
    let problem =
        "return document.getElementById('since-problem').textContent.includes('2026-01-31T09:30:00Z')";
    browser.sees("the problem", problem).await?;
    watched.tab_to("#replay-all").await?;
    browser.press(ENTER).await?;
    let all = "return document.getElementById('url').textContent.endsWith('/fhir/$export?_type=Observation')
        && document.getElementById('since-problem').textContent === ''";
    browser.sees("the URL of everything", all).await?;
    browser.sees("everything", "return document.querySelectorAll('#resources li').length === 5").await?;
    watched.browser.close().await
}

/// The board of a Group's members, as they leave and come.
async fn a_board_of_a_group(context: Context) -> Result<()> {
    let watched = Watched::start(&context, Engine::Chromium).await?;
    let (sql, browser) = (&watched.site.sql, &watched.browser);
    let members = |ids: &[&str]| {
        let member = |id: &&str| json!({"entity": {"reference": format!("Patient/{id}")}});
        json!({"resourceType": "Group", "type": "person", "actual": true, "active": true,
            "member": ids.iter().map(member).collect::<Vec<_>>()})
    };
    let of = |patient: &str| {
        let mut report = report("2026-01-10");
        report["subject"]["reference"] = json!(format!("Patient/{patient}"));
        report
    };
    for (patient, report, gap) in [("p2", "r2", "i2"), ("p3", "r3", "i3")] {
        write(sql, "Patient", patient, &json!({"resourceType": "Patient"})).await?;
        write(sql, "MeasureReport", report, &of(patient)).await?;
        write(sql, "DetectedIssue", gap, &about(issue(report, "open-gap"), patient)).await?;
    }
    write(sql, "DetectedIssue", "i1", &about(issue("r1", "open-gap"), "p1")).await?;
    write(sql, "Group", "plan", &members(&["p1", "p2"])).await?;
    watched.counts("everybody's", [3, 0, 0]).await?;

    // By keyboard; the page's address has it.
    browser.run("document.getElementById('board-group').focus()").await?;
    browser.press(&format!("plan{ENTER}")).await?;
    watched.counts("those of the members", [2, 0, 0]).await?;
    let titled = "return document.querySelector('#measures .title').textContent === '<b>Screening</b>'
        && new URLSearchParams(location.search).get('board') === 'plan'
        && new URLSearchParams(location.search).has('_since')";
    browser.sees("the measure's title, and the Group in the address", titled).await?;
    write(sql, "Group", "plan", &members(&["p1"])).await?;
    watched.counts("one leaves", [1, 0, 0]).await?;
    watched.flipped("open→removed").await?;
    write(sql, "Group", "plan", &members(&["p1", "p2", "p3"])).await?;
    watched.counts("two come", [3, 0, 0]).await?;
    watched.flipped("new→open").await?;
    browser.open(&format!("http://{}/?board=plan", watched.site.server.listening()?)).await?;
    watched.counts("the same after loading the page anew", [3, 0, 0]).await?;

    // A Group that is not there is said, and everybody's are there again without one.
    let choose = |group: &str| {
        format!(
            "const box = document.getElementById('board-group'); box.value = {}; box.dispatchEvent(new Event('change'))",
            json!(group)
        )
    };
    browser.run(&choose("nobody's")).await?;
    let invalid = "return document.getElementById('board-problem').textContent.includes('payer-blue-heron')";
    browser.sees("that it is no id", invalid).await?;
    browser.run(&choose("plans")).await?;
    let unknown = "const said = document.getElementById('board-detail').textContent;
        return said.includes('404') && said.includes('plans')";
    browser.sees("that there is no such Group", unknown).await?;
    browser.run(&choose("")).await?;
    watched.counts("everybody's again", [3, 0, 0]).await?;
    watched.browser.close().await
}

/// A gap that is about a patient: only so it comes to who listens to her.
fn about(mut gap: Value, patient: &str) -> Value {
    gap["patient"] = json!({"reference": format!("Patient/{patient}")});
    gap
}

/// Thousands at once: the page goes on, and holds no more than it shows.
async fn a_flood(context: Context) -> Result<()> {
    let watched = Watched::start(&context, Engine::Chromium).await?;
    let flood = "insert into fhir.resource (resource_type, id, content) \
        select 'Observation', 'o' || i, '{\"resourceType\":\"Observation\",\"status\":\"final\"}' from generate_series(1, 20000) i";
    watched.site.sql.batch_execute(flood).await?;
    put(&watched.site.sql, "Patient", "after", 1).await?;
    watched.newest("after").await?;
    let counted = "return document.getElementById('events').textContent === '20,005'
        && document.querySelectorAll('#resources li').length === 25";
    watched.browser.sees("all of them, counted", counted).await?;
    watched.browser.close().await
}

async fn it_comes_back_in_chromium(context: Context) -> Result<()> {
    it_comes_back(context, Engine::Chromium).await
}

async fn it_comes_back_in_firefox(context: Context) -> Result<()> {
    it_comes_back(context, Engine::Firefox).await
}

/// The server is killed and started under the page: directly, and behind a proxy that answers 502 meanwhile, from which no
/// EventSource comes back by itself.
async fn it_comes_back(context: Context, engine: Engine) -> Result<()> {
    let mut watched = Watched::start(&context, engine).await?;
    let direct = watched.site.server.listening()?;
    let nginx = Nginx::start(&context, direct).await?;
    for (way, host) in [("direct", direct), ("proxied", nginx.address())] {
        write(&watched.site.sql, "DetectedIssue", "i1", &issue("r1", "open-gap")).await?;
        watched.open(&host.to_string()).await?;
        put(&watched.site.sql, "Observation", &format!("{way}-live"), 1).await?;
        watched.newest(&format!("{way}-live")).await?;
        watched.site.server.kill().await?;
        let lost = "return document.getElementById('state').dataset.state === 'reconnecting'";
        watched.browser.sees("the loss", lost).await?;
        if way == "proxied" {
            let refused = "return document.getElementById('state-detail').textContent.includes('502')";
            watched.browser.sees("why", refused).await?;
        }
        put(&watched.site.sql, "Observation", &format!("{way}-missed"), 1).await?;
        write(&watched.site.sql, "DetectedIssue", "i1", &issue("r1", "closed-gap")).await?;
        watched.site.server.start_on(direct.port()).await?;
        watched.newest("i1").await?;
        watched.flipped("open→closed").await?;
        watched.counts("closed", [0, 1, 0]).await?;
        watched.browser.sees("live", LIVE).await?;
        let shown = watched.shown().await?;
        let newest = ["i1".to_owned(), format!("{way}-missed"), format!("{way}-live")];
        ensure!(shown[..3] == newest, "{shown:?}");
        for id in &newest[1..] {
            ensure!(shown.iter().filter(|shown| *shown == id).count() == 1, "{id} came twice: {shown:?}");
        }
    }
    watched.browser.close().await
}

/// Without its database the page does not go on to say that it is live.
async fn a_database_that_is_away(context: Context) -> Result<()> {
    let mut watched = Watched::start(&context, Engine::Chromium).await?;
    watched.site.cluster.stop_fast().await?;
    let stale = "return document.getElementById('state').textContent === 'Stale'
        && /^what changed after \\d+:\\d+/.test(document.getElementById('state-detail').textContent)
        && document.getElementById('board-detail').textContent.includes('stale: as of')";
    watched.browser.sees("that it is stale", stale).await?;
    watched.site.cluster.start_again().await?;
    watched.site.sql = watched.site.cluster.connect().await?;
    watched.browser.sees("live again", LIVE).await?;
    let fresh = "return document.getElementById('state').textContent === 'Live'
        && !document.getElementById('board-detail').textContent.includes('stale')";
    watched.browser.sees("that it is fresh", fresh).await?;
    watched.browser.close().await
}

/// A reset: what changed and what was deleted meanwhile comes from the tables, and the page says what happened.
async fn a_journal_that_is_lost(context: Context) -> Result<()> {
    let mut watched = Watched::start(&context, Engine::Chromium).await?;
    let port = watched.site.server.listening()?.port();
    watched.site.server.terminate(SOON).await?;
    std::fs::remove_dir_all(context.directory().join("data"))?;
    watched.site.delete("DetectedIssue", "i1").await?;
    put(&watched.site.sql, "Observation", "missed", 1).await?;
    watched.site.server.start_on(port).await?;
    let seen =
        "return [...document.querySelectorAll('#resources li')].some((item) => item.dataset.id === 'missed')";
    watched.browser.sees("what it missed", seen).await?;
    watched.counts("without what was deleted", [0, 0, 0]).await?;
    let said = "return document.getElementById('notice').textContent !== ''";
    watched.browser.sees("the notice", said).await?;
    watched.browser.close().await
}

/// axe-core finds nothing serious, in light and in dark, wide and narrow, with something open and something wrong.
async fn everybody_can_use_it(context: Context) -> Result<()> {
    let watched = Watched::start(&context, Engine::Chromium).await?;
    let browser = &watched.browser;
    for (status, change) in [("closed-gap", "open→closed"), ("prospective-gap", "closed→prospective")] {
        write(&watched.site.sql, "DetectedIssue", "i1", &issue("r1", status)).await?;
        watched.flipped(change).await?;
    }
    watched.site.delete("Patient", "p1").await?;
    watched.newest("p1").await?;
    browser
        .run("document.querySelectorAll('#resources summary').forEach((summary) => summary.click())")
        .await?;
    browser.sees("JSON", "return document.querySelector('#resources pre') !== null").await?;
    let wrong = "const since = document.getElementById('since'); since.value = 'yesterday'; since.dispatchEvent(new Event('change'))";
    browser.run(wrong).await?;
    browser.run(&axe().map_err(anyhow::Error::msg)?).await?;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await?;
        let is = format!("return matchMedia('(prefers-color-scheme: {scheme})').matches");
        browser.sees(scheme, &is).await?;
        for width in [1280, 390] {
            browser.resize(width, 900).await?;
            let fits = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
            ensure!(browser.run(fits).await? == true, "at {width} pixels the page is wider than the window");
            let audit = "const { violations, passes } = await axe.run();
                return { passes: passes.length, violations: violations
                    .filter(({ impact }) => ['serious', 'critical'].includes(impact))
                    .map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html, failureSummary])]) }";
            let result = browser.run(audit).await?;
            ensure!(result["passes"].as_u64() > Some(10), "axe looked at nothing: {result:#}");
            ensure!(
                result["violations"] == json!([]),
                "{scheme}, {width} pixels: {:#}",
                result["violations"]
            );
        }
    }
    Ok(())
}

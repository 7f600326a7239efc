//! What documents and files for operators say of the program, compared with the program: settings, metrics, links, alert
//! rules, the dashboard, compose. What needs a tool that is not there is listed as ignored.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use tests::markdown::{Document, project};
use tests::{Binary, Case, Client, Context, SOON, Site, Subscribe, cases, http, until};

pub(crate) fn cases() -> Vec<Case> {
    let needs = |mut cases: Vec<Case>, skip| {
        cases.iter_mut().for_each(|case| case.skip = skip);
        cases
    };
    [
        cases![
            once the_settings_are_those_of_the_program,
            once the_metrics_are_those_of_the_program,
            once the_commands_are_those_of_the_program,
            once every_link_leads_somewhere,
            once tests_in_the_list_of_situations_exist,
            once ready_is_an_exit_code,
        ],
        needs(cases![once alerts_and_dashboard_can_be_evaluated], || missing("promtool")),
        needs(cases![once the_systemd_unit_is_valid_and_hardened], || missing("systemd-analyze")),
        needs(cases![once compose_reads_its_file], || missing("docker-compose")),
        needs(cases![once the_image_can_be_built_from_manifests_first], || missing("git")),
    ]
    .concat()
}

const OPERATIONS: &str = "docs/operations.md";
pub(crate) const TAIL: &str = "docs/tail.md";
const FIELD: &str = "docs/field.md";
const DOCUMENTS: [&str; 9] = [
    "README.md",
    "docs/database.md",
    "docs/design.md",
    FIELD,
    "docs/glossary.md",
    "docs/http.md",
    "docs/membership.md",
    OPERATIONS,
    TAIL,
];
const ALERTS: &str = "deploy/monitoring/alerts.yml";
const DASHBOARD: &str = "deploy/monitoring/grafana/dashboard.json";

/// Why a test is ignored that needs a program of this machine's.
pub(crate) fn missing(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    (!found).then(|| format!("{program} is not installed"))
}

fn help(command: &[&str]) -> Result<String> {
    let output = Binary::find()?.succeed(&[command, &["--help"]].concat())?;
    Ok(String::from_utf8(output.stdout)?)
}

/// The long options of `serve`, with their defaults as the help has them.
fn options(help: &str) -> BTreeMap<String, Option<String>> {
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    let mut name = None;
    for line in help.lines() {
        let words = line.trim_start();
        let option = words.strip_prefix("--").or_else(|| words.split_once(", --").map(|(_, option)| option));
        if let Some(option) = option.filter(|_| words.starts_with('-')) {
            name = option.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().map(str::to_owned);
        } else if !line.starts_with(' ') {
            name = None;
        }
        if let Some(name) = &name {
            let text = options.entry(name.clone()).or_default();
            *text = format!("{text} {words}").trim().to_owned();
        }
    }
    let default = |text: String| {
        let (_, default) = text.split_once("[default: ")?;
        Some(default.split_once(']')?.0.to_owned())
    };
    options.into_iter().map(|(name, text)| (name, default(text))).collect()
}

async fn the_settings_are_those_of_the_program(_: Context) -> Result<()> {
    let mut options = options(&help(&["serve"])?);
    for no_setting in ["help", "config", "check-config", "version"] {
        options.remove(no_setting);
    }
    ensure!(options.len() > 10, "the help was not understood: {options:?}");
    let rows = Document::read(OPERATIONS)?.rows();
    let table: BTreeMap<String, String> = rows
        .iter()
        .filter(|row| row.len() == 3)
        .filter_map(|row| Some((row[0].strip_prefix('`')?.strip_suffix('`')?, &row[1])))
        .filter(|(name, _)| !name.starts_with("fhir_tail_"))
        .map(|(name, default)| (name.to_owned(), default.replace('`', "")))
        .collect();
    ensure!(
        table.keys().eq(options.keys()),
        "{OPERATIONS} has the settings {:?}, serve --help has {:?}",
        table.keys(),
        options.keys()
    );
    for (name, default) in options {
        let Some(default) = default else { continue };
        ensure!(table[&name] == default, "{name}: {} in {OPERATIONS}, {default} in the help", table[&name]);
    }
    Ok(())
}

/// Each command has a line in operations.md.
async fn the_commands_are_those_of_the_program(_: Context) -> Result<()> {
    let help = help(&[])?;
    let (_, list) = help.split_once("Commands:").context("no list of commands")?;
    let commands: BTreeSet<&str> = list
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    ensure!(commands.contains("serve"), "the help was not understood: {help}");
    let rows = Document::read(OPERATIONS)?.rows();
    let shown: BTreeSet<&str> =
        rows.iter().filter_map(|row| row[0].strip_prefix("`fhir-tail ")?.split(['`', ' ']).next()).collect();
    let unknown: Vec<_> = commands.difference(&shown).collect();
    ensure!(unknown.is_empty(), "{OPERATIONS} has no line `fhir-tail …` for {unknown:?}");
    Ok(())
}

/// The names of all metrics, each with the names of its labels, when something has happened.
async fn metrics(context: &Context) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let site = Site::start(context).await?;
    site.put("Patient", "p").await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    reader.hear("p", SOON, |reader| reader.heard_of("p")).await?;
    let at = site.server.listening()?;
    until("every metric", SOON, || async {
        let mut response = http::get(at, "/metrics", "").await?;
        let text = String::from_utf8(response.body().await?)?;
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                names.entry(kind.split(' ').next().unwrap_or_default().to_owned()).or_default();
            } else if let Some((name, labels)) = line.split_once('{') {
                let labels = labels.split('"').step_by(2).filter_map(|label| label.strip_suffix('='));
                let labels = labels.map(|label| label.trim_start_matches(',').to_owned());
                names.entry(name.to_owned()).or_default().extend(labels);
            }
        }
        // What is read of the database is there a moment after the first change.
        let known = names.contains_key("fhir_tail_slot_lag_bytes")
            && names.contains_key("fhir_tail_safe_time_age_seconds");
        Ok(known.then_some(names))
    })
    .await
}

/// The words of a text that could be metrics.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("fhir_tail_"))
        .collect()
}

async fn the_metrics_are_those_of_the_program(context: Context) -> Result<()> {
    let metrics = metrics(&context).await?;
    let rows = Document::read(OPERATIONS)?.rows();
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for cell in rows.iter().filter_map(|row| row[0].strip_prefix('`')?.strip_suffix('`')) {
        if !cell.starts_with("fhir_tail_") {
            continue;
        }
        let (name, labels) = cell.trim_end_matches('}').split_once('{').unwrap_or((cell, ""));
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned);
        shown.insert(name.to_owned(), labels.collect());
    }
    ensure!(shown == metrics, "{OPERATIONS} has {shown:#?}, /metrics has {metrics:#?}");
    for path in [ALERTS, DASHBOARD, "deploy/monitoring/alerts.test.yml"] {
        let text = std::fs::read_to_string(project().join(path))?;
        let named = named(&text);
        ensure!(!named.is_empty(), "{path} names no metric");
        let unknown = named.iter().find(|name| !metrics.contains_key(**name));
        ensure!(unknown.is_none(), "{path}: there is no metric {}", unknown.unwrap_or(&""));
    }
    Ok(())
}

/// Each line of the list names at least one test, and the tests that it names exist.
async fn tests_in_the_list_of_situations_exist(_: Context) -> Result<()> {
    let mut sources = String::new();
    for folder in ["crates", "model", "tests"] {
        read_sources(&project().join(folder), &mut sources)?;
    }
    let mut named = 0;
    for row in Document::read(FIELD)?.rows() {
        let [situation, _, tests] = &row[..] else { bail!("{FIELD}: not three cells: {row:?}") };
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        ensure!(!tests.is_empty(), "{FIELD}: no test for: {situation}");
        for test in tests {
            ensure!(sources.contains(&format!("fn {test}(")), "{FIELD}: there is no test {test}");
            named += 1;
        }
    }
    ensure!(named > 20, "{FIELD} names {named} tests");
    Ok(())
}

/// The text of all Rust files below a folder.
fn read_sources(folder: &Path, out: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_sources(&path, out)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push_str(&std::fs::read_to_string(path)?);
        }
    }
    Ok(())
}

async fn every_link_leads_somewhere(_: Context) -> Result<()> {
    let mut links: Vec<(String, String)> = Vec::new();
    for path in DOCUMENTS {
        links.extend(Document::read(path)?.links().into_iter().map(|link| (path.to_owned(), link)));
    }
    let alerts = std::fs::read_to_string(project().join(ALERTS))?;
    let runbooks: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    ensure!(runbooks.len() == alerts.matches("- alert:").count(), "an alert has no runbook");
    // Of the project's folder, as the README's are.
    links.extend(runbooks.into_iter().map(|link| ("README.md".to_owned(), link.to_owned())));
    let mut followed = 0;
    for (from, link) in links.iter().filter(|(_, link)| !link.starts_with("http")) {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = if path.is_empty() { from.clone() } else { format!("{folder}/{path}") };
        let path = path.trim_start_matches('/');
        ensure!(project().join(path).exists(), "{from} leads to {link}, which is not there");
        if !anchor.is_empty() {
            let anchors = Document::read(path)?.anchors();
            ensure!(anchors.iter().any(|there| there == anchor), "{from}: {link}: {path} has {anchors:?}");
        }
        followed += 1;
    }
    ensure!(followed > 10, "only {followed} links were found");
    Ok(())
}

/// Runs a tool, which must succeed.
fn tool(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).current_dir(project()).output()?;
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if !output.status.success() {
        bail!("{program} {arguments:?}: {}\n{said}", output.status);
    }
    Ok(said)
}

/// The rules do what their tests say; and each expression of the dashboard is one, tried as a recording rule.
async fn alerts_and_dashboard_can_be_evaluated(context: Context) -> Result<()> {
    tool("promtool", &["check", "config", "deploy/monitoring/prometheus.yml"])?;
    tool("promtool", &["test", "rules", "deploy/monitoring/alerts.test.yml"])?;
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(project().join(DASHBOARD))?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (panel, target) in panels.iter().flat_map(|panel| {
        panel["targets"].as_array().into_iter().flatten().map(move |target| (panel, target))
    }) {
        ensure!(panel["datasource"]["uid"] == "prometheus", "{panel}");
        let expr = target["expr"].as_str().context("no expression")?.replace("$__rate_interval", "1m");
        rules += &format!(
            "      - record: panel:{}:{}\n        expr: {}\n",
            panel["id"],
            target["refId"].as_str().context("no refId")?,
            Value::from(expr)
        );
    }
    let path = context.directory().join("dashboard.yml");
    std::fs::write(&path, rules)?;
    let said = tool("promtool", &["check", "rules", &path.display().to_string()])?;
    ensure!(said.contains("rules found"), "{said}");
    Ok(())
}

/// Needs no engine. And no port may be published beyond this machine: nobody is asked who he is.
async fn compose_reads_its_file(_: Context) -> Result<()> {
    tool("docker-compose", &["config", "--quiet"])?;
    let file = std::fs::read_to_string(project().join("docker-compose.yml"))?;
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    let mut published = 0;
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == "ports:") {
        let ports: Vec<_> = lines[at + 1..].iter().map_while(|line| line.strip_prefix("- ")).collect();
        ensure!(!ports.is_empty(), "ports of another form than one a line");
        for port in ports {
            ensure!(port.starts_with("\"127.0.0.1:"), "{port} is published beyond this machine");
            published += 1;
        }
    }
    ensure!(published == 3, "{published} ports are published");
    for closed in [
        "GF_AUTH_BASIC_ENABLED: \"false\"",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION: \"true\"",
        "GF_SERVER_ENFORCE_DOMAIN: \"true\"",
        "GF_SERVER_DOMAIN: 127.0.0.1",
        "GF_AUTH_ANONYMOUS_ORG_ROLE: Viewer",
        "GF_SNAPSHOTS_EXTERNAL_ENABLED: \"false\"",
    ] {
        ensure!(lines.contains(&closed), "Grafana is not closed: no {closed}");
    }
    // Metrics are told only under names that are ours.
    let scraped = std::fs::read_to_string(project().join("deploy/monitoring/prometheus.yml"))?;
    let target = scraped.split('"').nth(1).context("Prometheus has no target")?;
    let named = format!("- --public-url=http://{target}");
    ensure!(lines.contains(&named.as_str()), "Prometheus' target {target} is not a name of the service");
    ensure!(!file.contains("network_mode"), "the service would share a network with others");
    Ok(())
}

/// What the Dockerfile leaves of the sources for the layer of dependencies is a workspace to Cargo: each package has a target.
async fn the_image_can_be_built_from_manifests_first(context: Context) -> Result<()> {
    let dockerfile = std::fs::read_to_string(project().join("deploy/Dockerfile"))?.replace("\\\n", " ");
    let strip = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("RUN ").filter(|run| run.starts_with("find . -type f")));
    let strip = strip.context("the Dockerfile does not strip the sources any more")?;
    let copy = context.directory().join("copy");
    std::fs::create_dir(&copy)?;
    let copied = format!(
        "git ls-files --cached --others --exclude-standard '*.rs' '*Cargo.toml' Cargo.lock | xargs cp --parents -t '{0}' \
         && cd '{0}' && {strip} && cargo metadata --quiet --no-deps --offline --locked --format-version 1",
        copy.display()
    );
    let metadata = tool("sh", &["-ec", &copied])?;
    let metadata: Value = serde_json::from_str(&metadata).with_context(|| metadata.clone())?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    ensure!(packages.iter().any(|package| package["name"] == "fhir-tail"), "{metadata}");
    for file in ["crates/fhir-tail/src/main.rs", "crates/fhir/src/lib.rs"] {
        ensure!(std::fs::read_to_string(copy.join(file))?.trim() == "fn main() { }", "{file} is still there");
    }
    ensure!(!copy.join("crates/fhir-tail/src/serve.rs").exists(), "the sources are still there");
    Ok(())
}

/// systemd understands the unit, and rates its exposure 2.0 of 10 at most.
async fn the_systemd_unit_is_valid_and_hardened(context: Context) -> Result<()> {
    let unit = std::fs::read_to_string(project().join("deploy/systemd/fhir-tail.service"))?;
    // The program must exist where the unit says.
    let installed = unit.replace("/usr/bin/fhir-tail", "/bin/true");
    ensure!(installed != unit, "the unit does not run /usr/bin/fhir-tail");
    let path = context.directory().join("fhir-tail.service");
    std::fs::write(&path, installed)?;
    let path = path.to_str().context("the path is not text")?;
    let said = tool("systemd-analyze", &["verify", "--man=no", path])?;
    ensure!(!said.contains("fhir-tail.service"), "{said}");
    tool("systemd-analyze", &["security", "--no-pager", "--offline=true", "--threshold=20", path])?;
    Ok(())
}

async fn ready_is_an_exit_code(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let at = site.server.listening()?.to_string();
    let ask = || Binary::find()?.run(&["ready", &at]);
    until("ready", SOON, || async { Ok(ask()?.status.success().then_some(())) }).await?;
    ensure!(String::from_utf8(ask()?.stdout)?.contains("\"ready\":true"), "the answer is not shown");
    site.cluster.stop_fast().await?;
    until("unready", SOON, || async { Ok((ask()?.status.code() == Some(1)).then_some(())) }).await?;
    ensure!(String::from_utf8(ask()?.stdout)?.contains("\"ready\":false"), "the answer is not shown");
    site.server.kill().await?;
    let nobody = ask()?;
    ensure!(nobody.status.code() == Some(1), "{}", nobody.status);
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    ensure!(said.contains(&at), "who cannot be asked is not named: {said}");
    Ok(())
}

//! `fhir-tail demo`: what a stranger sees first.

use anyhow::{Context as _, Result, ensure};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use tests::{Binary, Case, Client, Context, Reader, Running, SOON, Subscribe, What, cases};
use tokio_postgres::NoTls;

pub(crate) fn cases() -> Vec<Case> {
    cases![each a_demo_shows_gaps_live_and_goes_on_with_its_data, once a_port_in_use_is_named_with_the_remedy]
}

struct Demo {
    running: Running,
    address: SocketAddr,
    psql: String,
}

impl Demo {
    async fn start(context: &Context, name: &'static str, data_dir: &Path, more: &[&str]) -> Result<Self> {
        let (data_dir, bin) =
            (data_dir.display().to_string(), context.postgres().bin().display().to_string());
        let mut arguments = vec!["demo", "--data-dir", &data_dir, "--postgres-bin", &bin];
        arguments.extend(["--listen", "127.0.0.1:0"]);
        arguments.extend(more);
        let mut running = Running::start(context, name, &arguments)?;
        let page = running.line("page:", 2 * SOON).await?;
        let address: SocketAddr = page
            .strip_prefix("http://")
            .and_then(|page| page.strip_suffix('/'))
            .context(page.clone())?
            .parse()?;
        let curl = running.line("curl:", SOON).await?;
        let expected = format!(
            "curl -N -H 'Prefer: respond-eventsource' 'http://{address}/fhir/$export?_type=DetectedIssue'"
        );
        ensure!(curl == expected, "{curl}");
        let psql = running.line("psql:", SOON).await?;
        let psql = psql.strip_prefix("psql '").and_then(|it| it.strip_suffix('\'')).context(psql.clone())?;
        Ok(Self { running, address, psql: psql.to_owned() })
    }

    async fn patients(&self) -> Result<i64> {
        let (client, connection) = tokio_postgres::connect(&self.psql, NoTls).await?;
        tokio::spawn(async move { connection.await.ok() });
        let sql = "select count(*) from fhir.resource where resource_type = 'Patient'";
        Ok(client.query_one(sql, &[]).await?.try_get(0)?)
    }

    /// Ctrl-C; nothing is left.
    async fn end(mut self, data_dir: &Path) -> Result<()> {
        let status = self.running.interrupt(2 * SOON).await?;
        ensure!(status.code() == Some(0), "{status}: {}", self.running.log()?);
        let cluster = data_dir.join("demo/postgres/data");
        ensure!(!cluster.join("postmaster.pid").exists(), "the cluster was not stopped");
        let left = working_in(&cluster.canonicalize()?)?;
        ensure!(left.is_empty(), "{left:?} still run");
        Ok(())
    }
}

/// The processes whose working directory this is, as that of each process of a Postgres is its cluster.
fn working_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let processes = std::fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
    let here = processes.filter(|it| std::fs::read_link(it.join("cwd")).is_ok_and(|cwd| cwd == directory));
    Ok(here.collect())
}

async fn a_demo_shows_gaps_live_and_goes_on_with_its_data(context: Context) -> Result<()> {
    let data_dir = context.directory().join("data");
    let options = ["--patients", "40", "--rate", "60"];
    let demo = Demo::start(&context, "first", &data_dir, &options).await?;

    let mut reader = Reader::new(Subscribe::with(Client::Raw, "_type=DetectedIssue"));
    reader.connect(demo.address).await?;
    reader.hear("the present gaps", SOON, |reader| reader.noticed("live")).await?;
    let issues = |reader: &Reader| {
        reader.heard.iter().filter(|heard| matches!(heard.what, What::Resource { .. })).count()
    };
    let present = issues(&reader);
    ensure!(present >= 20, "{present} gaps of 40 patients");
    reader.connect(demo.address).await?;
    reader.hear("gaps that flip", SOON, |reader| issues(reader) >= present + 3).await?;
    let patients = demo.patients().await?;
    ensure!(patients >= 40, "{patients} patients");
    reader.cut();
    demo.end(&data_dir).await?;

    let demo = Demo::start(&context, "second", &data_dir, &options).await?;
    let said = demo.running.output()?;
    ensure!(said.contains("using the data of the last demo"), "{said}");
    let again = demo.patients().await?;
    ensure!(again >= patients, "{again} patients of {patients}");
    demo.end(&data_dir).await?;

    let demo =
        Demo::start(&context, "fresh", &data_dir, &["--fresh", "--patients", "10", "--rate", "1"]).await?;
    let fresh = demo.patients().await?;
    ensure!((10..40).contains(&fresh), "{fresh} patients");
    demo.end(&data_dir).await
}

async fn a_port_in_use_is_named_with_the_remedy(context: Context) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let data_dir = context.directory().join("data").display().to_string();
    let run = {
        let address = address.clone();
        move || Binary::find()?.run(&["demo", "--data-dir", &data_dir, "--listen", &address])
    };
    let output = tokio::task::spawn_blocking(run).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    for part in [address.as_str(), "--listen"] {
        ensure!(said.contains(part), "{part} is not in: {said}");
    }
    Ok(())
}

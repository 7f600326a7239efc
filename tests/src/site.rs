//! A database with the native layout and the server in front of it, as an operator sets them up: the server logs in as the
//! role that the migrations make, with no more rights than it needs.

use crate::{Binary, Client, Cluster, Context, Reader, Server, Subscribe, http, micros, until};
use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio_postgres::Client as Sql;

/// A cluster and a server.
pub struct Site {
    /// The server; first, so that it is ended first.
    pub server: Server,
    /// The cluster.
    pub cluster: Cluster,
    /// A connection as superuser (of the time before the cluster was restarted, if it was).
    pub sql: Sql,
}

/// How long a test waits for what should take a moment: on a busy machine moments are long.
pub const SOON: Duration = Duration::from_secs(60);

const CLOCK: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";

impl Site {
    /// A migrated database, and a running server.
    pub async fn start(context: &Context) -> Result<Self> {
        let mut site = Self::prepare(context, &[], &[]).await?;
        site.server.start().await?;
        Ok(site)
    }

    /// A migrated database and a server that is not started yet, with settings for Postgres and arguments for the server.
    pub async fn prepare(context: &Context, settings: &[&str], arguments: &[&str]) -> Result<Self> {
        let cluster = Cluster::start(context, settings).await?;
        let url = cluster.url("fhir_tail");
        Self::on(context, cluster, &url, arguments).await
    }

    /// As [`prepare`](Self::prepare), on a cluster that the server reaches by this URL.
    pub async fn on(context: &Context, cluster: Cluster, url: &str, arguments: &[&str]) -> Result<Self> {
        Binary::find()?.succeed(&["migrate", "--database-url", &cluster.url("postgres")])?;
        let sql = cluster.connect().await?;
        sql.batch_execute("alter role fhir_tail login").await?;
        let server = Server::new(context.directory(), url, arguments)?;
        Ok(Self { server, cluster, sql })
    }

    /// Waits until it follows the database: it may listen before.
    pub async fn ready(&self) -> Result<()> {
        let at = self.server.listening()?;
        let ask = || async { Ok((http::get(at, "/health/ready", "").await?.status == 200).then_some(())) };
        until("the server to be ready", SOON, ask).await
    }

    /// A subscriber that is connected.
    pub async fn reader(&self, subscribe: Subscribe) -> Result<Reader> {
        let mut reader = Reader::new(subscribe);
        reader.connect(self.server.listening()?).await?;
        Ok(reader)
    }

    /// A subscriber that is live.
    pub async fn live(&self, subscribe: Subscribe) -> Result<Reader> {
        let mut reader = self.reader(subscribe).await?;
        reader.hear("live", SOON, |reader| reader.noticed("live")).await?;
        Ok(reader)
    }

    /// Executes SQL that changes resources, and waits until the server has published what was changed: who asks then gets it
    /// with the past, before `live`.
    pub async fn change(&self, sql: &str) -> Result<()> {
        let before = self.sql.query_one("select (pg_current_wal_insert_lsn() - '0/0')::float8", &[]).await?;
        let before: f64 = before.try_get(0)?;
        self.sql.batch_execute(sql).await?;
        until("the server to publish a change", SOON, || async {
            Ok((self.metric("fhir_tail_head_lsn").await? >= before).then_some(()))
        })
        .await
    }

    /// Waits until all that has been written is old enough to come from the tables when somebody subscribes: the
    /// transactionTime of a subscriber who asks now is later. (What is newer comes from the feed, version by version.)
    pub async fn settle(&self) -> Result<()> {
        let now: i64 = self.sql.query_one(CLOCK, &[]).await?.try_get(0)?;
        until("the writes to settle", SOON, || async {
            let probe = self.live(Subscribe::with(Client::Raw, "_type=Basic")).await?;
            let time = probe.transaction_time().context("live without a transactionTime")?;
            Ok((micros(&time)? > now).then_some(()))
        })
        .await
    }

    /// Writes until the server has given up the slot that nobody reads from: `max_slot_wal_keep_size` is to be small.
    pub async fn until_the_slot_is_lost(&self) -> Result<()> {
        self.sql.batch_execute("create table noise (x text)").await?;
        until("the server to give the slot up", SOON, || async {
            let noise = "insert into noise select repeat(md5(i::text), 30) from generate_series(1, 5000) i";
            self.sql.batch_execute(noise).await?;
            self.sql.batch_execute("checkpoint").await?;
            let sql = "select wal_status = 'lost' from pg_replication_slots";
            Ok(self.sql.query_one(sql, &[]).await?.try_get::<_, bool>(0)?.then_some(()))
        })
        .await
    }

    /// The value of a metric that has no labels.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        metric(self.server.listening()?, name).await
    }

    /// Puts a small resource.
    pub async fn put(&self, resource_type: &str, id: &str) -> Result<i64> {
        put(&self.sql, resource_type, id, 1).await
    }

    /// Deletes one.
    pub async fn delete(&self, resource_type: &str, id: &str) -> Result<()> {
        let sql = "delete from fhir.resource where resource_type = $1 and id = $2";
        self.sql.execute(sql, &[&resource_type, &id]).await?;
        Ok(())
    }
}

/// The value of a metric that has no labels, of the server at an address.
pub async fn metric(address: SocketAddr, name: &str) -> Result<f64> {
    let mut response = http::get(address, "/metrics", "").await?;
    let text = String::from_utf8(response.body().await?)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.with_context(|| format!("no metric {name}:\n{text}"))?.parse().map_err(Into::into)
}

/// Puts a small resource over any connection; its version.
pub async fn put(sql: &Sql, resource_type: &str, id: &str, n: i64) -> Result<i64> {
    let content = format!(r#"{{"resourceType":"{resource_type}","n":{n},"status":"final"}}"#);
    let put = "select fhir.put($1, $2, ($3::text)::json)";
    Ok(sql.query_one(put, &[&resource_type, &id, &content]).await?.try_get(0)?)
}

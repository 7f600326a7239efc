//! The native layout: `fhir.resource` and `fhir.tombstone`, as `migrations/native/` makes them.

mod facts;
mod migrate;
mod pages;
mod patient_index;
mod repair;
mod rows;
mod stamps;
mod uninstall;
mod untold;

pub use facts::{NAMES as FACTS, PATIENT_STREAM_NAMES as PATIENT_STREAM_FACTS};
pub use migrate::{Applied, MigrateError, SERVICE_ROLE, migrate, migrated_version, newest_version};
pub use patient_index::{IndexError, IndexProgress, build_patient_index};
pub use repair::{RepairError, Repaired, repair};
pub use rows::NativeRows;
pub use stamps::{RestampError, restamp};
pub use uninstall::uninstall;

use super::{Asked, Asking, Layout, Pages, RowContext, Stamps};
use crate::check::{Finding, Verdict};
use crate::pages::PageContext;
use crate::{Settings, TableName};
use facts::Judged;
use fhir::Instant;
use tokio_postgres::Client;

/// The native layout.
#[derive(Debug)]
pub struct Native {
    tables: [TableName; 2],
}

impl Default for Native {
    fn default() -> Self {
        Self { tables: ["resource", "tombstone"].map(|table| TableName::new("fhir", table)) }
    }
}

impl Layout for Native {
    type Decoder = NativeRows;

    fn tables(&self) -> &[TableName] {
        &self.tables
    }

    fn decoder(&self, context: RowContext) -> NativeRows {
        NativeRows::new(context)
    }

    fn pages(&self, context: PageContext) -> Box<dyn Pages> {
        Box::new(pages::NativePages::new(context))
    }

    fn stamps(&self) -> &dyn Stamps {
        self
    }

    fn generation<'a>(&'a self, client: &'a Client) -> Asked<'a, String> {
        Box::pin(stamps::generation(client))
    }

    fn service_role(&self) -> &str {
        SERVICE_ROLE
    }

    fn facts<'a>(&'a self, client: &'a Client, settings: &'a Settings) -> Asking<'a> {
        Box::pin(facts::ask(client, settings, Judged::WhoAsks))
    }

    fn lacking_for_patients<'a>(&'a self, client: &'a Client) -> Asked<'a, Vec<Finding>> {
        Box::pin(async move {
            let findings = facts::for_patients(client).await?;
            Ok(findings.into_iter().filter(|finding| finding.verdict != Verdict::Pass).collect())
        })
    }

    fn check<'a>(&'a self, client: &'a Client, settings: &'a Settings) -> Asking<'a> {
        Box::pin(facts::check(client, settings))
    }
}

impl Stamps for Native {
    fn close_time<'a>(&'a self, client: &'a Client, reached: Instant) -> Asked<'a, Instant> {
        Box::pin(stamps::close_time(client, reached))
    }

    fn grant_to_close(&self) -> &'static str {
        "grant execute on function fhir.close_time(timestamptz) to"
    }

    fn newest<'a>(&'a self, client: &'a Client) -> Asked<'a, Option<Instant>> {
        Box::pin(stamps::newest(client))
    }

    fn tombstones_purged<'a>(&'a self, client: &'a Client) -> Asked<'a, Option<Instant>> {
        Box::pin(stamps::tombstones_purged(client))
    }
}

/// Settings that follow this layout, for tests that connect to nothing.
#[cfg(test)]
pub(crate) fn settings() -> Settings {
    Settings {
        database: pg::Database::parse_with("postgres://u@h/d", &|_| None).unwrap(),
        slot: "s".parse().unwrap(),
        publication: "p".into(),
        layout: std::sync::Arc::new(Native::default()),
        max_wal_held: 1,
        base_urls: fhir::BaseUrls::default(),
    }
}

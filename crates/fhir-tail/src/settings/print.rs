//! The settings as they are in effect: a TOML file that could be given back, with the origin of each
//! line. Passwords are left out.

use super::Settings;
use std::fmt::{Display, Write as _};

impl Settings {
    /// What `serve --check-config` prints.
    pub(crate) fn effective(&self) -> String {
        let mut out = String::new();
        match &self.database {
            Some(database) => self.line(&mut out, "database-url", &quoted(&database.to_string())),
            None => out.push_str("# no database-url: the embedded Postgres under data-dir\n"),
        }
        self.line(&mut out, "data-dir", &quoted(&self.data_dir.display().to_string()));
        match &self.postgres_bin {
            Some(bin) => self.line(&mut out, "postgres-bin", &quoted(&bin.display().to_string())),
            None => out.push_str("# no postgres-bin: searched for\n"),
        }
        self.line(&mut out, "listen", &list(&self.listen));
        self.line(&mut out, "public-url", &list(&self.public_urls));
        self.line(&mut out, "fhir-base-url", &list(&self.fhir_base_urls));
        self.line(&mut out, "insecure-no-auth", &self.insecure_no_auth);
        self.line(&mut out, "max-streams", &self.max_streams);
        self.line(&mut out, "max-streams-per-address", &self.max_streams_per_address());
        self.line(&mut out, "client-timeout", &quoted(&self.client_timeout.to_string()));
        self.line(&mut out, "on-bad-row", &quoted(&self.on_bad_row.to_string()));
        self.line(&mut out, "slot", &quoted(self.slot.as_str()));
        self.line(&mut out, "publication", &quoted(&self.publication));
        self.line(&mut out, "max-wal-held", &quoted(&self.max_wal_held.to_string()));
        self.line(&mut out, "retention-bytes", &quoted(&self.retention_bytes.to_string()));
        self.line(&mut out, "retention-age", &quoted(&self.retention_age.to_string()));
        self.line(&mut out, "log-format", &quoted(&self.log_format.to_string()));
        self.line(&mut out, "log-level", &quoted(&self.log_level));
        out
    }

    fn line(&self, out: &mut String, key: &str, value: &dyn Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{key} = {value}  # {}", self.origin(key));
    }
}

fn list<T: Display>(values: &[T]) -> String {
    let values = values.iter().map(|value| quoted(&value.to_string())).collect::<Vec<_>>();
    format!("[{}]", values.join(", "))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

//! The keywords of libpq of PostgreSQL 18, and what each means here.
//! <https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-PARAMKEYWORDS>

/// What a keyword means here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// As in libpq, in whole or as far as `settings` says.
    Supported,
    /// It changes nothing of what is done here.
    Harmless,
    /// Left out it may be, and so it has to be: why, and what to do instead.
    Refused(&'static str),
    /// The same unless it has one of these values.
    RefusedUnless(&'static [&'static str], &'static str),
}

use Meaning::{Harmless, Refused, RefusedUnless, Supported};

/// A keyword.
pub(super) struct Keyword {
    pub(super) name: &'static str,
    /// The variable of the environment that stands for it where it is left out.
    pub(super) variable: Option<&'static str>,
    pub(super) meaning: Meaning,
}

const fn keyword(name: &'static str, variable: &'static str, meaning: Meaning) -> Keyword {
    Keyword { name, variable: Some(variable), meaning }
}

const fn without_variable(name: &'static str, meaning: Meaning) -> Keyword {
    Keyword { name, variable: None, meaning }
}

const REVOCATION: &str = "lists of revoked certificates are not read: leave it out";
const OAUTH: &str = "OAuth is not supported: log in with a password or a client certificate";
const SCRAM_KEYS: &str = "keys of SCRAM are not supported: give the password";

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("service", "PGSERVICE", Supported),
    keyword("servicefile", "PGSERVICEFILE", Supported),
    keyword("user", "PGUSER", Supported),
    keyword("password", "PGPASSWORD", Supported),
    keyword("passfile", "PGPASSFILE", Supported),
    keyword("channel_binding", "PGCHANNELBINDING", Supported),
    keyword("connect_timeout", "PGCONNECT_TIMEOUT", Supported),
    keyword("dbname", "PGDATABASE", Supported),
    keyword("host", "PGHOST", Supported),
    keyword("hostaddr", "PGHOSTADDR", Supported),
    keyword("port", "PGPORT", Supported),
    // Ours is what we need.
    keyword("client_encoding", "PGCLIENTENCODING", Harmless),
    keyword("options", "PGOPTIONS", Supported),
    // Ours say which session it is.
    keyword("application_name", "PGAPPNAME", Harmless),
    without_variable("fallback_application_name", Harmless),
    without_variable("keepalives", Supported),
    without_variable("keepalives_idle", Supported),
    without_variable("keepalives_interval", Supported),
    without_variable("keepalives_count", Supported),
    without_variable("tcp_user_timeout", Supported),
    keyword("sslmode", "PGSSLMODE", Supported),
    keyword("sslnegotiation", "PGSSLNEGOTIATION", Supported),
    // Nothing is ever compressed.
    keyword("sslcompression", "PGSSLCOMPRESSION", Harmless),
    keyword("sslcert", "PGSSLCERT", Supported),
    keyword("sslkey", "PGSSLKEY", Supported),
    keyword(
        "sslcertmode",
        "PGSSLCERTMODE",
        RefusedUnless(
            &["disable", "allow"],
            "whether the server asks for a certificate is not looked at: let pg_hba.conf ask for one (cert, or clientcert=…), \
             and leave it out",
        ),
    ),
    without_variable(
        "sslpassword",
        Refused(
            "encrypted keys are not supported: decrypt the key (openssl pkey -in client.key -out plain.key, mode 0600), and \
             leave it out",
        ),
    ),
    keyword("sslrootcert", "PGSSLROOTCERT", Supported),
    keyword("sslcrl", "PGSSLCRL", Refused(REVOCATION)),
    keyword("sslcrldir", "PGSSLCRLDIR", Refused(REVOCATION)),
    keyword("sslsni", "PGSSLSNI", Supported),
    keyword("requirepeer", "PGREQUIREPEER", Supported),
    keyword(
        "require_auth",
        "PGREQUIREAUTH",
        Refused(
            "the server's choice of how to log in is not restricted: set sslmode=verify-full, or channel_binding=require, with \
             which only SCRAM over TLS is taken, and leave it out",
        ),
    ),
    keyword(
        "min_protocol_version",
        "PGMINPROTOCOLVERSION",
        RefusedUnless(&["3.0"], "version 3.0 is what is spoken: leave it out"),
    ),
    keyword("max_protocol_version", "PGMAXPROTOCOLVERSION", Harmless),
    keyword("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Supported),
    keyword("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Supported),
    keyword(
        "gssencmode",
        "PGGSSENCMODE",
        RefusedUnless(
            &["disable", "prefer"],
            "GSSAPI is not supported: encrypt by TLS with sslmode, and leave it out",
        ),
    ),
    keyword("krbsrvname", "PGKRBSRVNAME", Harmless),
    keyword("gsslib", "PGGSSLIB", Harmless),
    keyword("gssdelegation", "PGGSSDELEGATION", Harmless),
    without_variable(
        "replication",
        RefusedUnless(
            &["false", "off", "no", "0"],
            "fhir-tail makes its replication connection beside its other ones: leave it out",
        ),
    ),
    keyword(
        "target_session_attrs",
        "PGTARGETSESSIONATTRS",
        RefusedUnless(
            &["any", "read-write", "primary"],
            "changes and watermarks come from the primary: set target_session_attrs=primary, or leave it out",
        ),
    ),
    // The primary is the only one of them that is of use.
    keyword("load_balance_hosts", "PGLOADBALANCEHOSTS", Harmless),
    without_variable("scram_client_key", Refused(SCRAM_KEYS)),
    without_variable("scram_server_key", Refused(SCRAM_KEYS)),
    without_variable("sslkeylogfile", Refused("keys of sessions are not written down: leave it out")),
    without_variable("oauth_issuer", Refused(OAUTH)),
    without_variable("oauth_client_id", Refused(OAUTH)),
    without_variable("oauth_client_secret", Refused(OAUTH)),
    without_variable("oauth_scope", Refused(OAUTH)),
];

/// Finds one by its name.
pub(super) fn find(name: &str) -> Option<&'static Keyword> {
    // What an earlier release called it, after another library.
    let name = if name == "keepalives_retries" { "keepalives_count" } else { name };
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

impl Keyword {
    /// What stands against this value, in words that name the keyword by where it was written.
    pub(super) fn refusal(&self, value: &str, written: &str) -> Option<String> {
        match self.meaning {
            _ if value.is_empty() => None,
            Supported | Harmless => None,
            Refused(why) => Some(format!("{written} cannot be used: {why}")),
            RefusedUnless(values, _) if values.contains(&value) => None,
            RefusedUnless(_, why) => Some(format!("{written} cannot be used with this value: {why}")),
        }
    }
}

//! The role that the service logs in as: whether it may log in, and read the log, tried where that is possible. What it
//! may read of the tables is among the `facts`.

use super::Finding;
use crate::{Settings, describe_error};
use pg::database::Connected;
use pg::replication::{self, quoted};

/// The role that is judged: a superuser who asks is told of the one that the migrations make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    /// The role that the migrations make.
    service_role: String,
    name: String,
    /// It is the one who asks.
    asks: bool,
    superuser: bool,
    can_login: bool,
    replication: bool,
    /// What came of a replication connection, made as the one who asks: why there is none.
    connection: Result<(), String>,
}

/// The role that asks, or in its place that of the service ($1) if a superuser asks.
const ROLE: &str = "
    select r.rolname::text, r.rolname = current_user, r.rolsuper, r.rolcanlogin, r.rolreplication
      from pg_roles r, pg_roles me
     where me.rolname = current_user and (r.oid = me.oid or me.rolsuper and r.rolname = $1::text)
     order by r.oid = me.oid limit 1";

pub(super) async fn ask(connected: &Connected, settings: &Settings) -> Result<Facts, tokio_postgres::Error> {
    let service_role = settings.layout.service_role();
    let row = connected.client.query_one(ROLE, &[&service_role]).await?;
    // Closed again as soon as it was there.
    let connection = match replication::connect(&settings.database, &connected.endpoint).await {
        Ok(_) => Ok(()),
        Err(error) => Err(describe_error(&error)),
    };
    Ok(Facts {
        service_role: service_role.to_owned(),
        name: row.try_get(0)?,
        asks: row.try_get(1)?,
        superuser: row.try_get(2)?,
        can_login: row.try_get(3)?,
        replication: row.try_get(4)?,
        connection,
    })
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    vec![login(facts), replication(facts)]
}

fn login(facts: &Facts) -> Finding {
    const SUBJECT: &str = "role";
    let (name, role) = (&facts.name, quoted(&facts.name));
    if facts.superuser {
        Finding::warning(
            SUBJECT,
            format!(
                "{name} is a superuser: run the service as {}, which migrate makes with what is needed",
                facts.service_role
            ),
        )
    } else if facts.can_login {
        Finding::pass(
            SUBJECT,
            if facts.asks { name.clone() } else { format!("{name} is there for the service") },
        )
    } else {
        Finding::warning(
            SUBJECT,
            format!("{name} may not log in yet: let it, and give it a password if it needs one (psql: \\password {name})"),
        )
        .mended_by(format!("alter role {role} login;"))
    }
}

fn replication(facts: &Facts) -> Finding {
    const SUBJECT: &str = "replication";
    let name = &facts.name;
    let allowed = facts.replication || facts.superuser;
    match &facts.connection {
        // Managed services have other ways to allow it: what works is right.
        Ok(()) if facts.asks => Finding::pass(SUBJECT, "a replication connection was made"),
        Ok(()) if allowed => Finding::pass(SUBJECT, format!("{name} may read the log")),
        Err(why) if allowed || !facts.asks => {
            Finding::failure(SUBJECT, format!("no replication connection can be made: {why}"))
        }
        Ok(()) | Err(_) => Finding::failure(SUBJECT, format!("{name} may not read the log"))
            .mended_by(format!("alter role {} replication;", quoted(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn well() -> Facts {
        Facts {
            service_role: "service".into(),
            name: "service".into(),
            asks: true,
            superuser: false,
            can_login: true,
            replication: true,
            connection: Ok(()),
        }
    }

    /// The only one that does not pass.
    fn bad(facts: &Facts) -> Finding {
        Finding::only_bad(judge(facts))
    }

    #[test]
    fn a_role_with_what_it_needs_passes() {
        assert!(judge(&well()).iter().all(|finding| finding.verdict == Verdict::Pass));
        // However a managed service lets it replicate.
        let managed = Facts { replication: false, ..well() };
        assert!(judge(&managed).iter().all(|finding| finding.verdict == Verdict::Pass));
    }

    #[test]
    fn what_is_missing_is_named_with_its_grant() {
        let other = Facts { asks: false, ..well() };
        assert_eq!(
            bad(&Facts { can_login: false, ..other.clone() }).sql.unwrap(),
            r#"alter role "service" login;"#
        );
        assert_eq!(
            bad(&Facts { replication: false, ..other }).sql.unwrap(),
            r#"alter role "service" replication;"#
        );
    }

    #[test]
    fn a_connection_that_fails_is_told_in_the_servers_words() {
        let refused = Facts { connection: Err("no pg_hba.conf entry".into()), ..well() };
        let finding = bad(&refused);
        assert!(finding.message.contains("no pg_hba.conf entry") && finding.sql.is_none(), "{finding:?}");
        // An administrator who asks is not let in either.
        assert!(bad(&Facts { asks: false, ..refused.clone() }).message.contains("no pg_hba.conf entry"));
        let lacking = bad(&Facts { replication: false, ..refused });
        assert_eq!(lacking.sql.unwrap(), r#"alter role "service" replication;"#);
    }
}

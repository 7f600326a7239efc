//! The role that the service logs in as: whether it may log in, and read the log, tried where that is possible. What it
//! may read of the tables is among the `facts`.

use super::Finding;
use crate::facts::{Judged, Role};
use crate::{SERVICE_ROLE, Settings, describe_error};
use pg::database::Connected;
use pg::replication::{self, quoted};

/// The role that is judged: a superuser who asks is told of the one that the migrations make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    name: String,
    /// It is the one who asks.
    asks: bool,
    superuser: bool,
    can_login: bool,
    replication: bool,
    /// What came of a replication connection, made as the one who asks: why there is none.
    connection: Result<(), String>,
}

pub(super) async fn ask(connected: &Connected, settings: &Settings) -> Result<Facts, tokio_postgres::Error> {
    let role = Role::judged(&connected.client, Judged::ServiceRole).await?;
    // Closed again as soon as it was there.
    let connection = match replication::connect(&settings.database, &connected.endpoint).await {
        Ok(_) => Ok(()),
        Err(error) => Err(describe_error(&error)),
    };
    let Role { name, asks, superuser, can_login, replication, .. } = role;
    Ok(Facts { name, asks, superuser, can_login, replication, connection })
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
                "{name} is a superuser: run the service as {SERVICE_ROLE}, which migrate makes with what is needed"
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
        let mut bad: Vec<Finding> =
            judge(facts).into_iter().filter(|finding| finding.verdict != Verdict::Pass).collect();
        assert_eq!(bad.len(), 1, "{bad:?}");
        bad.remove(0)
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

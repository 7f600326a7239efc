//! What streams of patients and Groups need beside the facts of the list: without it they are refused, and all other
//! streams are served.

use super::definitions;
use crate::check::Finding;
use crate::layout::native::patient_index::{self, Part};
use tokio_postgres::Client;

/// What they are called.
pub const NAMES: [&str; 2] = ["before images", "patient index"];

const REMEDY: &str = "run 'fhir-tail migrate'";
const GRANT: &str = "grant execute on function fhir.mentions(text) to public;";

/// What is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    parts: Vec<Part>,
    function: Option<Function>,
}

/// `fhir.mentions`, as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Function {
    body: String,
    /// Everybody may execute it, as every writer has to.
    open: bool,
}

pub(super) async fn ask(client: &Client) -> Result<Facts, tokio_postgres::Error> {
    let parts = patient_index::parts(client).await?;
    let function = client
        .query_opt(
            "select p.prosrc, has_function_privilege('public', p.oid, 'execute') from pg_proc p \
              where p.oid = to_regprocedure('fhir.mentions(text)')",
            &[],
        )
        .await?;
    let function = match function {
        Some(row) => Some(Function { body: row.try_get(0)?, open: row.try_get(1)? }),
        None => None,
    };
    Ok(Facts { parts, function })
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    vec![before_images(facts), index(facts)]
}

fn before_images(facts: &Facts) -> Finding {
    const SUBJECT: &str = NAMES[0];
    let sql = full_identities(facts);
    if sql.is_empty() {
        return Finding::pass(SUBJECT, "the log has the content that an update replaces");
    }
    let tables: Vec<_> = without(facts).map(|part| part.table.as_str()).collect();
    Finding::warning(
        SUBJECT,
        format!(
            "the log does not have the content that an update of {} replaces, so that streams of patients \
             are refused: {REMEDY}",
            tables.join(", ")
        ),
    )
    .mended_by(sql.join(" "))
}

/// The tables whose old rows are not in the log.
fn without(facts: &Facts) -> impl Iterator<Item = &Part> {
    facts.parts.iter().filter(|part| !part.full_identity)
}

fn full_identities(facts: &Facts) -> Vec<String> {
    without(facts).map(|part| format!("alter table {} replica identity full;", part.table)).collect()
}

fn index(facts: &Facts) -> Finding {
    const SUBJECT: &str = NAMES[1];
    let refused = |what: &str| {
        Finding::warning(SUBJECT, format!("{what}, so that streams of patients are refused: {REMEDY}"))
    };
    match &facts.function {
        None => refused("there is no function fhir.mentions"),
        Some(function) if is_other(function) => {
            refused("the function fhir.mentions is not the one that migrate makes, and neither is the index")
        }
        Some(_) if !patient_index::is_complete(&facts.parts) => {
            refused(if facts.parts.iter().any(|part| part.index.is_some()) {
                "the index of patients is not complete"
            } else {
                "there is no index of patients"
            })
        }
        Some(Function { open: false, .. }) => Finding::warning(
            SUBJECT,
            "not everybody may execute fhir.mentions, which the index does with each row that is written: \
             writers are refused, and so are streams of patients",
        )
        .mended_by(GRANT),
        Some(_) => Finding::pass(SUBJECT, "is there"),
    }
}

fn is_other(function: &Function) -> bool {
    definitions::functions()
        .iter()
        .find(|ours| ours.name == "mentions")
        .is_some_and(|ours| ours.body.trim() != function.body.trim())
}

/// The statements that fix this, except for the index:
/// [`build_patient_index`](crate::layout::native::build_patient_index) builds that where it is missing.
pub(crate) async fn repairs(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    Ok(repairs_of(&ask(client).await?))
}

fn repairs_of(facts: &Facts) -> Vec<String> {
    let mut sql = full_identities(facts);
    let ours = definitions::functions().into_iter().find(|function| function.name == "mentions");
    match (&facts.function, ours) {
        (None, Some(ours)) => sql.push(format!("{} {GRANT}", ours.sql)),
        (Some(function), Some(ours)) if is_other(function) => {
            // An index that another function filled finds other rows.
            let index = facts.parts.first().and_then(|whole| whole.index.as_ref());
            let drop = index.map(|index| format!(" drop index {};", index.name)).unwrap_or_default();
            sql.push(format!("{}{drop}", ours.sql));
        }
        _ => {}
    }
    if facts.function.as_ref().is_some_and(|function| !function.open) {
        sql.push(GRANT.to_owned());
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;
    use crate::layout::native::patient_index::Index;

    fn well() -> Facts {
        let body = definitions::functions().into_iter().find(|ours| ours.name == "mentions").unwrap().body;
        Facts {
            parts: vec![Part {
                oid: 1,
                table: "fhir.resource".into(),
                parent: None,
                partitioned: false,
                full_identity: true,
                index: Some(Index { name: "fhir.resource_mentions".into(), valid: true, attached: false }),
            }],
            function: Some(Function { body: body.into(), open: true }),
        }
    }

    /// The only one that does not pass.
    fn bad(facts: &Facts) -> Finding {
        let bad = Finding::only_bad(judge(facts));
        assert_eq!(bad.verdict, Verdict::Warning, "other streams are served");
        bad
    }

    #[test]
    fn what_migrate_makes_passes_and_needs_no_repair() {
        let findings = judge(&well());
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Pass));
        assert_eq!(findings.iter().map(|finding| finding.subject).collect::<Vec<_>>(), NAMES);
        assert_eq!(repairs_of(&well()), Vec::<String>::new());
    }

    #[test]
    fn each_lack_is_told_with_its_remedy() {
        let mut short = well();
        short.parts.push(Part { table: "fhir.part".into(), full_identity: false, ..short.parts[0].clone() });
        let sql = "alter table fhir.part replica identity full;";
        assert_eq!(bad(&short).sql.unwrap(), sql);
        assert_eq!(repairs_of(&short), [sql]);
        let mut broken = well();
        broken.parts[0].index.as_mut().unwrap().valid = false;
        assert!(bad(&broken).message.contains("is not complete") && bad(&broken).message.contains("migrate"));
        let mut none = well();
        none.parts[0].index = None;
        assert!(bad(&none).message.contains("there is no index"));
        none.function = None;
        assert!(bad(&none).message.contains("no function"));
        assert!(repairs_of(&none)[0].ends_with(GRANT));
        let mut closed = well();
        closed.function.as_mut().unwrap().open = false;
        assert_eq!(bad(&closed).sql.unwrap(), GRANT);
        assert_eq!(repairs_of(&closed), [GRANT]);
    }

    #[test]
    fn an_index_of_another_function_is_dropped_with_it() {
        let mut other = well();
        other.function.as_mut().unwrap().body = "begin end".into();
        assert!(bad(&other).message.contains("not the one that migrate makes"));
        let sql = repairs_of(&other).remove(0);
        assert!(sql.starts_with("create or replace function fhir.mentions("), "{sql}");
        assert!(sql.ends_with("drop index fhir.resource_mentions;"), "{sql}");
    }
}

//! What the migrations define, read from their text: the triggers and functions that `check` compares the database
//! with, and that `migrate` makes again.

use crate::layout::native::migrate::FILES;

/// A trigger of the layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Trigger {
    pub(crate) name: &'static str,
    /// Its table, in the schema `fhir`.
    pub(crate) table: &'static str,
    /// What makes it.
    pub(crate) sql: &'static str,
}

/// A function of the layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Function {
    /// Its name, in the schema `fhir`.
    pub(crate) name: &'static str,
    /// Its body, as `pg_proc.prosrc` has it.
    pub(crate) body: &'static str,
    /// What makes it, or makes it again.
    pub(crate) sql: String,
}

/// The triggers that there are when all files were applied.
pub(crate) fn triggers() -> Vec<Trigger> {
    let mut found: Vec<Trigger> = Vec::new();
    for (_, _, sql) in FILES {
        for statement in statements(sql, "trigger") {
            let words: Vec<_> = statement.split_whitespace().collect();
            let Some((_, after)) = statement.split_once(" on fhir.") else { continue };
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            let table = &after[..end];
            let name_at = words.iter().position(|word| *word == "trigger").map_or(0, |at| at + 1);
            let name = match words.get(name_at..) {
                Some(["if", "exists", name, ..] | [name, ..]) => *name,
                _ => continue,
            };
            found.retain(|trigger| (trigger.table, trigger.name) != (table, name));
            if words.first() == Some(&"create") {
                found.push(Trigger { name, table, sql: statement });
            }
        }
    }
    found
}

/// The functions that there are when all files were applied.
pub(crate) fn functions() -> Vec<Function> {
    functions_of(i32::MAX)
}

/// The functions that there are when the files up to a version were applied.
pub(crate) fn functions_of(version: i32) -> Vec<Function> {
    let mut found: Vec<Function> = Vec::new();
    for (_, _, sql) in FILES.into_iter().filter(|(file, _, _)| *file <= version) {
        for statement in statements(sql, "function") {
            let Some((_, named)) = statement.split_once("function ") else { continue };
            let named = named.strip_prefix("if exists ").unwrap_or(named);
            let Some(named) = named.strip_prefix("fhir.") else { continue };
            let end = named.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(named.len());
            let name = &named[..end];
            if statement.starts_with("drop") {
                found.retain(|function| function.name != name);
            } else if let Some(body) = quoted(statement).map(|(body, _)| body) {
                let rest = statement.split_once("function ").map_or(statement, |(_, rest)| rest);
                found.retain(|function| function.name != name);
                found.push(Function { name, body, sql: format!("create or replace function {rest}") });
            }
        }
    }
    found
}

/// The statements that create or drop something of a kind. Each begins a line: functions' bodies are indented.
fn statements(sql: &'static str, kind: &'static str) -> impl Iterator<Item = &'static str> {
    let starts = ["create ", "create or replace ", "drop "].map(|verb| format!("{verb}{kind} "));
    sql.match_indices('\n').filter_map(move |(at, _)| {
        let rest = sql.get(at + 1..)?;
        starts.iter().any(|start| rest.starts_with(start)).then(|| whole(rest))
    })
}

/// A statement up to its semicolon, which is not one of its quoted body.
fn whole(rest: &'static str) -> &'static str {
    let semicolon = |from: usize| rest.get(from..).and_then(|rest| rest.find(';')).map(|at| from + at + 1);
    let end = match (semicolon(0), quoted(rest)) {
        (Some(end), Some((body, after))) if end > rest.len() - after.len() - body.len() => {
            semicolon(rest.len() - after.len())
        }
        (end, _) => end,
    };
    rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest)
}

/// What the first dollar quotes enclose, and what follows them.
fn quoted(text: &'static str) -> Option<(&'static str, &'static str)> {
    let (_, rest) = text.split_once('$')?;
    let (tag, rest) = rest.split_once('$')?;
    let mark = format!("${tag}$");
    rest.split_once(mark.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::native::migrate::SERVED_FROM;

    #[test]
    fn the_triggers_are_found_in_the_files() {
        let found = triggers();
        assert!(found.iter().any(|t| t.name == "stamp_insert" && t.table == "resource"), "{found:?}");
        assert!(found.iter().any(|t| t.name == "refuse_truncate" && t.table == "tombstone"), "{found:?}");
        for trigger in found {
            assert!(trigger.sql.starts_with("create ") && trigger.sql.ends_with(';'), "{trigger:?}");
        }
    }

    #[test]
    fn the_functions_are_found_with_their_bodies() {
        let found = functions();
        for name in ["stamp_insert", "stamp_update", "after_delete", "after_insert", "put", "restamp"] {
            let function = found.iter().find(|function| function.name == name).unwrap();
            assert!(function.sql.starts_with(&format!("create or replace function fhir.{name}(")), "{name}");
            assert!(function.sql.ends_with(';') && function.body.trim_end().ends_with("end"), "{name}");
        }
        assert!(found.iter().any(|function| function.name == "mentions"));
        assert!(!functions_of(SERVED_FROM).iter().any(|function| function.name == "mentions"));
        // Each trigger's is one of them.
        for trigger in triggers() {
            let called =
                trigger.sql.split_once("execute function fhir.").unwrap().1.split_once('(').unwrap().0;
            assert!(found.iter().any(|function| function.name == called), "{called}");
        }
    }
}

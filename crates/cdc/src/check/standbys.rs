//! `synchronous_standby_names`: whether it would count us among the standbys that a commit waits for.
//!
//! A walsender is counted by its application name alone, and ours confirms what it has received like any standby. The
//! commits of the whole cluster would then wait for us instead of for the standby that was meant.

use super::Finding;
use pg::replication::APPLICATION_NAME;
use tokio_postgres::Client;

/// The setting, and who could be meant by it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    names: String,
    /// The physical standbys that are connected now, as far as this role may see.
    connected: Vec<String>,
}

pub(super) async fn ask(client: &Client) -> Result<Facts, tokio_postgres::Error> {
    let row = client.query_one("select current_setting('synchronous_standby_names')", &[]).await?;
    let standbys = client
        .query(
            "select distinct r.application_name from pg_stat_replication r \
              where r.application_name <> '' and not exists (select from pg_replication_slots s \
                     where s.active_pid = r.pid and s.plugin is not null) order by 1",
            &[],
        )
        .await?;
    Ok(Facts {
        names: row.try_get(0)?,
        connected: standbys.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
    })
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    const SUBJECT: &str = "standbys";
    let list = List::read(&facts.names);
    if list.names.is_empty() {
        return vec![Finding::pass(SUBJECT, "no commit waits for a standby")];
    }
    let anyone = list.names.iter().any(|name| name == "*");
    if !anyone && !list.names.iter().any(|name| is_us(name)) {
        return vec![Finding::pass(SUBJECT, "commits wait for standbys, and do not count us")];
    }
    let message = format!(
        "synchronous_standby_names would count '{APPLICATION_NAME}' as a standby, so that commits are called safe when no \
         standby has them: name the standbys one by one"
    );
    let finding = Finding::failure(SUBJECT, message);
    let mut names: Vec<String> =
        list.names.iter().filter(|name| *name != "*" && !is_us(name)).cloned().collect();
    if anyone {
        // Those who are meant, as far as anybody knows.
        let known = facts.connected.iter().filter(|name| !is_us(name) && !names.contains(name));
        names.extend(known.cloned().collect::<Vec<_>>());
        // An empty list would give up what the setting is for.
        if names.is_empty() {
            return vec![finding];
        }
    }
    let value = List { names, ..list }.write().replace('\'', "''");
    vec![finding.mended_by(format!(
        "alter system set synchronous_standby_names = '{value}'; select pg_reload_conf();"
    ))]
}

/// Postgres compares these names without regard to case.
fn is_us(name: &str) -> bool {
    name.eq_ignore_ascii_case(APPLICATION_NAME)
}

/// The setting, taken apart.
#[derive(PartialEq, Eq, Debug)]
struct List {
    /// `ANY` or `FIRST`, where it is written.
    method: Option<&'static str>,
    /// How many have to confirm, where it is written.
    number: Option<usize>,
    names: Vec<String>,
}

impl List {
    /// Reads what the server has accepted: `a, b`, `2 (a, b)`, `FIRST 2 (a, b)`, `ANY 2 (a, b)`.
    fn read(text: &str) -> Self {
        let mut method = None;
        let mut number = None;
        let mut names = Vec::new();
        let (head, body) = match unquoted(text, '(') {
            Some(at) => (&text[..at], text[at + 1..].trim_end().trim_end_matches(')')),
            None => ("", text),
        };
        for word in head.split_whitespace() {
            match word.parse() {
                Ok(count) => number = Some(count),
                Err(_) => method = Some(if word.eq_ignore_ascii_case("any") { "ANY" } else { "FIRST" }),
            }
        }
        let mut rest = body;
        while !rest.trim().is_empty() {
            let end = unquoted(rest, ',');
            let name = rest[..end.unwrap_or(rest.len())].trim();
            let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
            names.push(quoted.map_or_else(|| name.to_owned(), |name| name.replace("\"\"", "\"")));
            rest = end.map_or("", |at| &rest[at + 1..]);
        }
        Self { method, number, names }
    }

    fn write(&self) -> String {
        let names: Vec<String> =
            self.names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        let names = names.join(", ");
        match self.number {
            Some(number) if !self.names.is_empty() => {
                let method = self.method.map(|method| format!("{method} ")).unwrap_or_default();
                // More than there are could never confirm.
                format!("{method}{} ({names})", number.min(self.names.len()))
            }
            _ => names,
        }
    }
}

/// Where this character stands for the first time outside quotes.
fn unquoted(text: &str, wanted: char) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(at, character)| {
        quoted ^= character == '"';
        (!quoted && character == wanted).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use proptest::prelude::*;

    fn judged(names: &str, connected: &[&str]) -> Finding {
        let connected = connected.iter().map(|&name| name.to_owned()).collect();
        judge(&Facts { names: names.into(), connected }).remove(0)
    }

    #[test]
    fn only_a_list_that_has_us_fails() {
        for names in ["", "a, b", "2 (a, b)", "FIRST 1 (s1)", r#"ANY 1 ("fhir-tail-2", "a,*")"#] {
            assert_eq!(judged(names, &[]).verdict, Verdict::Pass, "{names}");
        }
        for names in ["*", "ANY 1 (*)", "a, *", r#""fhir-tail""#, r#"first 2 (a, "FHIR-Tail")"#] {
            assert_eq!(judged(names, &[]).verdict, Verdict::Failure, "{names}");
        }
    }

    #[test]
    fn the_remedy_keeps_the_others_and_what_they_have_to_do() {
        let set = |value: &str| {
            Some(format!("alter system set synchronous_standby_names = '{value}'; select pg_reload_conf();"))
        };
        assert_eq!(judged(r#"ANY 2 (a, "fhir-tail", "b c")"#, &[]).sql, set(r#"ANY 2 ("a", "b c")"#));
        assert_eq!(judged(r#"ANY 2 (a, "fhir-tail")"#, &[]).sql, set(r#"ANY 1 ("a")"#));
        assert_eq!(judged(r#""fhir-tail""#, &[]).sql, set(""));
        assert_eq!(judged("FIRST 1 (*)", &["s1", "fhir-tail"]).sql, set(r#"FIRST 1 ("s1")"#));
        // Nobody knows whom it means.
        assert_eq!(judged("*", &[]).sql, None);
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(names in proptest::collection::vec("[a-z(),*\" ]{1,6}", 1..4), number in 1usize..4) {
            let number = number.min(names.len());
            let list = List { method: Some("ANY"), number: Some(number), names };
            prop_assert_eq!(List::read(&list.write()), list);
        }

        #[test]
        fn never_panics(text in "\\PC{0,20}|[a-z(),*\" 0-9]{0,20}") {
            judged(&text, &["s"]);
        }
    }
}

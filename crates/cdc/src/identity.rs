//! What must stay the same for positions and tables to go on meaning the same: the tables, their columns, what the
//! publication lets through of them, and how often rows were stamped again.
//!
//! It is kept with the journal as one line of text. A decoder works with the catalogue as it was when a change was
//! written, so what is altered in between shows in no message: only the catalogue tells.

use crate::layout::Layout;
use fhir::stable_hash;
use tokio_postgres::Client;

/// The parts of the text, in order.
const PARTS: usize = 3;
const BETWEEN: &str = " ";

/// What is followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Identity([String; PARTS]);

/// What has become another since the journal was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Difference {
    pub(crate) reason: &'static str,
    /// Whether what was published may no longer exist, and nobody was told.
    pub(crate) fork: bool,
}

impl Identity {
    /// Asks for it.
    pub(crate) async fn of(
        client: &Client,
        publication: &str,
        layout: &dyn Layout,
    ) -> Result<Self, tokio_postgres::Error> {
        let tables = layout.tables();
        let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let row = client.query_one(TABLES, &[&schemas, &names]).await?;
        let columns: String = row.try_get(0)?;
        let row = client.query_one(PUBLISHED, &[&publication, &schemas, &names]).await?;
        let published: String = row.try_get(0)?;
        Ok(Self([columns, published, layout.generation(client).await?]))
    }

    /// The text that is kept with the journal: short, whatever names there are.
    pub(crate) fn text(&self) -> String {
        self.0.each_ref().map(|part| format!("{:08x}", stable_hash(part.bytes()))).join(BETWEEN)
    }

    /// What is another than in the text of before; the worst first.
    pub(crate) fn differs_from(&self, before: &str) -> Option<Difference> {
        let (now, before) = (self.text(), before.split(BETWEEN));
        let (now, before): (Vec<&str>, Vec<&str>) = (now.split(BETWEEN).collect(), before.collect());
        let differs = |part: usize| before.get(part) != now.get(part);
        if differs(2) {
            Some(Difference {
                reason: "rows that were stamped ahead of the clock were stamped again",
                fork: true,
            })
        } else if differs(0) {
            // Rows that were in it are gone without a message.
            Some(Difference {
                reason: "a published table, a partition or a column of it was made anew, added or taken away",
                fork: true,
            })
        } else if differs(1) {
            Some(Difference { reason: "the publication was made anew or altered", fork: false })
        } else {
            None
        }
    }
}

/// The tables by their object identifiers, each with its columns by number, type and name, and with its partitions, if
/// it has any. A partition takes its rows with it when it is detached or dropped, and brings those that it has when it
/// is attached: the log has none of that. `xmin` is another when it was detached and attached again.
const TABLES: &str = "
    select coalesce(string_agg(format('%s (%s)', coalesce(c.oid, 0), a.columns) || coalesce(' ' || p.partitions, ''),
                               ', ' order by t.place), '')
      from unnest($1::text[], $2::text[]) with ordinality t(schema, name, place)
      left join pg_namespace n on n.nspname = t.schema
      left join pg_class c on c.relnamespace = n.oid and c.relname = t.name
      left join lateral (
           select string_agg(format('%s %s %s', attnum, atttypid, attname), ', ' order by attnum) as columns
             from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) a on true
      left join lateral (
           with recursive part(oid, made) as (
                select inhrelid, xmin::text from pg_inherits where inhparent = c.oid and not inhdetachpending
                union all
                select i.inhrelid, i.xmin::text from part join pg_inherits i on i.inhparent = part.oid
                 where not i.inhdetachpending)
           select string_agg(format('%s %s', part.oid, made), ', ' order by part.oid) as partitions
             from part join pg_class p on p.oid = part.oid where p.relispartition) p on true";

/// The publication and its entries for the tables (none where it has all tables, or all of a schema). `xmin` is another
/// after every alteration, also one that was taken back.
const PUBLISHED: &str = "
    select format('publication %s %s, entries %s', coalesce(p.oid, 0), coalesce(p.xmin::text, ''),
                  (select coalesce(string_agg(format('%s %s', r.oid, r.xmin), ', ' order by r.prrelid), '')
                     from unnest($2::text[], $3::text[]) t(schema, name)
                     join pg_namespace n on n.nspname = t.schema
                     join pg_class c on c.relnamespace = n.oid and c.relname = t.name
                     join pg_publication_rel r on r.prrelid = c.oid and r.prpubid = p.oid))
      from (select 1) always left join pg_publication p on p.pubname = $1::text";

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(parts: [&str; PARTS]) -> Identity {
        Identity(parts.map(str::to_owned))
    }

    #[test]
    fn what_was_published_may_be_gone_unless_only_the_publication_is_another() {
        let before = identity(["t", "p", "0"]).text();
        let fork = |parts| identity(parts).differs_from(&before).map(|difference| difference.fork);
        assert_eq!(fork(["t", "p", "0"]), None);
        assert_eq!(fork(["t", "q", "0"]), Some(false));
        assert_eq!(fork(["u", "q", "0"]), Some(true));
        assert_eq!(fork(["t", "q", "1"]), Some(true));
        // Of an earlier release, or of none.
        assert!(identity(["t", "p", "0"]).differs_from("").is_some());
    }
}

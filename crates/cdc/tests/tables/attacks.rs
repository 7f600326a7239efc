//! What somebody with one right and no more may try: nothing is told that was not, nothing is stamped but by the clock,
//! and nothing of his runs with the rights of the layout's owner.

use crate::cluster::{Cluster, TestDatabase, number, refusal, text};
use tokio_postgres::Client;

/// The functions that work with their owner's rights, and what they are the triggers of.
const TRIGGERS: [(&str, &str); 5] = [
    ("stamp_insert", "before insert on {table} for each row"),
    ("stamp_bulk_insert", "before insert on {table} for each row"),
    ("stamp_update", "before update on {table} for each row"),
    ("after_delete", "after delete on {table} referencing old table as gone for each statement"),
    ("after_insert", "after insert on {table} referencing new table as fresh for each statement"),
];

/// What it takes to have a trigger of one's own fire: any table will do.
fn on_a_table_of_ones_own(function: &str, when: &str) -> String {
    let when = when.replace("{table}", "mine");
    format!(
        "create temp table mine (like fhir.resource);
         create trigger mine {when} execute function fhir.{function}();
         insert into mine values ('Patient', 'lives', 99, '2999-01-01', '{{}}'),
                                 ('Patient', 'dead', 99, '2999-01-01', '{{}}');
         update mine set content = '{{}}';
         delete from mine"
    )
}

/// A resource that lives, one that is dead, and a role that may see the schema and do what is granted.
async fn scene(grants: &str) -> (TestDatabase, Client, String) {
    let database = Cluster::database().await;
    let owner = database.client().await;
    let role = format!("attacker_{}", database.name);
    let rows = "insert into fhir.resource (resource_type, id, content)
                values ('Patient', 'lives', '{}'), ('Patient', 'dead', '{}')";
    owner
        .batch_execute(&format!("create role {role} login; grant usage on schema fhir to {role}"))
        .await
        .unwrap();
    // It has to like the table.
    owner.batch_execute(&format!("create schema evil; grant all on schema evil to {role}")).await.unwrap();
    owner.batch_execute(&format!("{rows}; delete from fhir.resource where id = 'dead'")).await.unwrap();
    if !grants.is_empty() {
        owner.batch_execute(&grants.replace("{role}", &role)).await.unwrap();
    }
    (database, owner, role)
}

/// All that there is: rows, tombstones, and the last number.
async fn everything(owner: &Client) -> String {
    let sql = "select concat_ws(E'\\n',
        (select string_agg(r::text, ' ' order by id) from fhir.resource r),
        (select string_agg(t::text, ' ' order by id) from fhir.tombstone t),
        (select last_value from fhir.version), (select string_agg(p::text, ' ') from fhir.purged p))";
    text(owner, sql).await
}

/// The message of a refusal by one of our functions.
async fn message(client: &Client, sql: &str) -> String {
    let refusal = refusal(client, sql).await;
    assert_eq!(refusal.code().code(), "42501", "{refusal:?}");
    refusal.message().to_owned()
}

/// The code of a refusal.
async fn code(client: &Client, sql: &str) -> String {
    match client.batch_execute(sql).await {
        Ok(()) => "none".into(),
        Err(error) => error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned(),
    }
}

#[tokio::test]
async fn what_was_not_granted_is_refused_and_changes_nothing() {
    let insert = "insert into fhir.resource (resource_type, id, content) values ('Patient', 'new', '{}')";
    let upsert = format!("{insert} on conflict on constraint resource_pkey do update set content = '{{}}'");
    let refused: Vec<(&str, String)> = [
        // usage of the schema
        ("", "select fhir.put('Patient', 'new', '{}')"),
        ("", "select fhir.purge_tombstones('infinity')"),
        ("", "select fhir.restamp('-1 year')"),
        ("", "select nextval('fhir.version')"),
        ("", "select setval('fhir.version', 1)"),
        ("", "delete from fhir.tombstone"),
        ("", "create trigger t before insert on fhir.resource for each row execute function fhir.stamp_insert()"),
        ("", "create function fhir.mine() returns int language sql as 'select 1'"),
        ("", "create or replace function fhir.stamp_insert() returns trigger language plpgsql as 'begin end'"),
        ("", "alter function fhir.stamp_insert() security invoker"),
        // one right each
        ("grant insert on fhir.resource to {role}", "delete from fhir.resource"),
        ("grant insert on fhir.resource to {role}", "update fhir.resource set content = '{}'"),
        ("grant insert on fhir.resource to {role}", "select * from fhir.resource"),
        ("grant insert on fhir.resource to {role}", "select setval('fhir.version', 1)"),
        ("grant insert on fhir.resource to {role}", upsert.as_str()),
        ("grant update on fhir.resource to {role}", insert),
        ("grant update on fhir.resource to {role}", "select fhir.restamp('-1 year')"),
        ("grant update on fhir.resource to {role}", "alter table fhir.resource disable trigger stamp_update"),
        ("grant delete on fhir.resource to {role}", "delete from fhir.tombstone"),
        ("grant delete on fhir.resource to {role}", "truncate fhir.resource"),
        ("grant delete on fhir.resource to {role}", "select fhir.purge_tombstones('infinity')"),
        (
            "grant trigger on fhir.resource to {role}",
            "create trigger t after delete on fhir.resource referencing old table as gone
             for each statement execute function fhir.after_delete()",
        ),
        // as whoever may write, with a setting that is the superuser's
        (
            "grant insert, update, delete on fhir.resource to {role}",
            "set session_replication_role = replica; delete from fhir.resource",
        ),
        // creating in the schema does not make what is there one's own
        (
            "grant create on schema fhir to {role}",
            "create or replace function fhir.after_delete() returns trigger language plpgsql as 'begin end'",
        ),
        ("grant create on schema fhir to {role}", "drop function fhir.after_delete() cascade"),
        ("grant create on schema fhir to {role}", "create temp table mine (like fhir.tombstone)"),
    ]
    .into_iter()
    .map(|(grants, sql)| (grants, sql.to_owned()))
    // A table of one's own, with a trigger of ours: what it is like has to be readable.
    .chain(TRIGGERS.map(|(function, when)| {
        ("grant select on fhir.resource to {role}", on_a_table_of_ones_own(function, when))
    }))
    .chain(TRIGGERS.map(|(function, _)| ("", format!("select fhir.{function}()"))))
    .collect();
    for (grants, sql) in refused {
        let (database, owner, role) = scene(grants).await;
        let before = everything(&owner).await;
        let attacker = database.database(&role).connect("attack").await.unwrap();
        assert_eq!(code(&attacker, &sql).await, "42501", "{grants}: {sql}");
        assert_eq!(everything(&owner).await, before, "{grants}: {sql}");
    }
}

/// Triggers that were made while everybody could, and those of a role that was granted it.
#[tokio::test]
async fn the_functions_refuse_every_table_but_their_own() {
    for (function, when) in TRIGGERS {
        let grants = format!(
            "grant select on fhir.resource to {{role}}; grant execute on function fhir.{function}() to {{role}}"
        );
        let (database, owner, role) = scene(&grants).await;
        let before = everything(&owner).await;
        let attacker = database.database(&role).connect("attack").await.unwrap();
        let sql = on_a_table_of_ones_own(function, when);
        let ours = format!("fhir.{function}() is for the ");
        assert!(message(&attacker, &sql).await.starts_with(&ours), "{function}");
        // A table that goes by the name, in a schema that comes first, with types that turn into others by his code.
        let typed = format!(
            "set search_path = evil, pg_catalog;
             create type evil.key as (text text);
             create function evil.to_text(evil.key) returns text language plpgsql as
                 $$ begin raise exception 'ran as %', current_user using errcode = 'EV000'; end $$;
             create cast (evil.key as text) with function evil.to_text(evil.key) as implicit;
             create table evil.resource (resource_type evil.key, id evil.key, version_id bigint,
                 last_updated timestamptz, content json);
             create trigger t {} execute function fhir.{function}();
             insert into evil.resource values (row('Patient'), row('lives'), 1, now(), '{{}}');
             update evil.resource set content = '{{}}'; delete from evil.resource",
            when.replace("{table}", "evil.resource")
        );
        assert!(message(&attacker, &typed).await.starts_with(&ours), "{function}");
        assert_eq!(everything(&owner).await, before, "{function}");
    }
}

/// A right function on the right table, for something else than it is for.
#[tokio::test]
async fn the_functions_refuse_what_they_are_not_for() {
    let (_database, owner, _) = scene("").await;
    for (function, when) in [
        ("stamp_insert", "before update on fhir.resource for each row"),
        ("stamp_bulk_insert", "after insert on fhir.resource for each row"),
        ("stamp_update", "after update on fhir.resource for each row"),
        ("after_delete", "after update on fhir.resource referencing old table as gone for each statement"),
        ("after_delete", "before delete on fhir.resource for each statement"),
        ("after_insert", "after update on fhir.resource referencing new table as fresh for each statement"),
    ] {
        owner
            .batch_execute(&format!("create trigger odd {when} execute function fhir.{function}()"))
            .await
            .unwrap();
        let before = everything(&owner).await.replace(char::is_numeric, "");
        let sql = "begin; update fhir.resource set content = '{}';
                   insert into fhir.resource (resource_type, id, content) values ('Patient', 'new', '{}');
                   delete from fhir.resource; commit";
        let ours = format!("fhir.{function}() is for the ");
        assert!(message(&owner, sql).await.starts_with(&ours), "{function}, {when}");
        owner.batch_execute("rollback; drop trigger odd on fhir.resource").await.unwrap();
        assert_eq!(everything(&owner).await.replace(char::is_numeric, ""), before, "{function}, {when}");
    }
}

const WRITER: &str = "grant select, insert, update, delete on fhir.resource to {role}";

/// Whatever a writer says, and from wherever he says it.
#[tokio::test]
async fn a_stamp_is_the_clocks_whatever_a_writer_does() {
    let forged = "set version_id = 1, last_updated = '2999-01-01', content = '{}'";
    let values = "values ('Patient', 'new', 1, '2999-01-01', '{}')";
    let nested = |statement: &str, when: &str| {
        format!(
            "create temp table mine (n int);
             create function evil.nested() returns trigger language plpgsql as $$ begin {statement}; return null; end $$;
             create trigger mine after insert on mine {when} execute function evil.nested();
             insert into mine values (1)"
        )
    };
    let update = format!("update fhir.resource {forged}");
    let insert = format!("insert into fhir.resource {values}");
    for sql in [
        update.clone(),
        insert.clone(),
        format!("{insert} on conflict (resource_type, id) do update {forged}"),
        format!(
            "insert into fhir.resource values ('Patient', 'lives', 1, '2999-01-01', '{{}}')
                 on conflict (resource_type, id) do update {forged}"
        ),
        format!("begin; set local fhir.bulk_load = on; {insert}; commit"),
        format!("set fhir.keys_locked = 'of no number'; begin; {update}; {insert}; commit"),
        format!("set fhir.bulk_load = 'of no use'; {insert}"),
        // What a trigger of a writer's own does is nothing else.
        nested(&update, "for each row"),
        nested(&update, "for each statement"),
        nested(&insert, "for each row"),
        nested(
            &format!("perform set_config('fhir.bulk_load', 'on', true); {insert}; {update}"),
            "for each row",
        ),
        nested("delete from fhir.resource", "for each row"),
        nested("insert into fhir.resource values ('Patient', 'dead', 1, '2999-01-01', '{}')", "for each row"),
    ] {
        let (database, owner, role) = scene(WRITER).await;
        let attacker = database.database(&role).connect("attack").await.unwrap();
        attacker.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let written = "(select id, version_id, last_updated from fhir.resource union all
                        select id, version_id, last_updated from fhir.tombstone) w";
        let forged = format!("select count(*) from {written} where last_updated > clock_timestamp()");
        assert_eq!(number(&owner, &forged).await, 0, "{sql}");
        // Two inserts and a deletion were numbered before.
        let new = format!(
            "select (max(version_id) > 3 and min(version_id) filter (where id = 'new') is distinct from 1)::text from {written}"
        );
        assert_eq!(text(&owner, &new).await, "true", "{sql}");
        let both = "select count(*) from fhir.tombstone join fhir.resource using (resource_type, id)";
        assert_eq!(number(&owner, both).await, 0, "{sql}");
    }
}

/// Names that mean something else to who has put a schema of his own before Postgres'.
const FALSE_NAMES: &str = "
    create table evil.log (who text);
    create function evil.note() returns void language plpgsql as
        $$ begin insert into evil.log values (current_user); end $$;
    grant all on all tables in schema evil to public; grant usage on schema evil to public;
    create function evil.clock_timestamp() returns timestamptz language sql as
        $$ select evil.note(); select timestamptz '2999-01-01' $$;
    create function evil.nextval(regclass) returns bigint language sql as $$ select evil.note(); select 1::bigint $$;
    create function evil.pg_current_xact_id() returns xid8 language sql as $$ select evil.note(); select '1'::xid8 $$;
    create function evil.format(text, name) returns text language sql as $$ select evil.note(); select ''::text $$;
    create function evil.octet_length(text) returns int language sql as $$ select evil.note(); select 99 $$;
    create function evil.current_setting(text) returns text language sql as $$ select evil.note(); select 'x'::text $$;
    create function evil.current_setting(text, bool) returns text language sql as
        $$ select evil.note(); select 'on'::text $$;
    create function evil.hashtextextended(text, bigint) returns bigint language sql as
        $$ select evil.note(); select 1::bigint $$;
    create function evil.texts(text, text) returns bool language sql as $$ select evil.note(); select true $$;
    create function evil.oids(oid, regclass) returns bool language sql as $$ select evil.note(); select false $$;
    create function evil.more(bigint, bigint) returns bool language sql as $$ select evil.note(); select true $$;
    create function evil.times(timestamptz, timestamptz) returns bool language sql as
        $$ select evil.note(); select true $$;
    create function evil.both(text, text) returns text language sql as $$ select evil.note(); select ''::text $$;
    create operator evil.= (leftarg = text, rightarg = text, function = evil.texts);
    create operator evil.<> (leftarg = text, rightarg = text, function = evil.texts);
    create operator evil.|| (leftarg = text, rightarg = text, function = evil.both);
    create operator evil.= (leftarg = oid, rightarg = regclass, function = evil.oids);
    create operator evil.<> (leftarg = oid, rightarg = regclass, function = evil.oids);
    create operator evil.> (leftarg = bigint, rightarg = bigint, function = evil.more);
    create operator evil.<> (leftarg = bigint, rightarg = bigint, function = evil.more);
    create operator evil.> (leftarg = timestamptz, rightarg = timestamptz, function = evil.times);
    create operator evil.< (leftarg = timestamptz, rightarg = timestamptz, function = evil.times);
    create function evil.checked(anyelement) returns bool language plpgsql as
        $$ begin perform evil.note(); return true; end $$;
    create domain evil.timestamptz as pg_catalog.timestamptz check (evil.checked(value));
    create domain evil.xid8 as pg_catalog.xid8 check (evil.checked(value));
    create domain evil.text as pg_catalog.text check (evil.checked(value));
    create domain evil.regclass as pg_catalog.regclass check (evil.checked(value));
    create temp table tombstone (like fhir.resource);
    create temp table resource (like fhir.resource);
    create temp table fresh (like fhir.resource);
    create temp table gone (like fhir.resource);
    create temp table pg_locks (mine int);
    create temp table pg_stat_activity (mine int);";

/// They are called as the writer, never as the owner; and the owner who has come to such a path is not caught either.
#[tokio::test]
async fn false_names_on_the_search_path_are_not_used() {
    let writes = [
        "insert into fhir.resource values ('Patient', 'new', 1, '2999-01-01', '{}')",
        "insert into fhir.resource (resource_type, id, content) values ('Patient', 'dead', '{}')",
        "update fhir.resource set content = '{}'",
        "delete from fhir.resource",
        "begin; set local fhir.bulk_load = on;
         insert into fhir.resource (resource_type, id, content) values ('Patient', 'more', '{}'); commit",
        "begin isolation level repeatable read; select 1;
         insert into fhir.resource (resource_type, id, content) values ('Patient', 'old', '{}'); commit",
        "select fhir.put('Patient', 'put', '{}')",
    ];
    let (database, owner, role) = scene(WRITER).await;
    let attacker = database.database(&role).connect("attack").await.unwrap();
    attacker.batch_execute(FALSE_NAMES).await.unwrap();
    for path in ["evil, pg_temp, pg_catalog", "evil, pg_catalog, pg_temp"] {
        attacker.batch_execute(&format!("set search_path = {path}")).await.unwrap();
        for sql in writes {
            attacker.batch_execute(sql).await.unwrap_or_else(|error| panic!("{path}: {sql}: {error:?}"));
        }
        attacker.batch_execute("delete from fhir.resource").await.unwrap();
    }
    let mine = format!("select count(*) from evil.log where who <> '{role}'");
    assert_eq!(number(&owner, &mine).await, 0);
    let ahead =
        "select count(*) from fhir.tombstone where last_updated > clock_timestamp() or version_id < 4";
    // The one that was there is the third.
    assert_eq!(number(&owner, ahead).await, 0);

    owner.batch_execute("set search_path = evil, pg_catalog").await.unwrap();
    for sql in writes {
        owner.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    owner
        .batch_execute("select fhir.restamp('-1 day'); select fhir.purge_tombstones('infinity')")
        .await
        .unwrap();
    assert_eq!(code(&owner, "truncate fhir.resource").await, "0A000");
    owner.batch_execute("set search_path = pg_catalog").await.unwrap();
    assert_eq!(number(&owner, &mine).await, 0, "the owner ran somebody's code");
}

/// Anybody may take an advisory lock, also on a key that he cannot write.
#[tokio::test]
async fn a_lock_that_is_no_writers_keeps_nobody_waiting() {
    let (database, owner, role) = scene("").await;
    let attacker = database.database(&role).connect("attack").await.unwrap();
    owner.batch_execute("begin; select fhir.put('Patient', 'new', '{}')").await.unwrap();
    let key = "select (classid::bigint << 32) | objid::bigint from pg_locks
                where locktype = 'advisory'
                  and database = (select oid from pg_database where datname = current_database())";
    let key = number(&attacker, key).await;
    owner.batch_execute("rollback").await.unwrap();
    attacker.batch_execute(&format!("begin; select pg_advisory_xact_lock({key})")).await.unwrap();
    owner.batch_execute("set lock_timeout = '10s'; select fhir.put('Patient', 'new', '{}')").await.unwrap();
    attacker.batch_execute("commit").await.unwrap();
}

-- The native layout: one row for each resource, one for each that was deleted, and the triggers that
-- number and date every write.
--
-- Plain INSERT, UPDATE, DELETE, MERGE and COPY on fhir.resource are the way to write. An insert names
-- resource_type, id and content; version_id and last_updated are set here, whatever the statement says.
--
-- Everything in this file is new when it runs, so nothing is rewritten and nobody waits. It needs the
-- right to CREATE in the database, no more. PostgreSQL 14 to 18.

create schema if not exists fhir;

-- One sequence numbers the versions of all resources. They rise for each resource because a number is
-- drawn while its row is locked; "cache 1", because a session that drew numbers in advance would
-- use an old one after another session's newer one.
create sequence fhir.version as bigint cache 1 no cycle;

create table fhir.resource (
    resource_type text collate "C" not null,
    id            text collate "C" not null,
    version_id    bigint not null,
    last_updated  timestamptz not null,
    -- json, not jsonb: the text stays as it was written (decimals, order of keys), and is read faster.
    content       json not null,
    -- Lengths apart from the patterns: a pattern with a bound takes ten times as long to match.
    constraint resource_type_is_a_fhir_type_name check (
        octet_length(resource_type) <= 64 and resource_type ~ '^[A-Z]' and resource_type !~ '[^A-Za-z]'),
    constraint resource_id_is_a_fhir_id check (octet_length(id) between 1 and 64 and id !~ '[^A-Za-z0-9.-]'),
    constraint resource_content_is_an_object check (json_typeof(content) = 'object')
);
-- The order in which a replay reads.
create index resource_replay on fhir.resource (resource_type, last_updated, id);
-- The key after it, since of two indexes that look equally good the planner takes the later one: a plan for
-- a key that was made while the table was small would otherwise walk all of the type in the other index.
alter table fhir.resource add constraint resource_pkey primary key (resource_type, id);

-- What was deleted, with the content it had last (which says whose it was). A tombstone counts
-- only while fhir.resource has no row with its key.
create table fhir.tombstone (
    resource_type text collate "C" not null,
    id            text collate "C" not null,
    version_id    bigint not null,
    last_updated  timestamptz not null,
    content       json not null
);
create index tombstone_replay on fhir.tombstone (resource_type, last_updated, id);
alter table fhir.tombstone add constraint tombstone_pkey primary key (resource_type, id);

-- On the trigger functions below:
--   * "security definer": who may write fhir.resource needs no right on the sequence and the tombstones.
--   * "enable_seqscan = off": their plans are kept for the session. One made while a table was empty
--     would otherwise read the whole table for every row of a load;
--   * "jit = off": a plan made for a statement of many rows would be compiled again for each of one row
--     (measured: 0.8 ms an insert).

-- Numbers and dates an insert. The order of the steps matters:
--   1. the wait for a concurrent writer of the same key comes before the stamp, else the one who waited
--      has the newer content and the older stamp;
--   2. a transaction has an id before it reads the clock for a stamp: by that id pg_stat_activity shows
--      that something stamped before now may still be uncommitted;
--   3. the clock, not now(): a later version never carries an earlier stamp.
--
-- Every name in it is written with its schema, so that it needs no search_path of its own: setting one takes
-- a tenth of an insert's time.
create function fhir.stamp_insert() returns trigger
    language plpgsql security definer
    set enable_seqscan = off
as $$
declare
    xid pg_catalog.xid8;
begin
    perform from fhir.resource r
      where r.resource_type operator(pg_catalog.=) new.resource_type and r.id operator(pg_catalog.=) new.id
        for update;
    xid := pg_catalog.pg_current_xact_id();
    new.version_id := pg_catalog.nextval('fhir.version');
    new.last_updated := pg_catalog.clock_timestamp();
    return new;
end
$$;

-- The same for who loads a great deal and has said so: "set local fhir.bulk_load = on". It does not look for a row
-- to lock, which is a quarter of a load's time. Then an insert may wait behind its stamp, for a transaction
-- that deletes the same key, and fhir.after_insert refuses it: that transaction is to be run again, without
-- the setting if it has to succeed.
create function fhir.stamp_bulk_insert() returns trigger
    language plpgsql security definer
as $$
declare
    xid pg_catalog.xid8;
begin
    xid := pg_catalog.pg_current_xact_id();
    new.version_id := pg_catalog.nextval('fhir.version');
    new.last_updated := pg_catalog.clock_timestamp();
    return new;
end
$$;

-- Numbers and dates an update. Postgres has locked the row by now.
create function fhir.stamp_update() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    xid xid8;
begin
    if new.resource_type <> old.resource_type or new.id <> old.id then
        raise exception 'the key of a resource cannot be changed'
            using errcode = 'integrity_constraint_violation',
                  table = 'resource', schema = 'fhir',
                  hint = 'Delete the resource and insert it with its new resource_type and id.';
    end if;
    -- Written again in full: of a large content that the statement left alone the log would only say
    -- that it is as before.
    if new.content::text = old.content::text then
        new.content := new.content::text::json;
    end if;
    xid := pg_current_xact_id();
    new.version_id := nextval('fhir.version');
    -- new.last_updated counts only when it comes from fhir.after_insert (a floor).
    new.last_updated := greatest(clock_timestamp(), old.last_updated + interval '1 microsecond',
                                 case when pg_trigger_depth() > 1 then new.last_updated end);
    return new;
end
$$;

-- Writes the tombstones of what a statement deleted.
create function fhir.after_delete() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
begin
    insert into fhir.tombstone as t (resource_type, id, version_id, last_updated, content)
    select g.resource_type, g.id, nextval('fhir.version'),
           greatest(clock_timestamp(), g.last_updated + interval '1 microsecond'), g.content
      from gone g
     -- One statement can delete a row and insert it again.
     where (select r.id from fhir.resource r where r.resource_type = g.resource_type and r.id = g.id) is null
    on conflict on constraint tombstone_pkey do update
       set version_id = excluded.version_id,
           last_updated = greatest(excluded.last_updated, t.last_updated + interval '1 microsecond'),
           content = excluded.content;
    return null;
end
$$;

-- Takes away the tombstones of what a statement inserted. Not done before the insert: that may still
-- have to wait for a transaction which deletes the same key, and would leave its tombstone. In that case the
-- tombstone is younger than the row, whose stamp was drawn before the wait: then the row is
-- stamped once more, or refused if it is one of a bulk load.
create function fhir.after_insert() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    row record;
    dead record;
    bulk boolean := current_setting('fhir.bulk_load', true) is not distinct from 'on';
begin
    if bulk and current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'a bulk load needs transactions that are "read committed"'
            using errcode = 'invalid_transaction_state',
                  hint = 'begin isolation level read committed';
    end if;
    for row in
        select f.resource_type, f.id, f.version_id, f.last_updated from fresh f
         where (select t.id from fhir.tombstone t where t.resource_type = f.resource_type and t.id = f.id)
               is not null
    loop
        delete from fhir.tombstone t
         where t.resource_type = row.resource_type and t.id = row.id
        returning t.version_id, t.last_updated into dead;
        if dead.version_id > row.version_id or dead.last_updated >= row.last_updated then
            if bulk then
                raise exception 'a resource of this bulk load was deleted meanwhile'
                    using errcode = 'serialization_failure',
                          hint = 'run the transaction again; with fhir.bulk_load off it does not come to this';
            end if;
            update fhir.resource r set last_updated = dead.last_updated + interval '1 microsecond'
             where r.resource_type = row.resource_type and r.id = row.id;
        end if;
    end loop;
    -- A transaction with an old snapshot cannot see such a tombstone. Unless it drew all the
    -- numbers since its first by itself, it stamps its rows again, now that nothing waits any more.
    if current_setting('transaction_isolation') <> 'read committed' then
        if (select pg_sequence_last_value('fhir.version') - min(f.version_id) + 1 <> count(*) from fresh f) then
            for row in select f.resource_type, f.id from fresh f loop
                update fhir.resource r set last_updated = r.last_updated
                 where r.resource_type = row.resource_type and r.id = row.id;
            end loop;
        end if;
    end if;
    return null;
end
$$;

-- What is stored out of line or compressed is most of what a replay reads: lz4 is written and read faster than
-- the default, where the server was built with it.
do $$
begin
    alter table fhir.resource alter column content set compression lz4;
    alter table fhir.tombstone alter column content set compression lz4;
exception when feature_not_supported then
    null;
end
$$;

create function fhir.refuse_truncate() returns trigger language plpgsql as $$
begin
    raise exception 'fhir.% cannot be truncated: nobody would hear that its resources are gone', tg_table_name
        using errcode = 'feature_not_supported',
              hint = format('delete from fhir.%I', tg_table_name);
end
$$;

create trigger stamp_insert before insert on fhir.resource
    for each row when (current_setting('fhir.bulk_load', true) is distinct from 'on')
    execute function fhir.stamp_insert();
create trigger stamp_bulk_insert before insert on fhir.resource
    for each row when (current_setting('fhir.bulk_load', true) is not distinct from 'on')
    execute function fhir.stamp_bulk_insert();
create trigger stamp_update before update on fhir.resource
    for each row execute function fhir.stamp_update();
create trigger after_delete after delete on fhir.resource
    referencing old table as gone for each statement execute function fhir.after_delete();
create trigger after_insert after insert on fhir.resource
    referencing new table as fresh for each statement execute function fhir.after_insert();
create trigger refuse_truncate before truncate on fhir.resource
    for each statement execute function fhir.refuse_truncate();
create trigger refuse_truncate before truncate on fhir.tombstone
    for each statement execute function fhir.refuse_truncate();

-- Also where session_replication_role is "replica", as some loaders set it.
alter table fhir.resource
    enable always trigger stamp_insert, enable always trigger stamp_bulk_insert, enable always trigger stamp_update,
    enable always trigger after_delete, enable always trigger after_insert,
    enable always trigger refuse_truncate;
alter table fhir.tombstone enable always trigger refuse_truncate;

-- The native layout: one row for each resource, one for each that was deleted, and the triggers that
-- number and date every write.
--
-- Plain INSERT, UPDATE, DELETE, MERGE and COPY on fhir.resource are the way to write. An insert names
-- resource_type, id and content; version_id and last_updated are set here, whatever the statement says.
--
-- Everything in this file is new when it runs, so nothing is rewritten and no writer waits. It needs the
-- right to CREATE in the database, no more. PostgreSQL 14 to 18.

-- Names in this file mean what they mean to Postgres, whatever the session's search_path is.
set local search_path = pg_catalog, pg_temp;

create schema if not exists fhir;

-- One sequence numbers the versions of all resources. They rise for each resource because a number is
-- drawn while its row is locked; "cache 1", because a session that drew numbers in advance would
-- use an old one after another session's newer one.
create sequence fhir.version as bigint cache 1 no cycle;

-- The closed time, in microseconds since 1970: no stamp is taken at or before it any more, whatever the clock
-- does. The service closes a time (fhir.close_time) before it tells a client that all stamped until then has
-- been seen. A sequence, since what is set in one is seen at once, whatever the snapshots, and is not taken
-- back by a roll-back.
create sequence fhir.closed_time as bigint cache 1 no cycle;

-- While an insert would be stamped at or before this time, also in microseconds, it looks at its key's
-- tombstone, which may have the later stamp: the clock has stepped back since the deletion.
create sequence fhir.tombstones_until as bigint cache 1 no cycle;

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

-- What a row is stamped with: the clock, or the moment after the closed time if the clock is behind that. It
-- is called by a transaction that has an id, for which whoever closes a time waits.
--
-- One expression with all names and operators in full, which Postgres puts in the place of the call. The
-- same goes for fhir.fired.
create function fhir.stamp() returns timestamptz
    language sql volatile
as $$
    select greatest(
        pg_catalog.clock_timestamp(),
        timestamp with time zone 'epoch' operator(pg_catalog.+) (interval '1 microsecond' operator(pg_catalog.*)
            (pg_catalog.pg_sequence_last_value('fhir.closed_time'::pg_catalog.regclass)
             operator(pg_catalog.+) 1)::pg_catalog.float8))
$$;

-- Whether a trigger function was called by the trigger that it is for ('BEFORE', 'ROW', 'INSERT'), on
-- fhir.resource or a partition of it. The functions below work with the rights of their owner, who may be a superuser, so each
-- asks this before it does anything; and only the owner can make a trigger of them. (A trigger that exists
-- needs no right: writers are not affected.)
create function fhir.fired(
    tg_when text, tg_level text, tg_op text, tg_relid oid, timing text, level text, operation text
) returns boolean
    language sql stable
as $$
    select tg_when operator(pg_catalog.=) timing and tg_level operator(pg_catalog.=) level
       and tg_op operator(pg_catalog.=) operation
       and (tg_relid operator(pg_catalog.=) 'fhir.resource'::pg_catalog.regclass
            or coalesce(pg_catalog.pg_partition_root(tg_relid)
                        operator(pg_catalog.=) 'fhir.resource'::pg_catalog.regclass, false))
$$;

-- On the trigger functions:
--   * "security definer": a role that writes fhir.resource needs no right on the sequence and the tombstones;
--   * "enable_seqscan = off": their plans are kept for the session. One made while a table was empty
--     would otherwise read the whole table for every row of a load;
--   * "jit = off": a plan made for a statement of many rows would be compiled again for each of one row
--     (measured: 0.8 ms an insert).

-- Numbers and dates an insert. The order of the steps matters:
--   1. the wait for a concurrent writer of the same key comes before the stamp, else the one that waited
--      has the newer content and the older stamp. If the row is there, its lock is waited for. If it is
--      not, another transaction may have inserted it and not committed yet, which the lock on the key shows;
--   2. a transaction has an id before it reads the clock for a stamp: by that id pg_stat_activity shows
--      that something stamped before now may still be uncommitted;
--   3. the clock, not now(): a later version never carries an earlier stamp. For the same reason the stamp
--      is later than that of the key's tombstone. That is looked up only when fhir.after_insert has found
--      that the clock has stepped back: each time it would be a fifth of what a row of a large insert takes.
--
-- The key is locked after the look at the row. The other way round, a transaction that deletes the row and
-- inserts it again, and one that waits for the row with the key locked, would wait for each other.
--
-- A transaction locks its first sixteen keys and no more: locks are kept in memory that the whole server
-- shares. The first is not counted, as counting costs more than the lock. Where an insert waits behind its
-- stamp all the same, fhir.after_insert finds out.
--
-- Every name and operator in it is written with its schema, so that it needs no search_path of its own:
-- setting one takes a tenth of an insert's time. ("is distinct from", "in" and "case x when" look "=" up by
-- the search_path.)
create function fhir.stamp_insert() returns trigger
    language plpgsql security definer
    set enable_seqscan = off
as $$
declare
    xid    pg_catalog.xid8;
    locked pg_catalog.text;
    key    pg_catalog.int8;
    dead   pg_catalog.timestamptz;
begin
    if not fhir.fired(tg_when, tg_level, tg_op, tg_relid, 'BEFORE', 'ROW', 'INSERT') then
        raise exception 'fhir.stamp_insert() is for the inserts of fhir.resource only'
            using errcode = 'insufficient_privilege';
    end if;
    perform from fhir.resource r
      where r.resource_type operator(pg_catalog.=) new.resource_type and r.id operator(pg_catalog.=) new.id
        for update;
    if not found then
        if pg_catalog.pg_current_xact_id_if_assigned() is not null then
            locked := coalesce(pg_catalog.current_setting('fhir.keys_locked', true), '');
        end if;
        if coalesce(pg_catalog.octet_length(locked), 0) operator(pg_catalog.<) 15 then
            if not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(
                new.resource_type operator(pg_catalog.||) '/' operator(pg_catalog.||) new.id, 7379538034713405804))
            then
                key := pg_catalog.hashtextextended(
                    new.resource_type operator(pg_catalog.||) '/' operator(pg_catalog.||) new.id,
                    7379538034713405804);
                -- Any session may take such a lock. Only a writer of this table is waited for.
                perform from pg_catalog.pg_locks a join pg_catalog.pg_locks w
                     on w.virtualtransaction operator(pg_catalog.=) a.virtualtransaction
                  where a.locktype operator(pg_catalog.=) 'advisory' and a.granted
                    and a.objsubid operator(pg_catalog.=) 1
                    and a.database operator(pg_catalog.=) (select d.oid from pg_catalog.pg_database d
                          where d.datname operator(pg_catalog.=) pg_catalog.current_database())
                    and a.classid::pg_catalog.int8 operator(pg_catalog.=)
                        ((key operator(pg_catalog.>>) 32) operator(pg_catalog.&) 4294967295)
                    and a.objid::pg_catalog.int8 operator(pg_catalog.=) (key operator(pg_catalog.&) 4294967295)
                    and w.locktype operator(pg_catalog.=) 'relation' and w.granted
                    and w.relation operator(pg_catalog.=) tg_relid
                    and w.mode operator(pg_catalog.=) 'RowExclusiveLock'
                  limit 1;
                if found then
                    perform pg_catalog.pg_advisory_xact_lock(key);
                end if;
                perform from fhir.resource r
                  where r.resource_type operator(pg_catalog.=) new.resource_type
                    and r.id operator(pg_catalog.=) new.id
                    for update;
            end if;
            if locked is not null then
                locked := pg_catalog.set_config('fhir.keys_locked', locked operator(pg_catalog.||) '.', true);
            end if;
        end if;
    end if;
    xid := pg_catalog.pg_current_xact_id();
    new.version_id := pg_catalog.nextval('fhir.version');
    new.last_updated := fhir.stamp();
    if timestamp with time zone 'epoch' operator(pg_catalog.+) (interval '1 microsecond' operator(pg_catalog.*)
           pg_catalog.pg_sequence_last_value('fhir.tombstones_until'::pg_catalog.regclass)::pg_catalog.float8)
       operator(pg_catalog.>=) new.last_updated then
        select t.last_updated into dead from fhir.tombstone t
          where t.resource_type operator(pg_catalog.=) new.resource_type and t.id operator(pg_catalog.=) new.id;
        if dead operator(pg_catalog.>=) new.last_updated then
            new.last_updated := dead operator(pg_catalog.+) interval '1 microsecond';
        end if;
    end if;
    return new;
end
$$;

-- The same for a session that loads a great deal and says so: "set local fhir.bulk_load = on". It looks
-- for nothing and locks nothing, which is a quarter of a load's time. Where a deletion makes that wrong,
-- fhir.after_insert refuses the statement.
create function fhir.stamp_bulk_insert() returns trigger
    language plpgsql security definer
as $$
declare
    xid pg_catalog.xid8;
begin
    if not fhir.fired(tg_when, tg_level, tg_op, tg_relid, 'BEFORE', 'ROW', 'INSERT') then
        raise exception 'fhir.stamp_bulk_insert() is for the inserts of fhir.resource only'
            using errcode = 'insufficient_privilege';
    end if;
    xid := pg_catalog.pg_current_xact_id();
    new.version_id := pg_catalog.nextval('fhir.version');
    new.last_updated := fhir.stamp();
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
    if not fhir.fired(tg_when, tg_level, tg_op, tg_relid, 'BEFORE', 'ROW', 'UPDATE') then
        raise exception 'fhir.stamp_update() is for the updates of fhir.resource only'
            using errcode = 'insufficient_privilege';
    end if;
    if new.resource_type <> old.resource_type or new.id <> old.id then
        raise exception 'the key of a resource cannot be changed'
            using errcode = 'integrity_constraint_violation',
                  table = 'resource', schema = 'fhir',
                  hint = 'Delete the resource and insert it with its new resource_type and id.';
    end if;
    -- Written again in full: of a large content that the statement left alone the log would only
    -- say that it is as before.
    if new.content::text = old.content::text then
        new.content := new.content::text::json;
    end if;
    xid := pg_current_xact_id();
    new.version_id := nextval('fhir.version');
    new.last_updated := greatest(fhir.stamp(), old.last_updated + interval '1 microsecond');
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
    if not fhir.fired(tg_when, tg_level, tg_op, tg_relid, 'AFTER', 'STATEMENT', 'DELETE') then
        raise exception 'fhir.after_delete() is for the deletes of fhir.resource only'
            using errcode = 'insufficient_privilege';
    end if;
    insert into fhir.tombstone as t (resource_type, id, version_id, last_updated, content)
    select g.resource_type, g.id, nextval('fhir.version'),
           greatest(fhir.stamp(), g.last_updated + interval '1 microsecond'), g.content
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

-- Takes away the tombstones of what a statement inserted. Not done before the insert: that may still have
-- to wait for a transaction which deletes the same key, and would leave its tombstone.
--
-- The statement is refused (40001) if such a tombstone has the greater number, as the insert has waited
-- behind its stamp, or the later stamp, as the clock has stepped back. The log has the row already: a second
-- stamp would be told after the first, which is older than the deletion. Run again, it is stamped later.
create function fhir.after_insert() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    newest bigint;
    row    record;
    dead   record;
begin
    if not fhir.fired(tg_when, tg_level, tg_op, tg_relid, 'AFTER', 'STATEMENT', 'INSERT') then
        raise exception 'fhir.after_insert() is for the inserts of fhir.resource only'
            using errcode = 'insufficient_privilege';
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        if current_setting('fhir.bulk_load', true) = 'on' then
            raise exception 'a bulk load needs transactions that are "read committed"'
                using errcode = 'invalid_transaction_state',
                      hint = 'begin isolation level read committed';
        end if;
        -- A transaction with an old snapshot may not see such a tombstone. For the rows behind
        -- whose stamps others drew numbers it writes tombstones of its own and takes them back: one
        -- that it cannot see is in the way of that, and Postgres refuses the statement (40001).
        newest := pg_sequence_last_value('fhir.version');
        if (select newest - min(f.version_id) + 1 <> count(*) from fresh f) then
            begin
                insert into fhir.tombstone (resource_type, id, version_id, last_updated, content)
                select f.resource_type, f.id, f.version_id, f.last_updated, '{}'
                  from (select *, row_number() over (order by version_id desc) as and_younger from fresh) f
                 where f.and_younger <> newest - f.version_id + 1
                on conflict on constraint tombstone_pkey do nothing;
                raise exception using errcode = 'FT000', message = 'nothing is in the way';
            exception when sqlstate 'FT000' then
                null;
            end;
        end if;
    end if;
    for row in
        select f.resource_type, f.id, f.version_id, f.last_updated from fresh f
         where (select t.id from fhir.tombstone t where t.resource_type = f.resource_type and t.id = f.id)
               is not null
    loop
        select t.version_id, t.last_updated into dead from fhir.tombstone t
         where t.resource_type = row.resource_type and t.id = row.id;
        if dead.version_id > row.version_id or dead.last_updated >= row.last_updated then
            -- A sequence keeps this although the transaction is rolled back.
            perform setval('fhir.tombstones_until', (extract(epoch from max(t.last_updated)) * 1000000)::bigint)
               from fresh f join fhir.tombstone t using (resource_type, id);
            raise exception 'a resource was deleted after its insert was stamped'
                using errcode = 'serialization_failure',
                      hint = case when current_setting('fhir.bulk_load', true) = 'on'
                                  then 'run the transaction again, with fhir.bulk_load off if it has to succeed'
                                  else 'run the transaction again' end;
        end if;
        delete from fhir.tombstone t where t.resource_type = row.resource_type and t.id = row.id;
    end loop;
    return null;
end
$$;

create function fhir.refuse_truncate() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'fhir.% cannot be truncated: no subscriber would hear that its resources are gone', tg_table_name
        using errcode = 'feature_not_supported',
              hint = format('delete from fhir.%I', tg_table_name);
end
$$;

revoke all on function
    fhir.stamp(), fhir.fired(text, text, text, oid, text, text, text), fhir.stamp_insert(), fhir.stamp_bulk_insert(),
    fhir.stamp_update(), fhir.after_delete(), fhir.after_insert(), fhir.refuse_truncate()
    from public;

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

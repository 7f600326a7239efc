-- The closed time: no stamp is taken at or before it any more, whatever the clock does.
--
-- The service closes a time before it tells anybody that all that was stamped until then has been seen. Without it a
-- clock that steps back would let a transaction stamp before a time that clients have been told of: neither would
-- a replay that goes up to that time bring it while it is invisible (it may wait for a synchronous standby), nor one
-- that begins there.
--
-- Functions and a sequence: nothing is rewritten, and nobody waits. Writers use them from their next statement on.

-- Names in this file mean what they mean to Postgres, whatever the session's search_path is.
set local search_path = pg_catalog, pg_temp;

-- Microseconds since 1970. A sequence, since what is set in one is seen by all at once, whatever their snapshots, and
-- is not taken back by a roll-back.
create sequence fhir.closed_time as bigint cache 1 no cycle;

-- What a row is stamped with: the clock, or the moment after the closed time if the clock is behind that. To be asked
-- by a transaction that has an id: who closes a time then waits for it.
--
-- One expression with all names and operators in full, which Postgres puts in the place of the call.
create function fhir.stamp() returns timestamptz
    language sql volatile
as $$
    select greatest(
        pg_catalog.clock_timestamp(),
        timestamp with time zone 'epoch' operator(pg_catalog.+) (interval '1 microsecond' operator(pg_catalog.*)
            (pg_catalog.pg_sequence_last_value('fhir.closed_time'::pg_catalog.regclass)
             operator(pg_catalog.+) 1)::pg_catalog.float8))
$$;

-- Closes the time up to now, and up to `reached` if that is a little ahead of the clock; returns the closed time,
-- which never falls. It is on the database's disk when the transaction has ended, without waiting for a standby.
create function fhir.close_time(reached timestamptz default null) returns timestamptz
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    clock  timestamptz;
    before bigint;
    closed bigint;
begin
    perform set_config('synchronous_commit', 'local', true);
    -- One at a time, or the later of two could set the earlier time. Any table that only its owner can lock in
    -- this mode would do.
    lock table fhir.purged in share update exclusive mode;
    clock := clock_timestamp();
    before := pg_sequence_last_value('fhir.closed_time');
    -- What is further ahead than that counts as damaged: see fhir.restamp.
    if reached > clock and reached <= clock + interval '1 minute' then
        clock := reached;
    end if;
    closed := greatest(before, (extract(epoch from clock) * 1000000)::bigint);
    if closed is distinct from before then
        perform setval('fhir.closed_time', closed);
    end if;
    return timestamp with time zone 'epoch' + interval '1 microsecond' * closed::float8;
end
$$;

revoke all on function fhir.stamp(), fhir.close_time(timestamptz) from public;

do $$
begin
    if exists (select from pg_roles where rolname = 'fhir_tail') then
        grant execute on function fhir.close_time(timestamptz) to fhir_tail;
    end if;
end
$$;

-- The functions that stamp, as they were but for the clock that they ask.

create or replace function fhir.stamp_insert() returns trigger
    language plpgsql security definer
    set enable_seqscan = off
as $$
declare
    xid    pg_catalog.xid8;
    locked pg_catalog.text;
    key    pg_catalog.int8;
begin
    if tg_when operator(pg_catalog.<>) 'BEFORE' or tg_level operator(pg_catalog.<>) 'ROW'
       or tg_op operator(pg_catalog.<>) 'INSERT'
       or tg_relid operator(pg_catalog.<>) 'fhir.resource'::pg_catalog.regclass
          and not coalesce(pg_catalog.pg_partition_root(tg_relid)
                           operator(pg_catalog.=) 'fhir.resource'::pg_catalog.regclass, false) then
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
                -- Anybody may take such a lock. Only for a writer of this table is it worth
                -- waiting.
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
    return new;
end
$$;

create or replace function fhir.stamp_bulk_insert() returns trigger
    language plpgsql security definer
as $$
declare
    xid pg_catalog.xid8;
begin
    if tg_when operator(pg_catalog.<>) 'BEFORE' or tg_level operator(pg_catalog.<>) 'ROW'
       or tg_op operator(pg_catalog.<>) 'INSERT'
       or tg_relid operator(pg_catalog.<>) 'fhir.resource'::pg_catalog.regclass
          and not coalesce(pg_catalog.pg_partition_root(tg_relid)
                           operator(pg_catalog.=) 'fhir.resource'::pg_catalog.regclass, false) then
        raise exception 'fhir.stamp_bulk_insert() is for the inserts of fhir.resource only'
            using errcode = 'insufficient_privilege';
    end if;
    xid := pg_catalog.pg_current_xact_id();
    new.version_id := pg_catalog.nextval('fhir.version');
    new.last_updated := fhir.stamp();
    return new;
end
$$;

create or replace function fhir.stamp_update() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    xid xid8;
begin
    if tg_when <> 'BEFORE' or tg_level <> 'ROW' or tg_op <> 'UPDATE'
       or tg_relid <> 'fhir.resource'::regclass
          and not coalesce(pg_partition_root(tg_relid) = 'fhir.resource'::regclass, false) then
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
    -- fhir.after_insert asks for a stamp after the tombstone's. Others may be in a trigger too, and
    -- see nothing of it: there is no tombstone then.
    if pg_trigger_depth() > 1 then
        new.last_updated := greatest(new.last_updated, (
            select t.last_updated + interval '1 microsecond' from fhir.tombstone t
             where t.resource_type = new.resource_type and t.id = new.id));
    end if;
    return new;
end
$$;

create or replace function fhir.after_delete() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
begin
    if tg_when <> 'AFTER' or tg_level <> 'STATEMENT' or tg_op <> 'DELETE'
       or tg_relid <> 'fhir.resource'::regclass then
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

-- As it was, but for the closed time.
create or replace function fhir.restamp(ahead interval default '1 minute') returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    rows   bigint;
    total  bigint;
    closed timestamptz;
begin
    lock table fhir.resource, fhir.tombstone in share row exclusive mode;
    -- The trigger never lets a stamp go back, which is what this is for.
    alter table fhir.resource disable trigger stamp_update;
    update fhir.resource
       set version_id = nextval('fhir.version'), last_updated = clock_timestamp(), content = content::text::json
     where last_updated > clock_timestamp() + ahead;
    get diagnostics total = row_count;
    alter table fhir.resource enable always trigger stamp_update;
    update fhir.tombstone
       set version_id = nextval('fhir.version'), last_updated = clock_timestamp(), content = content::text::json
     where last_updated > clock_timestamp() + ahead;
    get diagnostics rows = row_count;
    total := total + rows;
    -- What was purged had such stamps too; nobody may be told that all of it was told.
    update fhir.purged set last_updated = clock_timestamp() where last_updated > clock_timestamp() + ahead;
    get diagnostics rows = row_count;
    -- The time that was closed by such a clock is open again. Whoever was told of it is reset.
    lock table fhir.purged in share update exclusive mode;
    closed := timestamp with time zone 'epoch'
              + interval '1 microsecond' * pg_sequence_last_value('fhir.closed_time')::float8;
    if closed > clock_timestamp() + ahead then
        perform setval('fhir.closed_time', (extract(epoch from clock_timestamp()) * 1000000)::bigint);
        rows := rows + 1;
    end if;
    if total + rows > 0 then
        insert into fhir.restamped as r (times) values (1)
        on conflict on constraint restamped_pkey do update set times = r.times + 1;
    end if;
    return total;
end
$$;

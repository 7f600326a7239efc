-- The functions of the layout trust nobody who calls them, and an insert is stamped once.
--
-- What "security definer" functions do is done with the rights of their owner, who may be a
-- superuser. So each looks where it is called from before it does anything, and only the owner may
-- make a trigger of it. (A trigger that exists needs no right: writers are not affected.)
--
-- Functions only: nothing is rewritten, and nobody waits. Writers use the new ones from their next
-- statement on.

-- Names in this file mean what they mean to Postgres, whatever the session's search_path is.
set local search_path = pg_catalog, pg_temp;

-- Numbers and dates an insert. The order of the steps matters:
--   1. the wait for a concurrent writer of the same key comes before the stamp, else the one who
--      waited has the newer content and the older stamp. If the row is there, its lock is waited
--      for. If it is not, somebody may have inserted it and not committed yet, which the lock on
--      the key shows;
--   2. a transaction has an id before it reads the clock for a stamp: by that id pg_stat_activity
--      shows that something stamped before now may still be uncommitted;
--   3. the clock, not now(): a later version never carries an earlier stamp.
--
-- The key is locked after the look at the row. The other way round, a transaction that deletes the
-- row and inserts it again, and one that waits for the row with the key locked, would wait for each
-- other.
--
-- A transaction locks its first sixteen keys and no more: locks are kept in memory that the whole
-- server shares. The first is not counted, as counting costs more than the lock. Where an insert
-- waits behind its stamp all the same, fhir.after_insert finds out.
--
-- Every name and operator in it is written with its schema, so that it needs no search_path of its
-- own: setting one takes a tenth of an insert's time. ("is distinct from", "in" and "case x when"
-- look "=" up by the search_path.)
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
    new.last_updated := pg_catalog.clock_timestamp();
    return new;
end
$$;

-- The same for who loads a great deal and has said so: "set local fhir.bulk_load = on". It looks
-- for nothing and locks nothing, which is a quarter of a load's time. Then an insert may wait
-- behind its stamp, for a transaction that deletes the same key, and fhir.after_insert refuses it.
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
    new.last_updated := pg_catalog.clock_timestamp();
    return new;
end
$$;

-- Numbers and dates an update. Postgres has locked the row by now.
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
    new.last_updated := greatest(clock_timestamp(), old.last_updated + interval '1 microsecond');
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

-- Writes the tombstones of what a statement deleted.
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

-- Takes away the tombstones of what a statement inserted. Not done before the insert: that may
-- still have to wait for a transaction which deletes the same key, and would leave its tombstone.
--   * A tombstone with the greater number was written while the insert waited behind its stamp. The
--     statement is
-- refused: the log has the row already, and would tell its version after the deletion, which is the
-- newer one.
--   * One with a smaller number, but a later stamp, says that the clock has stepped back since. The
--     row is
-- stamped once more, after the tombstone.
create or replace function fhir.after_insert() returns trigger
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
    if tg_when <> 'AFTER' or tg_level <> 'STATEMENT' or tg_op <> 'INSERT'
       or tg_relid <> 'fhir.resource'::regclass then
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
        if dead.version_id > row.version_id then
            raise exception 'a resource was deleted while its insert waited'
                using errcode = 'serialization_failure',
                      hint = case when current_setting('fhir.bulk_load', true) = 'on'
                                  then 'run the transaction again, with fhir.bulk_load off if it has to succeed'
                                  else 'run the transaction again' end;
        end if;
        if dead.last_updated >= row.last_updated then
            update fhir.resource r set version_id = r.version_id
             where r.resource_type = row.resource_type and r.id = row.id;
        end if;
        delete from fhir.tombstone t where t.resource_type = row.resource_type and t.id = row.id;
    end loop;
    return null;
end
$$;

create or replace function fhir.refuse_truncate() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'fhir.% cannot be truncated: nobody would hear that its resources are gone', tg_table_name
        using errcode = 'feature_not_supported',
              hint = format('delete from fhir.%I', tg_table_name);
end
$$;
-- Forgets the tombstones stamped before a time; how many. Never later than the safe time: every
-- transaction that stamped at or before it has ended. fhir-tail itself never calls this.
create or replace function fhir.purge_tombstones(before timestamptz) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    clock  timestamptz := clock_timestamp();  -- read before the list of transactions
    oldest timestamptz;
    hidden bigint;
    purged bigint;
    newest timestamptz;
begin
    if not pg_has_role(current_user, 'pg_read_all_stats', 'usage') then
        raise exception 'purging needs to see the transactions of every role'
            using errcode = 'insufficient_privilege',
                  hint = format('grant pg_read_all_stats to %I', current_user);
    end if;
    -- The list is cached for the transaction: this may not be its first look at it.
    perform pg_stat_clear_snapshot();
    select min(a.xact_start), count(*) filter (where a.xact_start is null) into oldest, hidden
      from pg_stat_activity a
     where a.datname = current_database() and a.backend_xid is not null;
    if hidden > 0 then
        raise exception '% transactions do not say when they began', hidden
            using errcode = 'object_not_in_prerequisite_state',
                  hint = 'set track_activities to on, and wait for them to end';
    end if;
    if exists (select from pg_prepared_xacts p where p.database = current_database()) then
        raise exception 'a prepared transaction does not say when it began'
            using errcode = 'object_not_in_prerequisite_state',
                  hint = 'commit prepared or rollback prepared what pg_prepared_xacts lists';
    end if;
    with forgotten as (
        delete from fhir.tombstone t
         where t.last_updated < least(before, least(clock, oldest) - interval '100 milliseconds')
        returning t.last_updated)
    select count(*), max(f.last_updated) into purged, newest from forgotten f;
    if purged > 0 then
        insert into fhir.purged as p (last_updated) values (newest)
        on conflict on constraint purged_pkey do update
           set last_updated = greatest(p.last_updated, excluded.last_updated);
    end if;
    return purged;
end
$$;

-- Gives new versions and stamps to rows that are stamped ahead of the clock, as happens when the
-- clock had jumped forward; how many. The service then begins a new epoch, and its subscribers are
-- reset: they may hold versions, and name times, that are ahead as well. Writers wait meanwhile.
-- Needs the tables' owner.
create or replace function fhir.restamp(ahead interval default '1 minute') returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    rows  bigint;
    total bigint;
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
    if total + rows > 0 then
        insert into fhir.restamped as r (times) values (1)
        on conflict on constraint restamped_pkey do update set times = r.times + 1;
    end if;
    return total;
end
$$;

revoke all on function
    fhir.stamp_insert(), fhir.stamp_bulk_insert(), fhir.stamp_update(), fhir.after_delete(), fhir.after_insert(),
    fhir.refuse_truncate()
    from public;

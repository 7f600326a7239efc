-- What can be done to the native layout besides plain SQL. Nothing here touches a table.

-- Names in this file mean what they mean to Postgres, whatever the session's search_path is.
set local search_path = pg_catalog, pg_temp;

-- Creates a resource or replaces it; its new version. Type and id are arguments because they cannot be
-- had from every document: "->>" fails on a JSON text with \u0000 or half a surrogate pair anywhere in it.
create function fhir.put(type text, id text, content json) returns bigint
    language plpgsql
as $$
declare
    version bigint;
begin
    insert into fhir.resource as r (resource_type, id, content) values (put.type, put.id, put.content)
    on conflict on constraint resource_pkey do update set content = excluded.content
    returning r.version_id into version;
    return version;
end
$$;

-- The newest stamp of a tombstone that was purged: a request for what was deleted since an
-- earlier time cannot be answered. One row, once something was purged.
create table fhir.purged (
    only_row     boolean not null default true,
    last_updated timestamptz not null,
    constraint purged_pkey primary key (only_row),
    constraint purged_has_one_row check (only_row)
);

-- Forgets the tombstones stamped before a time; how many. Never later than the safe time: every
-- transaction that stamped at or before it has ended. fhir-tail itself never calls this.
create function fhir.purge_tombstones(before timestamptz) returns bigint
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

-- How often rows were stamped again. Whoever follows the tables begins a new epoch when this has changed: seen at
-- once or at its next start, whichever comes first.
create table fhir.restamped (
    only_row boolean not null default true,
    times    bigint not null,
    constraint restamped_pkey primary key (only_row),
    constraint restamped_has_one_row check (only_row)
);

-- Gives new versions and stamps to rows that are stamped ahead of the clock, as happens when the clock had
-- jumped forward; how many. The service then begins a new epoch, and its subscribers are reset: they may hold
-- versions, and name times, that are ahead as well. Writers wait meanwhile. Needs the tables' owner.
create function fhir.restamp(ahead interval default '1 minute') returns bigint
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
    -- No tombstone is ahead any more.
    perform setval('fhir.tombstones_until', (extract(epoch from clock_timestamp()) * 1000000)::bigint);
    if total + rows > 0 then
        insert into fhir.restamped as r (times) values (1)
        on conflict on constraint restamped_pkey do update set times = r.times + 1;
    end if;
    return total;
end
$$;

-- Closes the time up to now, and up to `reached` if that is a little ahead of the clock; returns the closed
-- time, which never falls. It is on the database's disk when the transaction has ended, without waiting for a
-- standby.
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

revoke all on function fhir.close_time(timestamptz) from public;

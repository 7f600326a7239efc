-- What streams of patients and Groups need of the database: the content that an update replaced, in
-- the log, and an index of the patients that a content mentions.
--
-- On a table with rows this file does not build the index. "fhir-tail migrate" does so after it,
-- concurrently, so that writers do not wait.

-- Names in this file mean what they mean to Postgres, whatever the session's search_path is.
set local search_path = pg_catalog, pg_temp;

-- The patients that a content mentions, by id: whatever follows "Patient/" anywhere in the text. That
-- is more than the patients whose compartments contain the resource, and never less. The service
-- judges each row that it finds by this.
--
-- The text is not parsed: "->>" fails on \u0000, and jsonb is slower. A slash may be written as "\/".
-- A text with an escape of a character below U+0100 may hide a mention: it mentions '*', and each
-- query asks for that too.
--
-- It runs with the rights and the settings of whoever writes a row, and has to give the same answer
-- to all of them. So every name and operator has its schema, and strings with a backslash are written
-- as E'' (standard_conforming_strings).
create function fhir.mentions(content text) returns text[]
    language plpgsql immutable strict parallel safe
    cost 2000
as $$
declare
    pieces pg_catalog.text[] := pg_catalog.string_to_array(
        pg_catalog.replace(content, E'\\/', '/'), 'Patient/');
begin
    -- An id has at most 64 characters.
    for n in 2 .. pg_catalog.cardinality(pieces) loop
        pieces[n] := pg_catalog.split_part(
            pg_catalog.split_part(pg_catalog.left(pieces[n], 65), '"', 1), '/', 1);
    end loop;
    if pg_catalog.strpos(content, E'\\u00') operator(pg_catalog.>) 0 then
        pieces[1] := '*';
        return pieces;
    end if;
    return pieces[2:];
end
$$;

-- Every writer runs it, because the index does.
grant execute on function fhir.mentions(text) to public;

do $$
declare
    part regclass;
begin
    -- A partition has its own setting.
    for part in
        select 'fhir.resource'::regclass union select t.relid from pg_partition_tree('fhir.resource') t
    loop
        execute format('alter table %s replica identity full', part);
    end loop;
    -- A Group mentions its members, and is in no patient's compartment.
    if not exists (select from fhir.resource) then
        create index resource_mentions on fhir.resource using gin (fhir.mentions(content::text))
            where resource_type <> 'Group';
    end if;
end
$$;

-- As it was, but for a content that the statement left alone.
create or replace function fhir.stamp_update() returns trigger
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
    -- Of a large content that the statement left alone the log has the old row's, if the replica
    -- identity is full. If it is not, as in a partition that was made since, the content is written
    -- again. What was left alone has the same size as stored, which is seen without reading it.
    if pg_column_size(new.content) = pg_column_size(old.content)
       and (select c.relreplident from pg_class c where c.oid = tg_relid) <> 'f'
       and new.content::text = old.content::text then
        new.content := new.content::text::json;
    end if;
    xid := pg_current_xact_id();
    new.version_id := nextval('fhir.version');
    new.last_updated := greatest(fhir.stamp(), old.last_updated + interval '1 microsecond');
    return new;
end
$$;

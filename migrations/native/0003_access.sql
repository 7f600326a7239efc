-- What the service reads by: a publication, and a role with no more rights than it needs. Catalogue
-- entries only. What this role may not create is left to the database's administrator, with a notice
-- that holds the statement; "fhir-tail check" asks for it again.

do $$
declare
    -- The statements, each with what is missing when it is refused.
    statement text;
begin
    if not exists (select from pg_publication where pubname = 'fhir_tail') then
        create publication fhir_tail for table fhir.resource, fhir.tombstone;
    else
        for statement in
            select format('alter publication fhir_tail add table fhir.%I', t)
              from unnest(array['resource', 'tombstone']) t
             where not exists (select from pg_publication_tables p
                                where p.pubname = 'fhir_tail' and p.schemaname = 'fhir' and p.tablename = t)
        loop
            execute statement;
        end loop;
    end if;
exception when insufficient_privilege then
    raise warning 'the publication fhir_tail could not be created or extended: %', sqlerrm
        using hint = 'as a superuser: create publication fhir_tail for table fhir.resource, fhir.tombstone';
end
$$;

-- REPLICATION is not inherited from a role to its members, so this is the role to log in with, not a group:
--     alter role fhir_tail login password '...';
do $$
begin
    if not exists (select from pg_roles where rolname = 'fhir_tail') then
        create role fhir_tail nologin replication;
    end if;
exception
    when insufficient_privilege then
        raise warning 'the role fhir_tail could not be created: %', sqlerrm
            using hint = 'as a superuser: create role fhir_tail nologin replication; then the grants of docs/database.md';
    when duplicate_object or unique_violation then
        null;  -- created meanwhile from another database of this cluster
end
$$;

do $$
begin
    if exists (select from pg_roles where rolname = 'fhir_tail') then
        grant usage on schema fhir to fhir_tail;
        grant select on fhir.resource, fhir.tombstone, fhir.purged, fhir.restamped, fhir.migration to fhir_tail;
        grant execute on function fhir.close_time(timestamptz) to fhir_tail;
        begin
            -- Which transactions are open, and since when: without it no time is known to be safe.
            grant pg_read_all_stats to fhir_tail;
        exception when insufficient_privilege then
            raise warning 'pg_read_all_stats could not be granted to fhir_tail: %', sqlerrm
                using hint = 'as a superuser: grant pg_read_all_stats to fhir_tail';
        end;
    end if;
end
$$;

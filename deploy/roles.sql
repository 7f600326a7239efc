-- The roles that log in, for docker-compose.yml. Can be run again.

alter role fhir_tail login password 'fhir_tail';

-- The writer: the simulator here, your application elsewhere.
do $$
begin
    if not exists (select from pg_roles where rolname = 'app') then
        create role app login password 'app';
    end if;
end
$$;
grant usage on schema fhir to app;
grant select, insert, update, delete on fhir.resource to app;

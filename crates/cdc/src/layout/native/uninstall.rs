//! What `migrate` made, the other way round.

use super::migrate::SERVICE_ROLE;
use crate::slot::SlotName;
use pg::replication::quoted;

/// The statements that remove fhir-tail from a database, for an operator to read and run: the slot, the
/// publication, the role, the index of patients and the log of old contents. Resources, tombstones and
/// the triggers that keep them stay. What would remove these too is a comment.
pub fn uninstall(slot: &SlotName, publication: &str) -> String {
    let (role, publication) = (quoted(SERVICE_ROLE), quoted(publication));
    format!(
        "-- Removes fhir-tail from a database. Stop the service first. Run this as a superuser, in that database.
-- The slot: from here on the server keeps no log for the service.
select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{slot}' and database = current_database();
drop publication if exists {publication};
-- The role: its rights in this database, then the role itself, unless another database needs it.
do $$
begin
    if exists (select from pg_roles where rolname = '{SERVICE_ROLE}') then
        drop owned by {role};
        begin
            drop role {role};
        exception when dependent_objects_still_exist then
            raise notice 'the role {SERVICE_ROLE} has rights in other databases and stays';
        end;
    end if;
end
$$;
-- What only streams of patients and Groups need. Updates write less log without it.
drop index if exists fhir.resource_mentions;
alter table if exists fhir.resource replica identity default;
-- The tables stay, with their triggers, which set version_id and last_updated. To remove these and ALL RESOURCES:
-- drop schema fhir cascade;
"
    )
}

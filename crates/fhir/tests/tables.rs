//! The generated tables are what the generator makes of HL7's definitions.

#[path = "../examples/tables.rs"]
mod tables;

#[test]
fn compartment_table_is_up_to_date() {
    let table = include_str!("../src/compartment/table.rs");
    assert_eq!(tables::compartment().unwrap(), table, "run: cargo run -p fhir --example tables");
}

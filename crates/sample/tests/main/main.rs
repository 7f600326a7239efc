//! What is generated is FHIR, holds together, and is plausible; and stays so while the clinic works.

mod clinic;
mod population;
mod store;

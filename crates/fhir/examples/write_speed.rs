//! How fast resources are written: `cargo run --release --example write_speed FILE.ndjson`.
//!
//! Each line is a resource; all are written again and again, on one thread, as the hot path does it.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use fhir::{Columns, Instant, ResourceType, write_resource};
use std::time;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).ok_or("name a file of NDJSON")?;
    let text = std::fs::read_to_string(file)?;
    let mut resources: Vec<(ResourceType, &str)> = Vec::new();
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line)?;
        resources.push((value["resourceType"].as_str().ok_or("a line without resourceType")?.parse()?, line));
    }
    let last_updated = Instant::from_unix_micros(1_700_000_000_123_456);
    let (mut out, mut bytes, mut best) = (Vec::new(), 0_u64, f64::INFINITY);
    for round in 0..100 {
        let begun = time::Instant::now();
        bytes = 0;
        for (resource_type, content) in &resources {
            out.clear();
            let columns =
                Columns { resource_type: *resource_type, id: "a-1", version_id: round, last_updated };
            write_resource(content.as_bytes(), &columns, &mut out)?;
            bytes += u64::try_from(out.len())?;
        }
        // The best round is the one that other processes disturbed least.
        best = best.min(begun.elapsed().as_secs_f64());
    }
    #[allow(clippy::cast_precision_loss)]
    let (bytes, count) = (bytes as f64, resources.len() as f64);
    println!(
        "{:.0} ns for a resource of {:.0} bytes, {:.2} GB/s",
        best * 1e9 / count,
        bytes / count,
        bytes / best / 1e9
    );
    Ok(())
}

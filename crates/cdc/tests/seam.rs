//! What follows a layout knows no layout: only `layout/native` names the native one's tables.

// Helpers of tests are tests too, which clippy.toml's allowance does not see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// The decoder of the native layout is the one that is fuzzed.
const EXCEPT: [&str; 1] = ["fuzzing.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn only_the_native_layout_names_its_tables() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    let others: Vec<_> = found
        .into_iter()
        .filter(|path| !path.starts_with(root.join("layout/native")))
        .filter(|path| !EXCEPT.iter().any(|name| path.ends_with(name)))
        .collect();
    assert!(others.len() > 30, "{others:?}");
    for path in others {
        let text = std::fs::read_to_string(&path).unwrap();
        // Tests may follow the native layout.
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for line in code.lines() {
            let names = ["fhir.resource", "fhir.tombstone", "native::", "Native"];
            let name = names.iter().find(|name| line.contains(**name));
            assert!(name.is_none(), "{}: {line}", path.display());
        }
    }
}

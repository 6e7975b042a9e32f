//! docs/durability.md has each promise once, and names tests that are there.
#![expect(clippy::disallowed_methods, reason = "it reads the sources, not a store")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names of all tests in the Rust files below `dir`.
fn tests(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let after = text.split("#[test]").skip(1);
            let functions = after.filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
            names.extend(functions.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn every_promise_is_proven_by_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut names = BTreeSet::new();
    tests(&root.join("crates"), &mut names);
    let steps = fs::read_to_string(root.join(".ci/run")).unwrap();
    let page = fs::read_to_string(root.join("docs/durability.md")).unwrap();
    for number in 1..=28 {
        let begin = format!("| R{number} | ");
        let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(&begin)).collect();
        let [row] = rows[..] else { panic!("R{number} has {} rows", rows.len()) };
        let (_, proof) = row.split_once(" | ").unwrap();
        let proofs: Vec<_> = proof.split('`').skip(1).step_by(2).collect();
        assert!(proofs.iter().any(|proof| names.contains(*proof)), "R{number} has no test");
        for proof in proofs {
            let is_there = match proof.strip_prefix(".ci/run ") {
                Some(step) => steps.contains(&format!("step_{step}()")),
                None if proof.starts_with("scripts/") => root.join(proof).is_file(),
                None => names.contains(proof),
            };
            assert!(is_there, "R{number}: there is no {proof}");
        }
    }
}

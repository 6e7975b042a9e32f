//! One test for each row of the table of what queues promise that applies here, by its number; docs/queue.md has the rows
//! that do not.

mod core;
mod failure;
mod ordering;
mod scheduling;

/// Row 23, text without control characters only, is a limit of SQS's wire and no promise.
const NO_PROMISE: [usize; 1] = [23];

#[test]
fn every_row_has_its_test_or_a_reason_and_the_table_names_it() {
    let table = include_str!("../../../../docs/queue.md");
    let files = [
        ("core", include_str!("conformance/core.rs")),
        ("ordering", include_str!("conformance/ordering.rs")),
        ("failure", include_str!("conformance/failure.rs")),
        ("scheduling", include_str!("conformance/scheduling.rs")),
    ];
    let tests: Vec<(usize, String)> = files
        .iter()
        .flat_map(|(file, text)| text.split("#[test]\nfn ").skip(1).map(move |rest| (file, rest)))
        .filter_map(|(file, rest)| {
            let name = rest.split('(').next()?;
            let row = name.strip_prefix("row_")?.split('_').next()?.parse().ok()?;
            Some((row, format!("| {row} | `{file}::{name}` |")))
        })
        .collect();
    let reasons: Vec<usize> = table
        .lines()
        .skip_while(|line| *line != "| row | why |")
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|rows| rows.split(", "))
        .filter_map(|row| row.split(' ').next()?.parse().ok())
        .collect();
    for row in 1..=67 {
        let tested: Vec<_> = tests.iter().filter(|(number, _)| *number == row).collect();
        let answers = tested.len()
            + usize::from(reasons.contains(&row))
            + usize::from(NO_PROMISE.contains(&row));
        assert_eq!(answers, 1, "row {row}: {tested:?}");
        for (_, line) in tested {
            assert!(table.lines().any(|other| other == line), "docs/queue.md lacks {line}");
        }
    }
}

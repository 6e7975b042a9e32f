//! The examples do what they say, on real text.

#[path = "../examples/user_events.rs"]
#[expect(dead_code, reason = "its main is for the command line")]
mod user_events;

/// Text with many different first words.
const INPUT: &str = concat!(
    include_str!("../../../docs/format.md"),
    include_str!("../../../docs/durability.md"),
    include_str!("../../../README.md")
);

#[test]
fn user_events_reach_every_group_in_order_and_an_idle_consumer_takes_over() {
    let place = tempfile::tempdir().unwrap();
    let lines = INPUT.lines().filter(|line| line.split_whitespace().next().is_some());
    let users: std::collections::BTreeSet<_> =
        lines.clone().filter_map(|line| line.split_whitespace().next()).collect();
    let reports = user_events::run(INPUT, place.path()).unwrap();
    assert_eq!(
        reports.iter().map(|r| r.group).collect::<Vec<_>>(),
        ["analytics", "recommendations", "notifications"]
    );
    for report in &reports {
        assert_eq!(
            (report.events, report.users),
            (lines.clone().count(), users.len()),
            "{report:?}"
        );
        assert_eq!(report.out_of_order, 0, "{report:?}");
    }
    assert_eq!(reports[0].redelivered, 0);
    let idle: Vec<_> = reports.iter().map(|report| (report.idle, report.took_over)).collect();
    assert_eq!(idle, [(0, 0), (0, 0), (1, 1)], "the fourth consumer of three partitions");
    assert!(reports[2].redelivered > 0, "what the dead consumer had not committed came again");
}

use super::*;

const NOW: i64 = 1_000_000;

/// Segments of ten records; each is (bytes, age of its latest record in ms), and the last one is active.
fn log(segments: &[(u64, i64)]) -> Vec<SegmentFacts> {
    let mut facts: Vec<_> = (0u64..)
        .zip(segments)
        .map(|(i, (bytes, age))| SegmentFacts {
            base_offset: 100 + i * 10,
            end_offset: 100 + (i + 1) * 10,
            bytes: *bytes,
            max_timestamp: NOW - age,
            is_sealed: true,
        })
        .collect();
    if let Some(last) = facts.last_mut() {
        last.is_sealed = false;
    }
    facts
}

fn age(ms: u64) -> Retention {
    Retention { age: Some(Duration::from_millis(ms)), ..Retention::default() }
}

fn bytes(bytes: u64) -> Retention {
    Retention { bytes: Some(bytes), ..Retention::default() }
}

fn records(records: u64) -> Retention {
    Retention { records: Some(records), ..Retention::default() }
}

/// How many segments go.
fn removed(segments: &[(u64, i64)], policy: Retention) -> u64 {
    (retain(&log(segments), &policy, NOW) - 100) / 10
}

#[test]
fn without_a_limit_everything_stays_and_an_empty_log_stays_empty() {
    assert_eq!(removed(&[(5, 900_000), (5, 800_000), (5, 0)], Retention::default()), 0);
    assert_eq!(retain(&[], &age(0), NOW), 0);
}

#[test]
fn a_segment_goes_when_its_latest_record_is_older_than_the_limit_and_not_when_it_is_as_old() {
    let segments = [(5, 300), (5, 200), (5, 100), (5, 0)];
    for (limit, expected) in
        [(0, 3), (99, 3), (100, 2), (199, 2), (200, 1), (299, 1), (300, 0), (1000, 0)]
    {
        assert_eq!(removed(&segments, age(limit)), expected, "limit {limit}");
    }
}

#[test]
fn a_segment_goes_as_long_as_those_after_it_hold_enough_bytes() {
    let segments = [(50, 0), (30, 0), (20, 0), (10, 0)];
    for (limit, expected) in [(0, 3), (10, 3), (11, 2), (30, 2), (31, 1), (60, 1), (61, 0)] {
        assert_eq!(removed(&segments, bytes(limit)), expected, "limit {limit}");
    }
}

#[test]
fn a_segment_goes_as_long_as_those_after_it_hold_enough_offsets() {
    let segments = [(1, 0), (1, 0), (1, 0), (1, 0)];
    for (limit, expected) in [(0, 3), (10, 3), (11, 2), (20, 2), (21, 1), (30, 1), (31, 0)] {
        assert_eq!(removed(&segments, records(limit)), expected, "limit {limit}");
    }
}

#[test]
fn one_exceeded_limit_is_enough_and_each_segment_may_go_for_another_reason() {
    let segments = [(50, 500), (50, 0), (10, 500), (10, 0)];
    let both = Retention { bytes: Some(20), ..age(100) };
    assert_eq!(removed(&segments, age(100)), 1);
    assert_eq!(removed(&segments, bytes(20)), 2);
    assert_eq!(removed(&segments, both), 3, "old, then too many bytes after, then old");
    assert_eq!(removed(&segments, Retention { records: Some(30), ..bytes(1000) }), 1);
}

#[test]
fn the_first_that_stays_keeps_all_after_it() {
    let segments = [(5, 300), (5, 50), (5, 300), (5, 0)];
    assert_eq!(removed(&segments, age(100)), 1);
}

#[test]
fn neither_the_active_segment_nor_one_that_is_not_sealed_yet_goes_nor_what_follows_it() {
    assert_eq!(removed(&[(5, 900_000)], age(0)), 0);
    assert_eq!(removed(&[(5, 900_000)], bytes(0)), 0);
    let mut facts = log(&[(5, 300), (5, 300), (5, 300), (5, 300)]);
    facts[1].is_sealed = false;
    assert_eq!(retain(&facts, &age(0), NOW), 110);
}

#[test]
fn when_all_are_sealed_all_may_go() {
    let mut facts = log(&[(5, 300), (5, 300)]);
    facts[1].is_sealed = true;
    assert_eq!(retain(&facts, &age(0), NOW), 120);
    assert_eq!(retain(&facts, &bytes(5), NOW), 110);
}

#[test]
fn a_timestamp_in_the_future_keeps_its_segment_until_then() {
    let segments = [(5, -1000), (5, 300), (5, 0)];
    assert_eq!(removed(&segments, age(100)), 0);
    assert_eq!(retain(&log(&segments), &age(100), NOW + 1100), 100);
    assert_eq!(retain(&log(&segments), &age(100), NOW + 1101), 120);
}

#[test]
fn a_clock_that_jumps_back_removes_nothing_and_extreme_times_do_not_overflow() {
    let segments = log(&[(5, 300), (5, 200), (5, 0)]);
    for now in [NOW - 250, 0, -NOW, i64::MIN] {
        assert_eq!(retain(&segments, &age(100), now), 100, "now {now}");
    }
    assert_eq!(retain(&segments, &age(100), i64::MAX), 120);
    assert_eq!(retain(&segments, &age(u64::MAX), i64::MAX), 100);
    let mut empty = segments;
    empty[0].max_timestamp = i64::MIN;
    assert_eq!(retain(&empty, &age(1000), NOW), 110, "a compacted segment without records");
    assert_eq!(retain(&empty, &age(1000), i64::MAX), 120);
}

/// Kafka's own procedure: a pass for each limit, each over what the one before has left, until nothing changes.
fn in_passes(segments: &[SegmentFacts], policy: &Retention, now_ms: i64) -> u64 {
    let mut left = segments.to_vec();
    loop {
        let before = left.len();
        while let [first, ..] = left[..]
            && first.is_sealed
            && policy.age.is_some_and(|age| {
                now_ms - first.max_timestamp > i64::try_from(age.as_millis()).unwrap()
            })
        {
            left.remove(0);
        }
        while let [first, rest @ ..] = &left[..]
            && first.is_sealed
            && policy.bytes.is_some_and(|limit| rest.iter().map(|s| s.bytes).sum::<u64>() >= limit)
        {
            left.remove(0);
        }
        while let [first, rest @ ..] = &left[..]
            && first.is_sealed
            && policy.records.is_some_and(|limit| rest.len() as u64 * 10 >= limit)
        {
            left.remove(0);
        }
        if left.len() == before {
            return left.first().map_or(segments[segments.len() - 1].end_offset, |s| s.base_offset);
        }
    }
}

#[test]
fn every_combination_of_small_segments_and_limits_agrees_with_passes_over_what_is_left() {
    let shapes = [(1u64, 0i64), (1, 200), (3, 0), (3, 200)];
    let limits = [None, Some(0), Some(1), Some(3), Some(5), Some(100)];
    let mut count = 0;
    for shape in 0..4usize.pow(4) {
        let segments: Vec<_> = (0..4).map(|i| shapes[shape / 4usize.pow(i) % 4]).collect();
        for sealed in 0..16u32 {
            let mut facts = log(&segments);
            for (i, segment) in facts.iter_mut().enumerate() {
                segment.is_sealed = sealed & (1 << i) != 0;
            }
            for limit_ms in [None, Some(100)] {
                for bytes in limits {
                    for records in [None, Some(0), Some(10), Some(25)] {
                        let policy =
                            Retention { age: limit_ms.map(Duration::from_millis), bytes, records };
                        let expected = in_passes(&facts, &policy, NOW);
                        assert_eq!(retain(&facts, &policy, NOW), expected, "{facts:?} {policy:?}");
                        count += 1;
                    }
                }
            }
        }
    }
    assert_eq!(count, 256 * 16 * 2 * 6 * 4);
}

//! The decision table of recovery: every combination of evidence, and what must hold for all of them.

use std::collections::BTreeMap;

use logmill_storage::recovery::{Evidence, Later, Rest, Verdict, judge};

fn every_evidence() -> Vec<Evidence> {
    let mut all = Vec::new();
    for rest in [Rest::Nothing, Rest::Bytes] {
        for later in [Later::Nothing, Later::Empty, Later::Frames] {
            for bits in 0..8u8 {
                let [witnessed, unacknowledged, strict] = [1, 2, 4].map(|bit| bits & bit != 0);
                all.push(Evidence { rest, later, witnessed, unacknowledged, strict });
            }
        }
    }
    all
}

fn parse(line: &str) -> (Evidence, Verdict) {
    let words: Vec<_> = line.split_whitespace().collect();
    let [rest, later, witnessed, unacknowledged, strict, "->", verdict] = words[..] else {
        panic!("not a row: {line}")
    };
    let flag = |word: &str, name: &str| match word {
        "-" => false,
        word if word == name => true,
        other => panic!("{other} is not {name}"),
    };
    let evidence = Evidence {
        rest: match rest {
            "nothing" => Rest::Nothing,
            "bytes" => Rest::Bytes,
            other => panic!("{other}"),
        },
        later: match later {
            "nothing" => Later::Nothing,
            "empty" => Later::Empty,
            "frames" => Later::Frames,
            other => panic!("{other}"),
        },
        witnessed: flag(witnessed, "witnessed"),
        unacknowledged: flag(unacknowledged, "unacknowledged"),
        strict: flag(strict, "strict"),
    };
    let verdict = match verdict {
        "clean" => Verdict::Clean,
        "cut" => Verdict::Cut,
        "ambiguous" => Verdict::Ambiguous,
        "refused" => Verdict::Refused,
        "corrupt" => Verdict::Corrupt,
        other => panic!("{other}"),
    };
    (evidence, verdict)
}

#[test]
fn every_combination_of_evidence_is_judged_as_the_table_says() {
    let table: BTreeMap<_, _> = include_str!("../golden/judge.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(parse)
        .collect();
    assert_eq!(table.len(), 48, "every row once");
    for evidence in every_evidence() {
        assert_eq!(Some(&judge(&evidence)), table.get(&evidence), "{evidence:?}");
    }
}

#[test]
fn what_somebody_says_was_durable_is_never_cut_off() {
    for evidence in every_evidence() {
        assert_eq!(judge(&evidence) == Verdict::Corrupt, evidence.witnessed, "{evidence:?}");
    }
}

#[test]
fn strict_mode_sets_nothing_aside_and_only_strict_mode_refuses() {
    for evidence in every_evidence() {
        let verdict = judge(&evidence);
        assert!(!(evidence.strict && verdict == Verdict::Ambiguous), "{evidence:?}");
        assert!(evidence.strict || verdict != Verdict::Refused, "{evidence:?}");
        // Strictness turns doubt into refusal and changes nothing else.
        let lenient = judge(&Evidence { strict: false, ..evidence });
        let strict = judge(&Evidence { strict: true, ..evidence });
        match lenient {
            Verdict::Ambiguous => assert_eq!(strict, Verdict::Refused, "{evidence:?}"),
            same => assert_eq!(strict, same, "{evidence:?}"),
        }
    }
}

#[test]
fn bytes_are_cut_without_a_copy_only_where_nobody_was_promised_them() {
    for evidence in every_evidence() {
        let holds_something = evidence.rest == Rest::Bytes || evidence.later == Later::Frames;
        if judge(&evidence) == Verdict::Cut && holds_something {
            assert!(evidence.unacknowledged, "{evidence:?}");
            assert_ne!(evidence.later, Later::Frames, "{evidence:?}");
        }
        if judge(&evidence) == Verdict::Clean {
            assert_eq!((evidence.rest, evidence.later), (Rest::Nothing, Later::Nothing));
        }
    }
}

#[test]
fn more_reason_for_doubt_never_leads_to_less_care() {
    // In the order of care: Clean < Cut < Ambiguous < Refused < Corrupt.
    for evidence in every_evidence() {
        let care = judge(&evidence);
        let more = [
            Evidence { rest: Rest::Bytes, ..evidence },
            Evidence { later: Later::Frames, ..evidence },
            Evidence { witnessed: true, ..evidence },
            Evidence { unacknowledged: false, ..evidence },
            Evidence { strict: true, ..evidence },
        ];
        for doubtful in more {
            assert!(judge(&doubtful) >= care, "{doubtful:?} against {evidence:?}");
        }
    }
}

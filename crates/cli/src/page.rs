//! The stats page of a live writer, in numbers.

use std::collections::BTreeMap;

use logmill::storage::StatsPage;

use crate::figures::QueueFigures;

/// What the page says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// By name.
    pub queues: Vec<QueueFigures>,
    /// Syncs since the writer opened the store.
    pub syncs: Syncs,
}

/// How long syncs took: an upper bound in microseconds, and how many lay between it and the bound before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Syncs(BTreeMap<u64, u64>);

impl Syncs {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Those that were not in `earlier`; all of them if another writer counts from nothing.
    pub fn since(&self, earlier: &Syncs) -> Syncs {
        let before = |bound| earlier.0.get(bound).copied().unwrap_or(0);
        if earlier.0.iter().any(|(bound, count)| self.0.get(bound) < Some(count)) {
            return self.clone();
        }
        let new = self.0.iter().map(|(bound, count)| (*bound, count - before(bound)));
        Syncs(new.filter(|(_, count)| *count > 0).collect())
    }

    /// What one in `parts` of them exceeds at most; 0 without any.
    pub fn all_but_one_in(&self, parts: u64) -> u64 {
        let (beyond, mut left) = (self.count() / parts, self.count());
        for (bound, count) in &self.0 {
            left -= count;
            if left <= beyond {
                return *bound;
            }
        }
        0
    }
}

#[cfg(test)]
impl<const N: usize> From<[(u64, u64); N]> for Syncs {
    fn from(syncs: [(u64, u64); N]) -> Syncs {
        Syncs(syncs.into())
    }
}

impl Page {
    /// Reads a page at `now`, in ms since 1970. What it does not know it passes over.
    pub fn of(page: &StatsPage, now: i64) -> Page {
        let passed = u64::try_from(now.saturating_sub(page.taken_at)).unwrap_or(0);
        let (mut queues, mut syncs) = (BTreeMap::<String, QueueFigures>::new(), BTreeMap::new());
        let mut seen = 0;
        for (name, labels, value) in page.text.lines().filter_map(sample) {
            let label = |key| labels.iter().find(|(name, _)| *name == key).map(|(_, text)| &**text);
            match (name, label("queue")) {
                ("logmill_queue_messages", Some(name)) => {
                    let queue = queue(&mut queues, name);
                    match label("state") {
                        Some("ready") => queue.ready = whole(value),
                        Some("delayed") => queue.delayed = whole(value),
                        Some("in_flight") => queue.in_flight = whole(value),
                        Some("dead") => queue.dead = whole(value),
                        _ => {}
                    }
                }
                ("logmill_queue_oldest_claimable_seconds", Some(name)) => {
                    queue(&mut queues, name).oldest_ms = Some(whole(value * 1e3) + passed);
                }
                ("logmill_sync_seconds_bucket", None) => {
                    // The counts of a histogram of Prometheus include those of the bounds before.
                    let bound = label("le").and_then(|bound| bound.parse::<f64>().ok());
                    if let Some(bound) = bound.filter(|bound| bound.is_finite()) {
                        syncs.insert(whole(bound * 1e6), whole(value).saturating_sub(seen));
                        seen = whole(value);
                    }
                }
                _ => {}
            }
        }
        for queue in queues.values_mut().filter(|queue| queue.ready == 0) {
            queue.oldest_ms = None;
        }
        Page { queues: queues.into_values().collect(), syncs: Syncs(syncs) }
    }
}

fn queue<'a>(queues: &'a mut BTreeMap<String, QueueFigures>, name: &str) -> &'a mut QueueFigures {
    queues.entry(name.to_owned()).or_insert_with(|| QueueFigures::named(name))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped by `as`")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Its name, its labels, its value.
type Sample<'a> = (&'a str, Vec<(&'a str, String)>, f64);

/// A line as `name{label="text"} value`.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (line, value) = line.rsplit_once(' ')?;
    let (name, mut rest) = line.split_once('{').unwrap_or((line, "}"));
    let mut labels = Vec::new();
    while rest != "}" {
        let (key, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
        let mut text = String::new();
        let mut characters = quoted.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => match characters.next()? {
                    'n' => text.push('\n'),
                    other => text.push(other),
                },
                other => text.push(other),
            }
        }
        labels.push((key, text));
        rest = characters.as_str();
    }
    Some((name, labels, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str, taken_at: i64, now: i64) -> Page {
        let mut page = StatsPage::default();
        (page.taken_at, page.text) = (taken_at, text.to_owned());
        Page::of(&page, now)
    }

    #[test]
    fn queues_and_syncs_are_read_and_what_is_unknown_is_passed_over() {
        let text = "\
# TYPE logmill_sync_seconds histogram
logmill_sync_seconds_bucket{le=\"0.000095\"} 3
logmill_sync_seconds_bucket{le=\"0.000111\"} 5
logmill_sync_seconds_bucket{le=\"+Inf\"} 5
logmill_sync_seconds_sum 0.0004
logmill_queue_messages{queue=\"a\\\"}b\",state=\"ready\"} 2
logmill_queue_messages{queue=\"a\\\"}b\",state=\"in_flight\"} 1
logmill_queue_messages{queue=\"idle\",state=\"delayed\"} 4
logmill_queue_oldest_claimable_seconds{queue=\"a\\\"}b\"} 1.5
logmill_queue_oldest_claimable_seconds{queue=\"idle\"} 0
logmill_of_a_later_version{queue=\"a\",colour=\"red\"} 1
no sample at all";
        let busy = QueueFigures {
            ready: 2,
            in_flight: 1,
            oldest_ms: Some(1_700),
            ..QueueFigures::named("a\"}b")
        };
        let idle = QueueFigures { delayed: 4, ..QueueFigures::named("idle") };
        let syncs = Syncs::from([(95, 3), (111, 2)]);
        assert_eq!(page(text, 1_000, 1_200), Page { queues: vec![busy, idle], syncs });
    }

    #[test]
    fn the_syncs_since_the_last_look_are_those_that_came_after_it() {
        let (first, second) =
            (Syncs::from([(95, 3), (111, 2)]), Syncs::from([(95, 4), (99, 1), (111, 2)]));
        assert_eq!(second.since(&first), Syncs::from([(95, 1), (99, 1)]));
        // Another writer has begun to count.
        assert_eq!(first.since(&second), first);
        assert_eq!([2, 100].map(|parts| first.all_but_one_in(parts)), [95, 111]);
        assert_eq!(Syncs::default().all_but_one_in(2), 0);
    }
}

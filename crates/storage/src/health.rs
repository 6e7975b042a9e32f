//! What background work could not do.

use std::collections::BTreeMap;
use std::fmt;

use crate::clock::Clock;
use crate::events;
use crate::sync::Mutex;

/// What is wrong with an open store: each part whose background work failed at its last try, and each log whose writing
/// life is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// By the name of the part. Empty: all is well.
    pub problems: Vec<Problem>,
}

impl Health {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Whose work it is: `log 0`, `queues`, `streams`, `journal`.
    pub part: String,
    /// The error, as text.
    pub what: String,
    /// Since when, ms since 1970.
    pub since_ms: i64,
    /// How often it was tried in vain.
    pub tries: u64,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.what)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Problems {
    known: Mutex<BTreeMap<String, Problem>>,
}

impl Problems {
    /// Takes in how work on `part` ended: an error is kept until the next success.
    pub fn note(&self, clock: &dyn Clock, part: &str, failed: Option<&dyn fmt::Display>) {
        let mut known = self.known.lock();
        match failed {
            None => {
                if known.remove(part).is_some() {
                    drop(known);
                    events::well_again(part);
                }
            }
            Some(error) => {
                let what = error.to_string();
                let problem = known.entry(part.to_owned()).or_insert_with(|| Problem {
                    part: part.to_owned(),
                    what: String::new(),
                    since_ms: clock.wall_ms(),
                    tries: 0,
                });
                problem.tries += 1;
                let is_news = problem.what != what;
                problem.what.clone_from(&what);
                drop(known);
                if is_news {
                    events::problem(part, &what);
                }
            }
        }
    }

    pub fn load(&self) -> Health {
        Health { problems: self.known.lock().values().cloned().collect() }
    }
}

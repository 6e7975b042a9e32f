//! `logmill top`: what goes on in a store, live.

mod screen;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::Path;
use std::time::Duration;

use logmill::{Clock, SystemClock};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::figures::{Figures, Watched};
use crate::json::write_line;
use crate::open::Place;
use crate::page::Syncs;
use crate::{duration, signals};
use screen::Screen;

/// Looks that are remembered for the history of a rate.
const HISTORY: usize = 120;
/// The size of a screen that goes into a pipe.
const PIPE_COLUMNS: u16 = 100;
const PIPE_LINES: u16 = 40;

/// Watch topics, groups with their lag, queues with their depth and age, and how long syncs take
///
/// Looks at the store at intervals, beside whatever writes to it, and changes nothing. What only the writer knows it reads
/// from the page that the writer publishes each second. Keys: q or Esc ends it. In a pipe, and with --once, one screen is
/// printed as text.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  logmill --dir store top
  logmill --dir store top --every 5s
  logmill --dir store top --once
  logmill --dir store top --json | head -1")]
pub struct Arguments {
    /// How long to wait between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    every: Duration,
    /// Print one screen and end
    #[arg(long)]
    once: bool,
    /// Print one JSON object for each look, until it is stopped
    #[arg(long)]
    json: bool,
}

/// What one look after the other has seen.
#[derive(Default)]
struct Seen {
    /// Open from one look to the next, as long as it has one writer.
    store: Option<Watched>,
    figures: Figures,
    at: Duration,
    /// Records a second that were appended to each topic between the last two looks.
    rates: BTreeMap<String, u64>,
    /// Their sums, oldest first.
    history: Vec<u64>,
    syncs: SyncsSeen,
}

/// The syncs of a live writer.
#[derive(Debug, Default)]
struct SyncsSeen {
    all: Syncs,
    /// Those between the last two pages that differ.
    last: Option<Syncs>,
    /// What one in a hundred took at least, in microseconds, oldest first.
    history: Vec<u64>,
}

impl Seen {
    fn look(&mut self, place: &Place, clock: &dyn Clock) -> Outcome {
        let store = match self.store.take() {
            Some(store) => store,
            None => Watched::open(place)?,
        };
        let (queues, syncs) = match store.page()? {
            Some(page) => (page.queues, Some(page.syncs)),
            // Without a writer that says how its queues stand, the journal is read.
            None => (store.queues()?, None),
        };
        let figures = store.figures(queues)?;
        // The next writer may begin with what the last one had not made durable.
        if figures.writer_is_alive == self.figures.writer_is_alive {
            self.store = Some(store);
        }
        self.note(figures, clock.monotonic());
        self.syncs.note(syncs);
        Ok(())
    }

    fn note(&mut self, figures: Figures, at: Duration) {
        let passed_ms = at.saturating_sub(self.at).as_millis().max(1);
        if self.at > Duration::ZERO {
            let before: BTreeMap<&str, u64> =
                self.figures.topics.iter().map(|t| (t.name.as_str(), t.appended)).collect();
            let rates = figures.topics.iter().map(|topic| {
                // A topic that is new has had all its records since.
                let appended =
                    topic.appended.saturating_sub(before.get(&*topic.name).copied().unwrap_or(0));
                let rate = u128::from(appended) * 1_000 / passed_ms;
                (topic.name.clone(), u64::try_from(rate).unwrap_or(u64::MAX))
            });
            self.rates = rates.collect();
            remember(&mut self.history, self.rates.values().sum());
        }
        (self.figures, self.at) = (figures, at);
    }

    fn screen<'a>(&'a self, dir: &'a Path) -> Screen<'a> {
        let syncs = self.syncs.last.as_ref().map(|last| (last, &*self.syncs.history));
        Screen { dir, figures: &self.figures, rates: &self.rates, history: &self.history, syncs }
    }

    fn to_json(&self) -> Value {
        let mut figures = self.figures.to_json();
        figures["syncs"] = self.syncs.last.as_ref().map_or(Value::Null, |syncs| {
            let [p50, p99] = [2, 100].map(|parts| syncs.all_but_one_in(parts));
            json!({ "count": syncs.count(), "p50_us": p50, "p99_us": p99 })
        });
        figures
    }
}

impl SyncsSeen {
    fn note(&mut self, all: Option<Syncs>) {
        let Some(all) = all else { return *self = SyncsSeen::default() };
        if self.last.is_none() || all != self.all {
            let new = all.since(&self.all);
            remember(&mut self.history, new.all_but_one_in(100));
            (self.all, self.last) = (all, Some(new));
        }
    }
}

fn remember(history: &mut Vec<u64>, value: u64) {
    history.push(value);
    if history.len() > HISTORY {
        history.remove(0);
    }
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments) -> Outcome {
    let (clock, dir) = (SystemClock::new(), place.existing_dir()?);
    let mut seen = Seen::default();
    seen.look(place, &clock)?;
    if arguments.json {
        loop {
            let mut out = stdout().lock();
            write_line(&mut out, &seen.to_json())?;
            out.flush().map_err(Failure::output)?;
            if arguments.once {
                return Failure::of_damage(&seen.figures.damage);
            }
            drop(out);
            std::thread::park_timeout(arguments.every);
            seen.look(place, &clock)?;
        }
    }
    if arguments.once || !stdout().is_terminal() || !stdin().is_terminal() {
        let text = seen.screen(dir).text(PIPE_COLUMNS, PIPE_LINES);
        stdout().lock().write_all(text.as_bytes()).map_err(Failure::output)?;
        return Failure::of_damage(&seen.figures.damage);
    }
    let _restored = signals::before_the_end(|| {
        // Kept until the end, so that nothing is drawn any more.
        let out = stdout().lock();
        let _ = ratatui::try_restore();
        std::mem::forget(out);
    })?;
    let mut terminal =
        ratatui::try_init().map_err(|e| Failure::Failed(format!("take the terminal: {e}")))?;
    let watched = watch(&mut terminal, &mut seen, place, &clock, arguments.every);
    ratatui::restore();
    watched
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    seen: &mut Seen,
    place: &Place,
    clock: &dyn Clock,
    every: Duration,
) -> Outcome {
    let dir = place.existing_dir()?;
    let failed = |e: std::io::Error| Failure::Failed(format!("the terminal: {e}"));
    loop {
        terminal.draw(|frame| seen.screen(dir).draw(frame)).map_err(failed)?;
        let due = seen.at + every;
        while let Some(left) = due.checked_sub(clock.monotonic()) {
            if !event::poll(left).map_err(failed)? {
                break;
            }
            match event::read().map_err(failed)? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                        return Ok(());
                    }
                    _ => {}
                },
                Event::Resize(..) => {
                    terminal.draw(|frame| seen.screen(dir).draw(frame)).map_err(failed)?;
                }
                _ => {}
            }
        }
        seen.look(place, clock)?;
    }
}

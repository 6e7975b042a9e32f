//! One screen of `top`.

use std::collections::BTreeMap;
use std::path::Path;

use ratatui::Frame;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Row, Sparkline, Table};

use crate::figures::Figures;
use crate::page::Syncs;
use crate::table;

/// A terminal of fewer lines has none for the history.
const HISTORY_FROM: u16 = 20;

/// What is shown.
pub(super) struct Screen<'a> {
    pub dir: &'a Path,
    pub figures: &'a Figures,
    pub rates: &'a BTreeMap<String, u64>,
    pub history: &'a [u64],
    /// A live writer's syncs between the last two looks, and what the slowest in a hundred took before.
    pub syncs: Option<(&'a Syncs, &'a [u64])>,
}

impl Screen<'_> {
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let rows = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).saturating_add(3);
        let Figures { topics, groups, queues, .. } = self.figures;
        let [head, history, topics_at, groups_at, queues_at, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(if frame.area().height < HISTORY_FROM { 0 } else { 5 }),
            Constraint::Max(rows(topics.len())),
            Constraint::Max(rows(groups.len())),
            Constraint::Max(rows(queues.len())),
            Constraint::Min(1),
        ])
        .areas(frame.area());
        let writer = if self.figures.writer_is_alive { "writer alive" } else { "no writer" };
        let journal = table::bytes(self.figures.journal_bytes);
        let title = format!("logmill  {}  {writer}  journal {journal}", self.dir.display());
        frame.render_widget(Line::from(title).bold(), head);
        self.draw_history(frame, history);
        let rows = topics.iter().map(|topic| {
            vec![
                topic.name.clone(),
                topic.partitions.to_string(),
                topic.records.to_string(),
                self.rates.get(&topic.name).map_or_else(|| "-".into(), u64::to_string),
                table::bytes(topic.bytes),
            ]
        });
        let columns = ["TOPIC", "PARTITIONS", "RECORDS", "APPENDED/S", "SIZE"];
        draw_table(frame, topics_at, "topics", columns, rows.collect());
        let rows = groups.iter().map(|group| {
            vec![
                group.name.clone(),
                group.kind.to_owned(),
                group.partitions.to_string(),
                group.lag.to_string(),
            ]
        });
        draw_table(
            frame,
            groups_at,
            "groups",
            ["GROUP", "KIND", "PARTITIONS", "LAG"],
            rows.collect(),
        );
        let rows = queues.iter().map(|queue| {
            let counts = [queue.ready, queue.delayed, queue.in_flight, queue.dead];
            let mut row = vec![queue.name.clone()];
            row.extend(counts.map(|count| count.to_string()));
            row.push(queue.oldest_ms.map_or_else(|| "-".into(), table::age));
            row
        });
        let columns = ["QUEUE", "READY", "DELAYED", "IN FLIGHT", "DEAD", "OLDEST"];
        draw_table(frame, queues_at, "queues", columns, rows.collect());
        match self.figures.damage.first() {
            None => frame.render_widget(Line::from("q ends").dim(), foot),
            Some(damage) => frame.render_widget(Line::from(damage.as_str()).red(), foot),
        }
    }

    fn draw_history(&self, frame: &mut Frame<'_>, area: Rect) {
        let share = Constraint::Percentage(if self.syncs.is_some() { 50 } else { 100 });
        let [appends, syncs] = Layout::horizontal([share, Constraint::Fill(1)]).areas(area);
        let now = self.history.last().copied().unwrap_or(0);
        draw_line(frame, appends, format!("records appended a second: {now}"), self.history);
        if let Some((last, history)) = self.syncs {
            let [p50, p99] = [2, 100].map(|parts| last.all_but_one_in(parts));
            draw_line(frame, syncs, format!("sync us: p50 {p50}, p99 {p99}"), history);
        }
    }

    /// The screen as lines of text.
    pub fn text(&self, columns: u16, lines: u16) -> String {
        let Ok(mut terminal) = ratatui::Terminal::new(TestBackend::new(columns, lines));
        let Ok(_) = terminal.draw(|frame| self.draw(frame));
        let buffer = terminal.backend().buffer();
        let mut text = String::new();
        for line in buffer.content().chunks(usize::from(columns)) {
            let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}

fn draw_line(frame: &mut Frame<'_>, area: Rect, title: String, history: &[u64]) {
    // The latest look is at the right edge.
    let width = usize::from(area.width.saturating_sub(2));
    let shown = &history[history.len().saturating_sub(width)..];
    let line = Sparkline::default().block(Block::bordered().title(title)).data(shown).cyan();
    frame.render_widget(line, area);
}

/// The first column is words, the others are figures.
fn draw_table<const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    columns: [&str; N],
    rows: Vec<Vec<String>>,
) {
    let cell = |(i, text): (usize, String)| {
        let line = Line::from(text);
        Cell::from(if i == 0 { line } else { line.right_aligned() })
    };
    let widths: [Constraint; N] = std::array::from_fn(|i| {
        let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
        let widest = cells.max().unwrap_or(0).max(columns[i].len());
        let widest = u16::try_from(widest).unwrap_or(u16::MAX).saturating_add(1);
        // A name that is cut can be told from others; a figure that has lost its first digits is another figure.
        if i == 0 { Constraint::Fill(1) } else { Constraint::Length(widest) }
    });
    let head = columns.iter().map(|title| (*title).to_owned()).enumerate().map(cell);
    let body = rows.into_iter().map(|row| Row::new(row.into_iter().enumerate().map(cell)));
    let table = Table::new(body, widths)
        .header(Row::new(head).style(Style::new().cyan().bold()))
        .block(Block::bordered().title(title.to_owned()));
    frame.render_widget(table, area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{GroupFigures, QueueFigures, TopicFigures};

    fn figures() -> Figures {
        let topic = |name: &str, records| TopicFigures {
            name: name.into(),
            partitions: 3,
            records,
            appended: records,
            segments: 2,
            bytes: records * 120,
        };
        let queue = |name: &str, ready, oldest_ms| QueueFigures {
            name: name.into(),
            ready,
            delayed: 7,
            in_flight: 12,
            dead: 1,
            oldest_ms,
        };
        Figures {
            writer_is_alive: true,
            journal_bytes: 3 << 20,
            topics: vec![topic("clicks", 1_234_567), topic("users", 42)],
            groups: vec![GroupFigures {
                name: "billing".into(),
                kind: "consumers",
                partitions: 3,
                lag: 9_876,
            }],
            queues: vec![queue("emails", 512, Some(93_500)), queue("thumbnails.fifo", 0, None)],
            damage: Vec::new(),
        }
    }

    fn text(figures: &Figures, history: &[u64], columns: u16, lines: u16) -> String {
        let rates = BTreeMap::from([("clicks".to_owned(), 8_000), ("users".to_owned(), 0)]);
        let rates = if history.is_empty() { BTreeMap::new() } else { rates };
        let all = Syncs::from([(95, 60), (119, 39), (2_303, 1)]);
        let spikes: Vec<u64> = (0..30).map(|n| 120 + n % 11 / 10 * 2_200).collect();
        let syncs = figures.writer_is_alive.then_some((&all, &*spikes));
        Screen { dir: Path::new("/var/lib/app"), figures, rates: &rates, history, syncs }
            .text(columns, lines)
    }

    /// Golden screens. `LOGMILL_BLESS=1` writes them anew; look at the difference before you commit it.
    #[expect(clippy::disallowed_methods, reason = "the golden files are the source tree's")]
    fn check(name: &str, seen: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("LOGMILL_BLESS").is_some() {
            std::fs::write(&path, seen).unwrap();
        }
        let golden = std::fs::read(&path).unwrap();
        assert_eq!(seen, String::from_utf8(golden).unwrap(), "{name}");
    }

    #[test]
    fn a_long_name_is_cut_and_never_a_figure() {
        let mut figures = figures();
        figures.topics[0].name = "orders-of-the-whole-company-in-all-of-its-regions-by-hour".into();
        let shown = text(&figures, &[], 80, 28);
        assert!(shown.contains("orders-of-the-whole"), "{shown}");
        for whole in [" 1234567 ", " PARTITIONS ", " RECORDS "] {
            assert!(shown.contains(whole), "{whole}: {shown}");
        }
    }

    #[test]
    fn a_store_at_work_is_shown_as_in_the_golden_screen() {
        let history: Vec<u64> = (0..60).map(|n| n % 16 * 500).chain([8_000]).collect();
        check("top-busy.txt", &text(&figures(), &history, 90, 28));
    }

    #[test]
    fn damage_has_the_last_line() {
        let damage = vec!["corrupt: here".to_owned(), "corrupt: there".to_owned()];
        let shown = text(&Figures { damage, ..figures() }, &[], 90, 28);
        assert_eq!(shown.lines().last(), Some("corrupt: here"));
    }

    #[test]
    fn an_empty_store_is_shown_as_in_the_golden_screen() {
        check("top-empty.txt", &text(&Figures::default(), &[], 60, 20));
    }

    #[test]
    fn a_small_terminal_shows_what_fits_as_in_the_golden_screen() {
        check("top-small.txt", &text(&figures(), &[8_000], 60, 19));
    }

    #[test]
    fn no_size_of_a_terminal_is_too_small() {
        for columns in 1..30 {
            for lines in 1..12 {
                text(&figures(), &[1, 2, 3], columns, lines);
            }
        }
    }
}

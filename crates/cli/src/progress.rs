//! A progress bar on standard error, where a person is looking at it.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// Work done of work to do, or nothing at all where standard error is no terminal.
#[derive(Debug, Default)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar for `bytes` of work; hidden unless `wanted` and standard error is a terminal.
    pub fn bytes(bytes: u64, wanted: bool) -> Progress {
        Progress::new(
            bytes,
            wanted,
            "{wide_bar} {percent:>3} %  {bytes}  {bytes_per_sec}  {eta} left",
        )
    }

    /// A bar for `records` of work; hidden unless `wanted` and standard error is a terminal.
    pub fn records(records: u64, wanted: bool) -> Progress {
        let template = "{wide_bar} {percent:>3} %  {human_pos} records  {rate}  {eta} left";
        Progress::new(records, wanted, template)
    }

    fn new(total: u64, wanted: bool, template: &str) -> Progress {
        if !wanted || !stderr().is_terminal() {
            return Progress(None);
        }
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            // Where it cannot be written, it is not seen.
            let _ = out.write_str(&rate(state.per_sec()));
        });
        let bar = ProgressBar::new(total).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(Some(bar))
    }

    /// So much more is done.
    pub fn add(&self, more: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(more);
        }
    }

    /// So much is done in all.
    pub fn set(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }
}

/// Takes the bar off the screen, so that what is printed next starts on a line of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// So many a second, as a person says it: to the digit that does not change at every look.
fn rate(per_second: f64) -> String {
    if per_second < 10.0 {
        return format!("{per_second:.1}/s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded, and at most u64::MAX"
    )]
    let whole = per_second.round() as u64;
    format!("{}/s", HumanCount(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_decimal_below_ten_and_none_above() {
        for (per_second, text) in [
            (0.0, "0.0/s"),
            (3.7283, "3.7/s"),
            (10.4, "10/s"),
            (999.6, "1,000/s"),
            (1_234_567.891, "1,234,568/s"),
        ] {
            assert_eq!(rate(per_second), text);
        }
    }
}

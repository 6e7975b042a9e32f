//! A progress bar on standard error, where a person is looking at it.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Bytes done of bytes to do, or nothing at all where standard error is no terminal.
#[derive(Debug)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar for `bytes` of work; hidden unless `wanted` and standard error is a terminal.
    pub fn bytes(bytes: u64, wanted: bool) -> Progress {
        if !wanted || !stderr().is_terminal() {
            return Progress(None);
        }
        let style = ProgressStyle::with_template(
            "{wide_bar} {percent:>3} %  {bytes}  {bytes_per_sec}  {eta} left",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(bytes).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(Some(bar))
    }

    /// `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }

    /// `bytes` are done in all.
    pub fn set(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
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

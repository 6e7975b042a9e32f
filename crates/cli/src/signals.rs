//! Told to end from outside, a command tidies up first.

use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

use crate::failure::{Failure, Outcome};

/// As long as it lives, what has to be done before a signal ends the process.
#[derive(Debug)]
pub struct BeforeTheEnd(Handle);

/// Has `work` done when the terminal or its window goes, or somebody interrupts or ends the process, which then ends as it
/// would have without.
#[expect(clippy::disallowed_methods, reason = "the signals come while the command is at work")]
pub fn before_the_end(work: impl Fn() + Send + 'static) -> Outcome<BeforeTheEnd> {
    let failed = |e| Failure::Failed(format!("wait for signals: {e}"));
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
    let handle = signals.handle();
    thread::spawn(move || {
        for signal in signals.forever() {
            work();
            // Where it fails, the process goes on, and is told again.
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(BeforeTheEnd(handle))
}

impl Drop for BeforeTheEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

//! Polling, by a thread or by a task: whoever polls looks, and waits for its signal until there is something to look at.

use std::sync::Arc;
use std::time::Duration;

use logmill_storage::Clock;

use crate::error::Result;
use crate::signal::Signal;

/// What came of looking once.
#[derive(Debug)]
pub(crate) enum Turn<T> {
    Done(T),
    WaitUntil(Duration),
}

/// Somebody who polls.
pub(crate) trait TakesTurns {
    /// What a poll returns.
    type Found;

    /// Does what is due at `now`, and looks. At `deadline` it is done, whatever it found.
    fn turn(&mut self, now: Duration, deadline: Duration) -> Result<Turn<Self::Found>>;

    /// Where it waits.
    fn place(&self) -> (Arc<Signal>, Arc<dyn Clock>);
}

pub(crate) fn poll<T: TakesTurns>(poller: &mut T, timeout: Duration) -> Result<T::Found> {
    let (signal, clock) = poller.place();
    let mut now = clock.monotonic();
    let deadline = now.saturating_add(timeout);
    loop {
        match poller.turn(now, deadline)? {
            Turn::Done(found) => return Ok(found),
            Turn::WaitUntil(until) => signal.wait_until(&*clock, until),
        }
        now = clock.monotonic();
    }
}

/// As [`poll`]. Nothing is awaited between looking and returning. A task that always finds something lets the others of its
/// thread have their turn all the same.
#[cfg(feature = "tokio")]
pub(crate) async fn poll_async<T: TakesTurns>(
    poller: &mut T,
    timeout: Duration,
) -> Result<T::Found> {
    let (signal, clock) = poller.place();
    let mut now = clock.monotonic();
    let deadline = now.saturating_add(timeout);
    tokio::task::coop::consume_budget().await;
    loop {
        match poller.turn(now, deadline)? {
            Turn::Done(found) => return Ok(found),
            Turn::WaitUntil(until) => signal.wait_until_async(&*clock, until).await,
        }
        now = clock.monotonic();
    }
}

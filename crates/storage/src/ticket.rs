//! An append that is on its way.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::commit::{Claim, Standing};
use crate::error::Result;
use crate::log::Log;
use crate::writer::{Appended, Writer};

/// A batch that has its offsets and is not acknowledged yet. Wait for it by [`wait`](Ticket::wait) or as a [`Future`], which
/// needs no runtime. Dropping it cancels nothing: the batch is appended all the same. It keeps the log open, unless that was
/// closed.
#[derive(Debug)]
#[must_use = "the batch is acknowledged when the ticket is waited for"]
pub struct Ticket {
    writer: Arc<Writer>,
    /// Somebody has to do the syncing.
    _log: Log,
    appended: Appended,
    /// `None`: what the level asks for holds already.
    claim: Option<Claim>,
}

impl Ticket {
    pub(crate) const fn new(
        writer: Arc<Writer>,
        log: Log,
        appended: Appended,
        claim: Option<Claim>,
    ) -> Ticket {
        Ticket { writer, _log: log, appended, claim }
    }

    /// The offsets that the batch has if it is acknowledged.
    pub const fn offsets(&self) -> Appended {
        self.appended
    }

    /// Whether waiting would return at once.
    pub fn is_settled(&self) -> bool {
        self.claim.is_none_or(|claim| self.writer.commit().standing(claim) != Standing::Pending)
    }

    /// Blocks until the batch is acknowledged.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown): a sync failed, the batch may or may not be there after
    /// reopening. [`Error::DiskFull`](crate::Error::DiskFull): it is not there, and its offsets go to others.
    pub fn wait(self) -> Result<Appended> {
        if let Some(claim) = self.claim {
            self.writer.wait_durable(claim)?;
        }
        Ok(self.appended)
    }
}

impl Future for Ticket {
    type Output = Result<Appended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(claim) = self.claim else { return Poll::Ready(Ok(self.appended)) };
        poll_claim(&self.writer, claim, context).map_ok(|()| self.appended)
    }
}

fn poll_claim(writer: &Writer, claim: Claim, context: &mut Context<'_>) -> Poll<Result<()>> {
    match writer.commit().standing_or_wake(claim, context.waker()) {
        Standing::Pending => {
            writer.request_sync();
            Poll::Pending
        }
        settled => Poll::Ready(writer.outcome(settled)),
    }
}

/// A sync that is on its way. Wait for it by [`wait`](SyncTicket::wait) or as a [`Future`], which needs no runtime. Dropping
/// it cancels nothing.
#[derive(Debug)]
#[must_use = "what was appended is durable when the ticket was waited for"]
pub struct SyncTicket {
    writer: Arc<Writer>,
    /// Somebody has to do the syncing.
    _log: Log,
    claim: Claim,
}

impl SyncTicket {
    pub(crate) const fn new(writer: Arc<Writer>, log: Log, claim: Claim) -> SyncTicket {
        SyncTicket { writer, _log: log, claim }
    }

    /// Blocks until what was appended is durable.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub fn wait(self) -> Result<()> {
        self.writer.wait_durable(self.claim)
    }
}

impl Future for SyncTicket {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        poll_claim(&self.writer, self.claim, context)
    }
}

//! Twins of the calls that change a queue, or messages that wait in it. Each is durable when it is ready; dropped before,
//! it is done all the same.

use std::collections::BTreeMap;

use crate::config::QueueConfig;
use crate::error::Result;
use crate::message::{Message, MessageId};
use crate::queue::{Edit, Queue, RedriveOptions};
use crate::schedule::{Missed, Repeat};
use crate::shared::Level;

impl Queue {
    async fn durable(&self) -> Result<()> {
        self.shared.settle_async(Level::sync()).await
    }

    /// As [`edit`](Queue::edit), for tasks.
    ///
    /// # Errors
    /// As [`edit`](Queue::edit).
    pub async fn edit_async(&self, id: MessageId, edit: &Edit<'_>) -> Result<()> {
        self.begin_edit(id, edit)?;
        self.durable().await
    }

    /// As [`cancel`](Queue::cancel), for tasks.
    ///
    /// # Errors
    /// As [`cancel`](Queue::cancel).
    pub async fn cancel_async(&self, id: MessageId) -> Result<()> {
        self.begin_cancel(id)?;
        self.durable().await
    }

    /// As [`fire_now`](Queue::fire_now), for tasks.
    ///
    /// # Errors
    /// As [`fire_now`](Queue::fire_now).
    pub async fn fire_now_async(&self, id: MessageId) -> Result<()> {
        self.begin_fire_now(id)?;
        self.durable().await
    }

    /// As [`redrive`](Queue::redrive), for tasks.
    ///
    /// # Errors
    /// As [`redrive`](Queue::redrive).
    pub async fn redrive_async(&self, options: &RedriveOptions) -> Result<u64> {
        let id = self.begin_redrive(options)?;
        self.durable().await?;
        Ok(id)
    }

    /// As [`cancel_redrive`](Queue::cancel_redrive), for tasks.
    ///
    /// # Errors
    /// As [`cancel_redrive`](Queue::cancel_redrive).
    pub async fn cancel_redrive_async(&self, id: u64) -> Result<()> {
        self.begin_cancel_redrive(id)?;
        self.durable().await
    }

    /// As [`schedule`](Queue::schedule), for tasks.
    ///
    /// # Errors
    /// As [`schedule`](Queue::schedule).
    pub async fn schedule_async(
        &self,
        name: &str,
        repeat: &Repeat,
        message: &Message<'_>,
        missed: Missed,
    ) -> Result<()> {
        self.begin_schedule(name, repeat, message, missed)?;
        self.durable().await
    }

    /// As [`unschedule`](Queue::unschedule), for tasks.
    ///
    /// # Errors
    /// As [`unschedule`](Queue::unschedule).
    pub async fn unschedule_async(&self, name: &str) -> Result<()> {
        self.begin_unschedule(name)?;
        self.durable().await
    }

    /// As [`set_config`](Queue::set_config), for tasks.
    ///
    /// # Errors
    /// As [`set_config`](Queue::set_config).
    pub async fn set_config_async(
        &self,
        change: impl FnOnce(QueueConfig) -> QueueConfig,
    ) -> Result<()> {
        self.begin_set_config(change)?;
        self.durable().await
    }

    /// As [`set_tags`](Queue::set_tags), for tasks.
    ///
    /// # Errors
    /// As [`set_tags`](Queue::set_tags).
    pub async fn set_tags_async(&self, tags: &BTreeMap<String, String>) -> Result<()> {
        self.begin_set_tags(tags)?;
        self.durable().await
    }

    /// As [`resume`](Queue::resume), for tasks.
    ///
    /// # Errors
    /// As [`resume`](Queue::resume).
    pub async fn resume_async(&self, group: &str) -> Result<()> {
        self.begin_resume(group)?;
        self.durable().await
    }
}

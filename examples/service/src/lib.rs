//! A service that accepts work and does it later, in one process: axum in front, a queue behind it, workers behind that.
//!
//! ```text
//!   POST /publish {"title": .., "text": ..} --> 202 once it is on the disk --> queue --> workers --> SITE/title.html
//!   GET /metrics  the store's numbers for Prometheus        GET /health  200, or 503 and what is wrong
//! ```
//! Nothing that was answered with 202 is lost, kill -9 included; an article may be published twice, and gives the same page.
#![expect(clippy::disallowed_methods, reason = "the site's files are not the store's")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use logmill::queue::Retry;
use logmill::{Queue, QueueConfig, ReceiveOptions, Store, Typed};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What is to be published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Article {
    /// Its title; an article without one is refused by the workers, for good.
    pub title: String,
    /// Its text.
    pub text: String,
}

/// What a request is told.
#[derive(Debug, Serialize)]
struct Accepted {
    id: String,
}

type Refusal = (StatusCode, String);

/// What the requests share.
#[derive(Clone)]
struct Service {
    store: Store,
    articles: Queue,
}

/// The queue of articles; what cannot be published ends in `failed`.
///
/// # Errors
/// As [`Store::create_queue`].
pub fn articles(store: &Store) -> logmill::Result<Queue> {
    store.create_queue("failed", &QueueConfig::standard())?;
    let (first, most) = (Duration::from_millis(100), Duration::from_secs(60));
    let config = QueueConfig::standard()
        .retry(Retry::Exponential { first, most, jitter: 50 })
        .visibility_timeout(Duration::from_secs(10))
        .dead_letter("failed", 5);
    store.create_queue("articles", &config)
}

/// The routes.
///
/// # Errors
/// As [`articles`].
pub fn router(store: &Store) -> logmill::Result<Router> {
    let service = Service { store: store.clone(), articles: articles(store)? };
    Ok(Router::new()
        .route("/publish", post(publish))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(service))
}

async fn publish(
    State(service): State<Service>,
    Json(article): Json<Article>,
) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    // On the disk when this is over; no thread waits for that.
    let sent = service.articles.send_json_async(&article).await.map_err(unavailable)?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { id: sent.id.to_string() })))
}

async fn metrics(State(service): State<Service>) -> Result<String, Refusal> {
    // It reads ends of partitions, which may open files: not on a thread that answers requests.
    let stats = tokio::task::spawn_blocking(move || service.store.stats()).await;
    Ok(stats.map_err(unavailable)?.map_err(unavailable)?.to_string())
}

async fn health(State(service): State<Service>) -> Refusal {
    let problems = service.store.health().problems;
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, problems.iter().map(|problem| format!("{problem}\n")).collect())
}

fn unavailable(error: impl std::fmt::Display) -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// A worker: publishes articles until `stop` says so. What it has begun by then it finishes.
///
/// # Errors
/// As [`Queue::receive_json_async`]: the queue was deleted, or its store closed.
pub async fn work(
    queue: Queue,
    site: PathBuf,
    mut stop: watch::Receiver<bool>,
) -> logmill::queue::Result<()> {
    let options = ReceiveOptions::new().max(10).wait(Duration::from_secs(20));
    loop {
        let received = tokio::select! {
            // A receive that is dropped has taken nothing.
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            received = queue.receive_json_async::<Article>(&options) => received?,
        };
        for Typed { message, value } in received {
            let receipt = message.receipt();
            let result = match value {
                Err(error) => queue.reject_async(receipt, &error.to_string()).await,
                Ok(article) if article.title.is_empty() => {
                    queue.reject_async(receipt, "an article without a title").await
                }
                Ok(article) => {
                    let site = site.clone();
                    match tokio::task::spawn_blocking(move || render(&site, &article)).await {
                        Ok(Ok(())) => queue.delete_async(receipt).await,
                        Ok(Err(error)) => queue.nack(receipt, &error.to_string()),
                        Err(panicked) => queue.nack(receipt, &panicked.to_string()),
                    }
                }
            };
            // A lease that ran out is no error of the worker's: another one has the message.
            if let Err(error @ logmill::queue::Error::Closed) = result {
                return Err(error);
            }
        }
    }
}

/// The page of an article.
pub fn page(site: &Path, title: &str) -> PathBuf {
    let name: String = title.chars().filter(char::is_ascii_alphanumeric).take(80).collect();
    site.join(format!("{name}.html"))
}

fn render(site: &Path, article: &Article) -> std::io::Result<()> {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let html = format!("<h1>{}</h1><p>{}</p>", escaped(&article.title), escaped(&article.text));
    std::fs::create_dir_all(site)?;
    std::fs::write(page(site, &article.title), html)
}

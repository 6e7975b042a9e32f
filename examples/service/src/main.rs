//! `logmill-service-example DIR [ADDRESS]`: keeps its store in DIR/store and its pages in DIR/site; stops at Ctrl-C.
#![expect(clippy::print_stdout, reason = "it says where it listens")]

use std::error::Error;
use std::path::PathBuf;

use logmill::Store;
use logmill_service_example::{articles, router, work};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How many articles are rendered at a time.
const WORKERS: usize = 2;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(dir) = arguments.next().map(PathBuf::from) else {
        return Err("usage: logmill-service-example DIR [ADDRESS]".into());
    };
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let store = Store::open(dir.join("store"))?;
    let (stop, stopped) = watch::channel(false);
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| Ok(tokio::spawn(work(articles(&store)?, dir.join("site"), stopped.clone()))))
        .collect::<logmill::Result<_>>()?;
    let listener = TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, router(&store)?)
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    // First the requests, then the workers, then the store.
    stop.send(true)?;
    for worker in workers {
        worker.await??;
    }
    tokio::task::spawn_blocking(move || store.close()).await??;
    Ok(())
}

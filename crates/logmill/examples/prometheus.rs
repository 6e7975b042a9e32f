//! Serves a store's numbers to Prometheus.
//!
//! ```text
//! cargo run --example prometheus -- DIR [ADDRESS]      then: curl http://127.0.0.1:9464/metrics
//! ```
//! The text is `Stats`' own; a service that has a web framework already returns it from a route.
#![expect(clippy::print_stdout, reason = "an example says where it listens")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use logmill::Store;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Answers `requests` requests; `None`: for ever.
pub fn serve(store: &Store, listener: &TcpListener, requests: Option<usize>) -> Outcome<()> {
    for connection in listener.incoming().take(requests.unwrap_or(usize::MAX)) {
        let mut connection = connection?;
        // The head ends with an empty line; a scrape has no body.
        let head = BufReader::new(connection.try_clone()?).lines();
        for line in head.take(100) {
            if line?.is_empty() {
                break;
            }
        }
        let body = store.stats()?.to_string();
        write!(
            connection,
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )?;
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(dir) = arguments.next() else { return Err("usage: prometheus DIR [ADDRESS]".into()) };
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9464".to_owned());
    let (store, listener) = (Store::open(dir)?, TcpListener::bind(address)?);
    println!("http://{}/metrics", listener.local_addr()?);
    serve(&store, &listener, None)
}

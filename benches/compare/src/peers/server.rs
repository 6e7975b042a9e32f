//! A server of its own process on loopback, ended when it is dropped.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub struct Server(Child);

impl Server {
    /// Starts it and waits until it answers at `port`; `None` if it is not installed.
    pub fn start(command: &mut Command, port: u16) -> Option<Server> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Server(child.map_err(|e| eprintln!("{command:?} is left out: {e}")).ok()?);
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{command:?} does not answer at {port}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// A port that nobody has.
pub fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("an address").port()
}

/// Connections, of which each thread has one for the time of a call.
pub struct Pool<T> {
    idle: Mutex<Vec<T>>,
    open: Box<dyn Fn() -> T + Send + Sync>,
}

impl<T> Pool<T> {
    pub fn new(open: impl Fn() -> T + Send + Sync + 'static) -> Pool<T> {
        Pool { idle: Mutex::default(), open: Box::new(open) }
    }

    pub fn with<R>(&self, call: impl FnOnce(&mut T) -> R) -> R {
        let idle = self.idle.lock().expect("lock").pop();
        let mut connection = idle.unwrap_or_else(|| (self.open)());
        let result = call(&mut connection);
        self.idle.lock().expect("lock").push(connection);
        result
    }
}

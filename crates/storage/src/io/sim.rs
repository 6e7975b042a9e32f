//! A simulated disk that is weaker than any real file system.

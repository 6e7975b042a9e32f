//! A look at another [`Io`], with an identity that is the same in every run, in which one file may refuse to be opened.

use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_storage::io::{Entry, File, FileSystem, Io, Lock, LockKind, Open};

pub const LOG_ID: [u8; 16] = *b"golden log id 16";
pub const BOOT_ID: [u8; 16] = *b"golden boot id16";

#[derive(Debug)]
pub struct Lens {
    inner: Arc<dyn Io>,
    refused: Option<(PathBuf, ErrorKind)>,
}

impl Lens {
    pub fn on(inner: Arc<dyn Io>) -> Arc<Lens> {
        Arc::new(Lens { inner, refused: None })
    }

    /// The file `path` is listed, and opening it ends in `kind`.
    pub fn refusing(inner: Arc<dyn Io>, path: &str, kind: ErrorKind) -> Arc<Lens> {
        Arc::new(Lens { inner, refused: Some((path.into(), kind)) })
    }
}

impl Io for Lens {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        match &self.refused {
            Some((refused, kind)) if path == refused => Err((*kind).into()),
            _ => self.inner.open(path, how),
        }
    }
    fn create_dir(&self, path: &Path) -> Result<()> {
        self.inner.create_dir(path)
    }
    fn mode(&self) -> Result<u32> {
        self.inner.mode()
    }
    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        self.inner.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.rename(from, to)
    }
    fn unlink(&self, path: &Path) -> Result<()> {
        self.inner.unlink(path)
    }
    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.inner.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.inner.sync_dir(path)
    }
    fn lock(&self, path: &Path, kind: LockKind) -> Result<Option<Box<dyn Lock>>> {
        self.inner.lock(path, kind)
    }
    fn file_system(&self) -> FileSystem {
        self.inner.file_system()
    }
    fn free_space(&self) -> Result<u64> {
        self.inner.free_space()
    }
    fn boot_id(&self) -> [u8; 16] {
        BOOT_ID
    }
    fn random(&self, buffer: &mut [u8]) -> Result<()> {
        for (byte, fixed) in buffer.iter_mut().zip(LOG_ID.iter().cycle()) {
            *byte = *fixed;
        }
        Ok(())
    }
}

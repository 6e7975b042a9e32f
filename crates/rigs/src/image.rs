//! A disk's content in memory, sparse, from which a file is made for each state that a crash could have left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::tools::{Outcome, failed};

const BLOCK: usize = 4096;

/// A disk's content; blocks that are not there are zero.
#[derive(Clone, Debug)]
pub struct Image {
    len: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
}

impl Image {
    /// Reads an image file.
    pub fn read(path: &Path) -> Outcome<Image> {
        let mut file = File::open(path).map_err(failed("opening an image"))?;
        let len = file.metadata().map_err(failed("stat of an image"))?.len();
        let mut image = Image { len, blocks: BTreeMap::new() };
        let mut stretch = vec![0; 1 << 20];
        let mut at = 0;
        while at < len {
            let part = &mut stretch[..((len - at).min(1 << 20)) as usize];
            file.read_exact(part).map_err(failed("reading an image"))?;
            for (i, block) in part.chunks(BLOCK).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    image.write(at + (i * BLOCK) as u64, block);
                }
            }
            at += part.len() as u64;
        }
        Ok(image)
    }

    /// Changes bytes that lie in one block.
    pub fn write(&mut self, position: u64, bytes: &[u8]) {
        let block =
            self.blocks.entry(position / BLOCK as u64).or_insert_with(|| Box::new([0; BLOCK]));
        let within = (position % BLOCK as u64) as usize;
        block[within..within + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes a file of it, with `changes` on top, in order.
    pub fn store(&self, path: &Path, changes: &[(u64, &[u8])]) -> Outcome {
        let file = File::create(path).map_err(failed("creating a state"))?;
        file.set_len(self.len).map_err(failed("sizing a state"))?;
        let mut run: Vec<u8> = Vec::new();
        let mut begins = 0;
        for (number, block) in &self.blocks {
            let position = number * BLOCK as u64;
            if begins + run.len() as u64 != position {
                file.write_all_at(&run, begins).map_err(failed("writing a state"))?;
                run.clear();
                begins = position;
            }
            run.extend_from_slice(block.as_slice());
        }
        file.write_all_at(&run, begins).map_err(failed("writing a state"))?;
        for (position, bytes) in changes {
            file.write_all_at(bytes, *position).map_err(failed("writing a state"))?;
        }
        Ok(())
    }
}

//! A simulated disk that is weaker than any real one: what no sync made durable may be lost piece by piece, in any order.
//!
//! [`SimDisk`] is the machine: a test pulls its plug, fills it up, breaks it and looks at it. [`SimDisk::io`] is what a
//! process on it gets: an [`Io`] that dies with the next [`kill`](SimDisk::kill) or [`crash`](SimDisk::crash).
//! With one thread, one seed is one run.
//!
//! * Bytes: each sector of a file comes back with any of the values it had since the file's last sync; a store through a
//!   mapping may be half done. The length comes back with any of its values, too, whatever the bytes do.
//! * Names: each creation, rename and removal is kept or lost by itself, until its directory is synced. A rename is
//!   never half done, and one between two directories needs a sync of both.
//! * A failed sync leaves clean pages that the platter does not have: the next sync says Ok.
//!
//! ```
//! # use std::path::Path;
//! use logmill_storage::io::sim::{CrashPlan, SimDisk};
//! use logmill_storage::io::{Open, write_full};
//!
//! let disk = SimDisk::new(1);
//! let file = disk.io().open(Path::new("a"), Open::Create)?;
//! write_full(&*file, b"not synced", 0)?;
//! disk.io().sync_dir(Path::new(""))?;
//! for seed in 0..100 {
//!     let disk = disk.fork(seed); // the same state again for each crash
//!     disk.crash(&CrashPlan::random(seed));
//!     let left = disk.read_file("a").unwrap();
//!     assert!(left.is_empty() || left.len() == 10);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{FileSystem, Io, LockKind};
use crate::sync::Mutex;

mod crash;
mod fault;
mod handle;
mod inode;
mod names;
mod pages;
mod process;
mod random;
mod volume;

pub use crash::{CrashPlan, Keep};
pub use fault::{Fault, Op, Ops};

use crash::Chooser;
use fault::Control;
use inode::Inode;
use process::Process;
use random::Random;
use volume::{Ino, Node, Volume};

/// A machine with one simulated disk. Clones are the same machine; [`fork`](SimDisk::fork) makes another.
#[derive(Clone)]
pub struct SimDisk {
    machine: Arc<Machine>,
}

struct Machine {
    state: Mutex<State>,
}

struct State {
    volume: Volume,
    random: Random,
    boot: u64,
    /// Raised when all processes die.
    generation: u64,
    file_system: FileSystem,
    capacity: Option<u64>,
    open: BTreeMap<Ino, Held>,
    locks: BTreeMap<Ino, (LockKind, u32)>,
    control: Control,
}

/// How often a file is open, and mapped.
#[derive(Default)]
struct Held {
    count: u32,
    mapped: u32,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.machine.state.lock();
        f.debug_struct("SimDisk")
            .field("generation", &state.generation)
            .field("ops", &state.control.ops)
            .finish()
    }
}

impl SimDisk {
    /// An empty disk of unlimited size that says it is ext4.
    pub fn new(seed: u64) -> SimDisk {
        let mut random = Random::new(seed);
        let boot = random.next();
        SimDisk::with(Volume::new(), random, boot, FileSystem::Ext4, None)
    }

    fn with(
        volume: Volume,
        random: Random,
        boot: u64,
        file_system: FileSystem,
        capacity: Option<u64>,
    ) -> SimDisk {
        let state = State {
            volume,
            random,
            boot,
            generation: 0,
            file_system,
            capacity,
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
            control: Control::default(),
        };
        SimDisk { machine: Arc::new(Machine { state: Mutex::new(state) }) }
    }

    /// What a process started now sees. Handles from before the last kill or crash stay dead.
    pub fn io(&self) -> Arc<dyn Io> {
        let generation = self.machine.state.lock().generation;
        Arc::new(Process { machine: Arc::clone(&self.machine), generation })
    }

    /// Another machine in the same state, synced or not, with no process, no armed fault and no calls counted.
    ///
    /// # Cost
    /// Files are shared until one side changes them: about a microsecond and as little for each file.
    pub fn fork(&self, seed: u64) -> SimDisk {
        let state = self.machine.state.lock();
        SimDisk::with(
            state.volume.clone(),
            Random::new(seed),
            state.boot,
            state.file_system,
            state.capacity,
        )
    }

    // ---- ends of processes

    /// kill -9 of all processes: what was written or stored stays, handles die, locks are free, the boot id is the same.
    /// Faults and stops are disarmed.
    pub fn kill(&self) {
        self.machine.state.lock().end_processes();
    }

    /// Loss of power: as [`kill`](SimDisk::kill), and of everything that was not synced only what `plan` keeps is left;
    /// the boot id is another.
    pub fn crash(&self, plan: &CrashPlan) {
        let mut state = self.machine.state.lock();
        state.end_processes();
        let mut names = Chooser::new(plan.names, plan.seed ^ 0x6E61_6D65);
        let mut data = Chooser::new(plan.data, plan.seed);
        state
            .volume
            .lose_power(|| names.pick(1) == 1, |inode, stale| inode.settle(&mut data, plan, stale));
        state.boot = Random::new(state.boot).next();
    }

    /// From the counted call `op` on (0 is the first since this disk was made) every call fails as if the process had died
    /// just before it: see [`is_cut`]. Ends with the next kill or crash.
    ///
    /// A store through a mapping cannot fail: one made after the stop does nothing, and the engine may go on to acknowledge it
    /// to nobody. So what the engine says counts only while [`is_stopped`](SimDisk::is_stopped) is false.
    pub fn stop_at(&self, op: u64) {
        self.machine.state.lock().control.stop(op, false);
    }

    /// As [`stop_at`](SimDisk::stop_at), but the process dies inside the call: a write or store may have put a part of its
    /// bytes, another call may have happened or not, as the seed has it.
    pub fn stop_inside(&self, op: u64) {
        self.machine.state.lock().control.stop(op, true);
    }

    /// Whether a stop has been reached.
    pub fn is_stopped(&self) -> bool {
        self.machine.state.lock().control.is_stopped()
    }

    // ---- faults

    /// The first call with index `op` or later at which `fault` can happen fails so, once.
    pub fn fail_nth(&self, op: u64, fault: Fault) {
        self.machine.state.lock().control.arm(op, None, true, fault);
    }

    /// All calls with index `op` or later at which `fault` can happen fail so, until the next kill or crash.
    pub fn fail_from(&self, op: u64, fault: Fault) {
        self.machine.state.lock().control.arm(op, None, false, fault);
    }

    /// The next call of kind `op` at which `fault` can happen fails so, once.
    pub fn fail_next(&self, op: Op, fault: Fault) {
        let mut state = self.machine.state.lock();
        let now = state.control.ops.total();
        state.control.arm(now, Some(op), true, fault);
    }

    /// Disarms all faults and stops.
    pub fn heal(&self) {
        self.machine.state.lock().control.disarm();
    }

    /// How many calls failed by an armed fault, ever. A test of a fault asserts that this is not zero.
    pub fn faults_fired(&self) -> u64 {
        self.machine.state.lock().control.fired
    }

    /// How many calls there were. Looking at the boot id or the file system and drawing random bytes are not counted.
    pub fn ops(&self) -> Ops {
        self.machine.state.lock().control.ops.clone()
    }

    /// The indexes of the calls that could change what a crash leaves: the points at which to cut.
    pub fn change_points(&self) -> Vec<u64> {
        self.machine.state.lock().control.changes.clone()
    }

    /// Begins to write down every call but reads, lengths and free space.
    pub fn start_trace(&self) {
        self.machine.state.lock().control.trace = Some(Vec::new());
    }

    /// The calls since the trace was started or last taken, one a line, with the path under which a file was opened.
    pub fn trace(&self) -> Vec<String> {
        self.machine.state.lock().control.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    // ---- the machine

    /// From now on files can have this many bytes of blocks in all. Reserved bytes count; a write that does not fit is cut
    /// short at the byte, the next one gets ENOSPC. `None`: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.machine.state.lock().capacity = bytes;
    }

    /// Bytes of blocks that files have.
    pub fn used(&self) -> u64 {
        self.machine.state.lock().volume.used
    }

    /// What [`Io::file_system`] says.
    pub fn set_file_system(&self, file_system: FileSystem) {
        self.machine.state.lock().file_system = file_system;
    }

    /// How many pieces a crash can keep or lose now: for each file its length, if that is pending, then its sectors.
    pub fn pending_pieces(&self, sector: usize) -> usize {
        self.machine.state.lock().volume.inodes().map(|i| i.pending_pieces(sector)).sum()
    }

    /// How many changes of names a crash can keep or lose now.
    pub fn pending_names(&self) -> usize {
        self.machine.state.lock().volume.pending_names()
    }

    // ---- looking and meddling behind the engine's back

    /// All files, sorted.
    pub fn paths(&self) -> Vec<String> {
        self.machine.state.lock().volume.files().into_iter().map(|(path, _)| path).collect()
    }

    /// What reads of a file would give now; `None` if there is no such file.
    pub fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.machine.state.lock();
        let inode = state.volume.file(state.volume.find(Path::new(path)).ok()?).ok()?;
        let mut bytes = vec![0; usize::try_from(inode.len).ok()?];
        inode.read(0, &mut bytes);
        Some(bytes)
    }

    /// What the platter has of a file that is there now: the least that a crash leaves of its bytes.
    pub fn durable_file(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.machine.state.lock();
        let inode = state.volume.file(state.volume.find(Path::new(path)).ok()?).ok()?;
        let mut bytes = vec![0; usize::try_from(inode.platter_len).ok()?];
        inode.platter.read(0, &mut bytes);
        Some(bytes)
    }

    /// Puts a durable file, in place of what has the name, with the directories above it.
    ///
    /// # Errors
    /// A path that is not plain, or leads through a file.
    pub fn write_file(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.plant(path, Node::File(Arc::new(Inode::durable(bytes))))
    }

    /// Puts something that is neither a file nor a directory: a link, a FIFO, a file with two names.
    ///
    /// # Errors
    /// As [`write_file`](SimDisk::write_file).
    pub fn plant_other(&self, path: &str) -> io::Result<()> {
        self.plant(path, Node::Other)
    }

    fn plant(&self, path: &str, node: Node) -> io::Result<()> {
        let mut state = self.machine.state.lock();
        if let Some(replaced) = state.volume.plant(Path::new(path), node)? {
            state.release_unless_open(replaced);
        }
        Ok(())
    }

    /// Takes a file away, durably.
    ///
    /// # Errors
    /// There is no such file.
    pub fn remove_file(&self, path: &str) -> io::Result<()> {
        let mut state = self.machine.state.lock();
        let ino = state.volume.uproot(Path::new(path))?;
        state.release_unless_open(ino);
        Ok(())
    }

    /// Changes `len` bytes at `position` of a file, on the platter and in the cache: rot, or a misdirected write.
    ///
    /// # Errors
    /// There is no such file, or it is shorter: nothing was changed.
    pub fn corrupt(
        &self,
        path: &str,
        position: u64,
        len: usize,
        change: impl Fn(&mut [u8]),
    ) -> io::Result<()> {
        let mut state = self.machine.state.lock();
        let ino = state.volume.find(Path::new(path))?;
        let range = position..position.saturating_add(len as u64);
        if range.end > state.volume.file(ino)?.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.volume.file_mut(ino)?.corrupt(range, change);
        Ok(())
    }

    /// Flips one bit of a file: bit `bit % 8` of byte `bit / 8`.
    ///
    /// # Errors
    /// As [`corrupt`](SimDisk::corrupt).
    pub fn flip_bit(&self, path: &str, bit: u64) -> io::Result<()> {
        self.corrupt(path, bit / 8, 1, |byte| byte[0] ^= 1 << (bit % 8))
    }
}

/// Whether `error` says only that the simulated process is dead: stopped, killed, or gone with the power.
pub fn is_cut(error: &io::Error) -> bool {
    process::is_cut(error)
}

impl State {
    fn end_processes(&mut self) {
        self.generation += 1;
        let open = std::mem::take(&mut self.open);
        self.volume.release_all(open.keys());
        self.locks.clear();
        self.control.disarm();
    }

    fn boot_id(&self) -> [u8; 16] {
        let mut random = Random::new(!self.boot);
        let mut id = [0; 16];
        id.chunks_mut(8).for_each(|word| word.copy_from_slice(&random.next().to_le_bytes()));
        id
    }

    fn room(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.volume.used))
    }

    fn hold(&mut self, ino: Ino) -> Ino {
        self.open.entry(ino).or_default().count += 1;
        ino
    }

    fn hold_mapping(&mut self, ino: Ino) {
        let held = self.open.entry(ino).or_default();
        held.count += 1;
        held.mapped += 1;
    }

    fn is_mapped(&self, ino: Ino) -> bool {
        self.open.get(&ino).is_some_and(|held| held.mapped > 0)
    }

    fn let_go_mapping(&mut self, ino: Ino) {
        if let Some(held) = self.open.get_mut(&ino) {
            held.mapped -= 1;
        }
        self.let_go(ino);
    }

    fn let_go(&mut self, ino: Ino) {
        let Some(held) = self.open.get_mut(&ino) else { return };
        held.count -= 1;
        if held.count == 0 {
            self.open.remove(&ino);
            self.volume.release_all([&ino]);
        }
    }

    fn release_unless_open(&mut self, ino: Ino) {
        if !self.open.contains_key(&ino) {
            self.volume.release(ino);
        }
    }

    fn try_lock(&mut self, ino: Ino, kind: LockKind) -> bool {
        match self.locks.get_mut(&ino) {
            None => {
                self.locks.insert(ino, (kind, 1));
                true
            }
            Some((LockKind::Shared, holders)) if kind == LockKind::Shared => {
                *holders += 1;
                true
            }
            Some(_) => false,
        }
    }

    fn unlock(&mut self, ino: Ino) {
        if let Some((_, holders)) = self.locks.get_mut(&ino) {
            *holders -= 1;
            if *holders == 0 {
                self.locks.remove(&ino);
            }
        }
    }
}

#[cfg(test)]
mod tests;

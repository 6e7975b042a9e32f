//! Which fault comes, and when.

use super::disk::Refusal;

/// A call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Write,
    Sync,
    Other,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power is cut.
    Power,
    /// One call is refused.
    Refusal,
    /// Every call is refused from some call on.
    LastingRefusal,
    /// One sync fails, and the cache shows what the platter does not have.
    FailedSync,
    /// One sync fails, and the cache forgets what was written.
    ForgetfulSync,
    /// There are only so many blocks left.
    Full,
    /// Every write is cut in half from some call on.
    Short,
}

impl Fault {
    pub const ALL: [Fault; 7] = [
        Fault::Power,
        Fault::Refusal,
        Fault::LastingRefusal,
        Fault::FailedSync,
        Fault::ForgetfulSync,
        Fault::Full,
        Fault::Short,
    ];
}

/// What becomes of a call that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    Nothing,
    Short,
    FailedSync { forgets: bool },
}

/// Blocks that are left when the disk gets full.
const BLOCKS_LEFT: u64 = 4;

/// The fault that is to come.
#[derive(Debug, Default)]
pub struct Plan {
    fault: Option<Fault>,
    /// Calls until it comes.
    calls: u64,
    fired: u64,
    dark: bool,
    blocks_max: Option<u64>,
}

impl Plan {
    /// Forgets the fault there was, and has `fault` come after so many calls.
    pub fn arm(&mut self, fault: Option<Fault>, calls: u64) {
        *self = Plan { fault, calls, ..Plan::default() };
    }

    pub const fn fired(&self) -> u64 {
        self.fired
    }

    pub const fn is_dark(&self) -> bool {
        self.dark
    }

    /// Counts a call, and says what becomes of it.
    pub fn admit(&mut self, call: Call) -> Result<Met, Refusal> {
        if self.dark {
            return Err(Refusal::Io);
        }
        if self.calls > 0 {
            self.calls -= 1;
            return Ok(Met::Nothing);
        }
        let Some(fault) = self.fault else { return Ok(Met::Nothing) };
        let met = match (fault, call) {
            (Fault::Power, _) => {
                self.dark = true;
                Err(Refusal::Io)
            }
            (Fault::Refusal, _) => {
                self.fault = None;
                Err(Refusal::Io)
            }
            (Fault::LastingRefusal, _) => Err(Refusal::Io),
            (Fault::FailedSync | Fault::ForgetfulSync, Call::Sync) => {
                self.fault = None;
                Ok(Met::FailedSync { forgets: fault == Fault::ForgetfulSync })
            }
            (Fault::Short, Call::Write) => Ok(Met::Short),
            _ => return Ok(Met::Nothing),
        };
        self.fired += 1;
        met
    }

    /// How many blocks there are, `used` of which are taken.
    pub fn blocks_max(&mut self, used: u64) -> u64 {
        if self.fault == Some(Fault::Full) && self.calls == 0 {
            *self.blocks_max.get_or_insert(used + BLOCKS_LEFT)
        } else {
            used + (1 << 20)
        }
    }

    /// A call has found no block.
    pub const fn note_full(&mut self) {
        self.fired += 1;
    }
}

//! One crash, in a line that can be given again: the store, the workload, where it is cut, and what the cut leaves.
//!
//! `positional+sync;0;s1 bf roll;@17!:r99/@4:k` is a workload of three operations, cut inside call 17 by a power loss that
//! keeps what seed 99 says, and whose recovery is killed before call 4.

use std::fmt;
use std::str::FromStr;

use logmill_storage::io::sim::CrashPlan;

use crate::random::mix;
use crate::world::World;

/// What a cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Only the process dies.
    Kill,
    /// Power loss: nothing that was not durable.
    Nothing,
    /// Power loss: everything.
    Everything,
    /// Power loss: as the seed has it.
    Random(u64),
    /// Power loss: exactly these pieces and names.
    Exactly(u64, u64),
}

/// Where a run is cut, and what that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The call.
    pub point: u64,
    /// In the middle of it, not before.
    pub inside: bool,
    /// What is left.
    pub plan: Plan,
}

/// A crash that can be had again.
#[derive(Debug, PartialEq)]
pub struct Case<W: World> {
    /// The store.
    pub setup: W::Setup,
    /// Decides what else is random.
    pub salt: u64,
    /// The workload.
    pub ops: Vec<W::Op>,
    /// The cut of the workload, then those of the recoveries that follow. None: the workload alone.
    pub cuts: Vec<Cut>,
}

impl Plan {
    /// The power loss; `None` if the power stays.
    pub fn crash(self) -> Option<CrashPlan> {
        match self {
            Plan::Kill => None,
            Plan::Nothing => Some(CrashPlan::nothing()),
            Plan::Everything => Some(CrashPlan::everything()),
            Plan::Random(seed) => Some(CrashPlan::random(seed)),
            Plan::Exactly(pieces, names) => Some(CrashPlan::exactly(pieces, names)),
        }
    }
}

impl<W: World> Clone for Case<W> {
    fn clone(&self) -> Case<W> {
        let Case { setup, salt, ops, cuts } = self;
        Case { setup: *setup, salt: *salt, ops: ops.clone(), cuts: cuts.clone() }
    }
}

impl<W: World> Case<W> {
    /// The same store and workload, cut here and there.
    pub fn with_cuts(&self, cuts: Vec<Cut>) -> Case<W> {
        Case { cuts, ..self.clone() }
    }

    /// A number that depends on everything up to the last cut.
    pub fn seed(&self) -> u64 {
        self.cuts
            .iter()
            .fold(mix(self.salt), |seed, cut| mix(seed ^ (cut.point << 1 | u64::from(cut.inside))))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Plan::Kill => f.write_str("k"),
            Plan::Nothing => f.write_str("n"),
            Plan::Everything => f.write_str("e"),
            Plan::Random(seed) => write!(f, "r{seed}"),
            Plan::Exactly(pieces, names) => write!(f, "m{pieces}.{names}"),
        }
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Plan, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
        match text.split_at_checked(1) {
            Some(("k", "")) => Ok(Plan::Kill),
            Some(("n", "")) => Ok(Plan::Nothing),
            Some(("e", "")) => Ok(Plan::Everything),
            Some(("r", seed)) => Ok(Plan::Random(number(seed)?)),
            Some(("m", bits)) => match bits.split_once('.') {
                Some((pieces, names)) => Ok(Plan::Exactly(number(pieces)?, number(names)?)),
                None => Err(format!("{text:?} is no plan")),
            },
            _ => Err(format!("{text:?} is no plan")),
        }
    }
}

impl<W: World> fmt::Display for Case<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{};", self.setup, self.salt)?;
        for (i, op) in self.ops.iter().enumerate() {
            write!(f, "{}{op}", if i > 0 { " " } else { "" })?;
        }
        f.write_str(";")?;
        for (i, cut) in self.cuts.iter().enumerate() {
            let (slash, bang) = (if i > 0 { "/" } else { "" }, if cut.inside { "!" } else { "" });
            write!(f, "{slash}@{}{bang}:{}", cut.point, cut.plan)?;
        }
        Ok(())
    }
}

impl<W: World> FromStr for Case<W> {
    type Err = String;

    fn from_str(text: &str) -> Result<Case<W>, String> {
        let parts: Vec<&str> = text.trim().split(';').collect();
        let [setup, salt, ops, cuts] = parts[..] else {
            return Err(format!("{text:?} has not four parts"));
        };
        Ok(Case {
            setup: setup.parse()?,
            salt: salt.parse().map_err(|_| format!("{salt:?} is no number"))?,
            ops: ops.split_whitespace().map(W::Op::from_str).collect::<Result<_, _>>()?,
            cuts: cuts
                .split('/')
                .filter(|cut| !cut.is_empty())
                .map(parse_cut)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn parse_cut(text: &str) -> Result<Cut, String> {
    let broken = || format!("{text:?} is no cut");
    let (at, plan) = text.strip_prefix('@').and_then(|t| t.split_once(':')).ok_or_else(broken)?;
    let (point, inside) = match at.strip_suffix('!') {
        Some(point) => (point, true),
        None => (at, false),
    };
    Ok(Cut { point: point.parse().map_err(|_| broken())?, inside, plan: plan.parse()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::QueueMachine;
    use crate::run::Machine;

    #[test]
    fn a_case_is_read_as_it_is_written() {
        let line = "mapped+buffered+lz4;3;s1 bf u3 power9 kill;@17!:r99/@4:k/@2:m5.3";
        let case: Case<Machine> = line.parse().unwrap();
        assert_eq!(case.to_string(), line);
        assert_eq!((case.cuts.len(), case.ops.len()), (3, 5));
        assert!("positional;0;nothing;".parse::<Case<Machine>>().is_err());
        let line = "queue+fifo+mapped+buffered;3;send big take drop power9;@17:k";
        assert_eq!(line.parse::<Case<QueueMachine>>().unwrap().to_string(), line);
    }
}

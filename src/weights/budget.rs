//! One budget for several models. Each gets what it cannot do without, and the rest is shared out in proportion to what
//! each would need to stream nothing. Models and sessions that come and go change the shares; nobody grows before the
//! others have given back what is taken from them, so the sum never exceeds the total.

use std::fmt;
use std::sync::{Arc, Weak};

use super::engine::Shared;
use crate::error::{Error, Result, Status};
use crate::sys::sync::Mutex;

/// A budget that models are opened with; see the module.
pub struct SharedBudget {
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    total: u64,
    list: Vec<Member>,
    last_id: u64,
}

struct Member {
    id: u64,
    needs: Needs,
    share: u64,
    /// Dangling until the model is open.
    engine: Weak<Shared>,
}

/// What a model must have, and with what it would stream nothing. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    pub least: u64,
    pub full: u64,
}

/// A model's place in a shared budget; leaving it when dropped.
pub struct BudgetShare {
    budget: Arc<SharedBudget>,
    id: u64,
}

impl SharedBudget {
    pub fn new(bytes: u64) -> Arc<SharedBudget> {
        Arc::new(SharedBudget { members: Mutex::new(Members { total: bytes, ..Members::default() }) })
    }

    /// Bytes that its models share.
    pub fn total(&self) -> u64 {
        self.members.lock().total
    }

    /// Changes the total, from any thread, while passes run.
    ///
    /// # Errors
    /// `MEMORY_BUDGET`: less than the open models need at least; nothing has changed then.
    pub fn set_total(&self, bytes: u64) -> Result<()> {
        let mut members = self.members.lock();
        let before = std::mem::replace(&mut members.total, bytes);
        let result = members.share_out();
        if result.is_err() {
            members.total = before;
        }
        result
    }

    /// Takes a model in; the others make room for it before this returns. Its share comes with the result.
    ///
    /// # Errors
    /// `MEMORY_BUDGET`: there is no room for its least beside that of the others.
    pub fn admit(self: &Arc<Self>, needs: Needs) -> Result<(BudgetShare, u64)> {
        let mut members = self.members.lock();
        members.last_id += 1;
        let id = members.last_id;
        members.list.push(Member { id, needs, share: 0, engine: Weak::new() });
        if let Err(e) = members.share_out() {
            members.list.pop();
            return Err(e);
        }
        let share = members.list.last().map_or(0, |m| m.share);
        Ok((BudgetShare { budget: self.clone(), id }, share))
    }
}

impl BudgetShare {
    /// The engine that lives on this share from now on.
    pub fn attach(&self, engine: &Arc<Shared>) {
        let mut members = self.budget.members.lock();
        if let Some(member) = members.list.iter_mut().find(|m| m.id == self.id) {
            member.engine = Arc::downgrade(engine);
            // The share may have changed while the model was being opened.
            engine.adopt_budget(member.share);
        }
    }

    /// Changes what the model needs: shares are as `needs` asks when `act` runs, which does what the needs were for. Both
    /// run with no other model of the budget doing the same.
    ///
    /// # Errors
    /// `MEMORY_BUDGET`: there is no room; nothing has changed then. Else what `act` says.
    pub fn change(&self, needs: impl FnOnce() -> Needs, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut members = self.budget.members.lock();
        if let Some(at) = members.list.iter().position(|m| m.id == self.id) {
            let before = std::mem::replace(&mut members.list[at].needs, needs());
            if let Err(e) = members.share_out() {
                members.list[at].needs = before;
                return Err(e);
            }
        }
        act()
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        let mut members = self.budget.members.lock();
        members.list.retain(|m| m.id != self.id);
        // Fewer members never need more than there is.
        let _ = members.share_out();
    }
}

impl Members {
    fn share_out(&mut self) -> Result<()> {
        let needs: Vec<Needs> = self.list.iter().map(|m| m.needs).collect();
        let shares = divide(self.total, &needs).ok_or_else(|| {
            let least = needs.iter().fold(0u64, |sum, n| sum.saturating_add(n.least));
            Error::new(
                Status::MemoryBudget,
                format!(
                    "a shared budget of {} bytes is below the {least} that {} models need",
                    self.total,
                    needs.len()
                ),
            )
        })?;
        let (mut shrinking, mut growing) = (Vec::new(), Vec::new());
        for (member, share) in self.list.iter_mut().zip(shares) {
            let list = if share < member.share { &mut shrinking } else { &mut growing };
            member.share = share;
            list.push((member.engine.clone(), share));
        }
        // Those that give come first.
        for (engine, share) in shrinking.into_iter().chain(growing) {
            if let Some(engine) = engine.upgrade() {
                engine.adopt_budget(share);
            }
        }
        Ok(())
    }
}

/// Shares of `total`: everybody's least, and of the rest to each in proportion to what it lacks, at most that.
/// None: the total does not cover the least.
fn divide(total: u64, needs: &[Needs]) -> Option<Vec<u64>> {
    let least = needs.iter().try_fold(0u64, |sum, n| sum.checked_add(n.least))?;
    let rest = total.checked_sub(least)?;
    let lacking = |n: &Needs| n.full.saturating_sub(n.least);
    let all: u128 = needs.iter().map(|n| u128::from(lacking(n))).sum();
    let part = |n: &Needs| match all {
        0 => 0,
        all => (u128::from(rest) * u128::from(lacking(n)) / all).min(u128::from(lacking(n))) as u64,
    };
    Some(needs.iter().map(|n| n.least + part(n)).collect())
}

impl fmt::Debug for SharedBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.members.lock();
        write!(f, "SharedBudget({} bytes, {} models)", members.total, members.list.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(list: &[(u64, u64)]) -> Vec<Needs> {
        list.iter().map(|&(least, full)| Needs { least, full }).collect()
    }

    #[test]
    fn everybody_gets_the_least_and_a_proportional_part_of_the_rest() {
        assert_eq!(divide(100, &needs(&[(10, 110), (10, 60)])), Some(vec![63, 36]));
        assert_eq!(divide(1000, &needs(&[(10, 110), (10, 60)])), Some(vec![110, 60]));
        assert_eq!(divide(20, &needs(&[(10, 110), (10, 60)])), Some(vec![10, 10]));
        assert_eq!(divide(19, &needs(&[(10, 110), (10, 60)])), None);
        assert_eq!(divide(5, &needs(&[(5, 5)])), Some(vec![5]));
        assert_eq!(divide(u64::MAX, &needs(&[(u64::MAX, u64::MAX), (1, 2)])), None);
    }

    #[test]
    fn shares_never_exceed_the_total() {
        for total in (300..5000).step_by(37) {
            let needs = needs(&[(100, 900), (50, 51), (150, 4000)]);
            assert!(divide(total, &needs).unwrap().iter().sum::<u64>() <= total);
        }
    }
}

//! Remotes that compete for sessions, and how one of them is selected.

use super::tree::Tree;
use crate::config::balance::Kind;
use crate::upstream::maglev::{Host, Maglev};

/// All remotes, or those with one tag.
#[derive(Default)]
pub(super) struct Group {
    /// The remotes, by place.
    pub(super) members: Vec<usize>,
    pub(super) tree: Tree,
    pub(super) choice: Choice,
}

/// How a remote of a group is selected, with what that takes.
#[derive(Default)]
pub(super) enum Choice {
    /// The one with the fewest sessions for its weight: the first of the tree.
    #[default]
    LeastUse,
    /// The one whose turn it is: the first of the tree, in which all have the same priority.
    RoundRobin,
    /// The better of two that are drawn.
    Random(Lots),
    /// The one to which a session's key belongs. `None` while there is no remote.
    Key(Option<Maglev>),
}

impl Choice {
    /// `members`: the remotes that may be selected.
    pub(super) fn new(kind: Kind, members: &[Host]) -> Choice {
        match kind {
            Kind::LeastUse => Choice::LeastUse,
            Kind::RoundRobin => Choice::RoundRobin,
            Kind::Random => Choice::Random(Lots::new(members)),
            Kind::Source | Kind::Hash => Choice::Key(Maglev::new(members)),
        }
    }
}

/// Draws remotes by weight.
#[derive(Default)]
pub(super) struct Lots {
    /// The remotes, each with the sum of the weights up to its own.
    sums: Vec<(u64, usize)>,
}

impl Lots {
    fn new(members: &[Host]) -> Lots {
        let mut sum = 0;
        let add = |host: &Host| {
            sum += host.weight;
            (sum, usize::from(host.number))
        };
        Lots { sums: members.iter().map(add).collect() }
    }

    /// The remote of a random number. `None` if there are no remotes.
    pub(super) fn draw(&self, random: u64) -> Option<usize> {
        let &(total, _) = self.sums.last()?;
        let lot = random % total;
        let place = self.sums.partition_point(|&(sum, _)| sum <= lot);
        self.sums.get(place).map(|&(_, index)| index)
    }
}

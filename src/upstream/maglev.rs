//! Consistent hashing: which remote a key belongs to.
//!
//! A Maglev table (Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4). Each remote has its own order of all slots, which follows
//! from its identity alone, and the remotes take slots in turn until none is free. So every node
//! that has the same remotes has the same table, each remote has its share to within a slot or two,
//! and when a remote leaves, few slots move but its own.
//!
//! A remote that is down keeps its slots: its keys go on to the remote of the next slot that is up,
//! which spreads them over all others, and no other key moves.

use crate::os::hash::mix;

/// The number of slots: a prime, so that every order reaches all of them. The table takes 128 KiB.
/// With a thousand remotes each still has 65 slots.
pub const SLOTS: usize = 65_537;

/// A remote in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// What it is known by on all nodes; different for each.
    pub identity: u64,
    /// Its share of the slots, relative to the others' weights; at least 1.
    pub weight: u64,
    /// The number by which the table names it.
    pub number: u16,
}

/// Which remote has which slot.
#[derive(Clone, Debug)]
pub struct Maglev {
    slots: Vec<u16>,
}

/// A remote while slots are being taken.
struct Taker {
    host: Host,
    /// Its next slot, and how far it is from one to the next.
    next: usize,
    skip: usize,
    /// It takes a slot when the round times its weight has come this far.
    due: u64,
}

impl Maglev {
    /// Makes the table of these remotes, in whatever order. `None` if there are none.
    pub fn new(hosts: &[Host]) -> Option<Maglev> {
        let heaviest = hosts.iter().map(|host| host.weight).max()?.max(1);
        let mut takers: Vec<Taker> = hosts
            .iter()
            .map(|&host| {
                let skip = mix(host.identity ^ 0x9e37_79b9_7f4a_7c15) % (SLOTS as u64 - 1) + 1;
                let next = mix(host.identity) % SLOTS as u64;
                Taker { host, next: next as usize, skip: skip as usize, due: 0 }
            })
            .collect();
        takers.sort_unstable_by_key(|taker| taker.host.identity);
        let mut slots = vec![None; SLOTS];
        let mut free = SLOTS;
        for round in 1.. {
            for taker in &mut takers {
                if round * taker.host.weight.max(1) < taker.due {
                    continue;
                }
                taker.due += heaviest;
                while slots[taker.next].is_some() {
                    taker.next = (taker.next + taker.skip) % SLOTS;
                }
                slots[taker.next] = Some(taker.host.number);
                free -= 1;
                if free == 0 {
                    return Some(Maglev { slots: slots.into_iter().flatten().collect() });
                }
            }
        }
        None
    }

    /// The remotes of a key: the one it belongs to first, then those of the following slots. A
    /// remote comes as often as it has slots.
    pub fn candidates(&self, key: u64) -> impl Iterator<Item = u16> + '_ {
        let start = (key % SLOTS as u64) as usize;
        self.slots[start..].iter().chain(&self.slots[..start]).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(weights: &[u64]) -> Vec<Host> {
        let host = |(number, &weight): (usize, &u64)| Host {
            identity: mix(number as u64 + 7),
            weight,
            number: number as u16,
        };
        weights.iter().enumerate().map(host).collect()
    }

    fn shares(table: &Maglev, count: usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        table.slots.iter().for_each(|&number| shares[usize::from(number)] += 1);
        shares
    }

    #[test]
    fn no_remote_has_no_table() {
        assert!(Maglev::new(&[]).is_none());
    }

    #[test]
    fn equal_remotes_have_equal_shares() {
        for count in [1, 2, 10, 100, 1000] {
            let table = Maglev::new(&hosts(&vec![1; count])).expect("a table");
            let shares = shares(&table, count);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{count} remotes: {least} to {most} slots");
        }
    }

    /// The manual has these figures: `make bench-balance` prints them.
    #[test]
    fn few_slots_move_when_a_remote_leaves() {
        println!("| remotes | slots of each | own keys of one | keys that move when it leaves |");
        println!("| --- | --- | --- | --- |");
        for count in [10usize, 100, 1000] {
            let all = hosts(&vec![1; count]);
            let before = Maglev::new(&all).expect("a table");
            let (mut own, mut moved) = (0, 0);
            let leaving = count / 3;
            let rest: Vec<Host> =
                all.iter().copied().filter(|host| usize::from(host.number) != leaving).collect();
            let after = Maglev::new(&rest).expect("a table");
            for (was, is) in before.slots.iter().zip(&after.slots) {
                own += usize::from(usize::from(*was) == leaving);
                moved += usize::from(was != is);
            }
            let shares = shares(&before, count);
            println!(
                "| {count} | {} to {} | {:.2} % | {:.2} % |",
                shares.iter().min().unwrap(),
                shares.iter().max().unwrap(),
                own as f64 * 100.0 / SLOTS as f64,
                moved as f64 * 100.0 / SLOTS as f64
            );
            assert!(moved >= own && moved <= own + SLOTS / 20, "{count}: {moved} of {own}");
        }
    }

    proptest! {
        // A table takes a while without optimization.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn shares_follow_weights_and_the_order_of_remotes_does_not_matter(
            weights in prop::collection::vec(1u64..=20, 1..12),
            turn in any::<prop::sample::Index>(),
        ) {
            let all = hosts(&weights);
            let table = Maglev::new(&all).expect("a table");
            let total: u64 = weights.iter().sum();
            for (share, weight) in shares(&table, all.len()).into_iter().zip(&weights) {
                let fair = SLOTS as f64 * *weight as f64 / total as f64;
                // Each may be a turn ahead, whose worth is a slot for each of the others.
                prop_assert!((share as f64 - fair).abs() <= 1.0 + all.len() as f64, "{share} {fair}");
            }
            let mut other = all.clone();
            other.rotate_left(turn.index(all.len()));
            prop_assert_eq!(&Maglev::new(&other).expect("a table").slots, &table.slots);
        }

        #[test]
        fn a_key_meets_every_remote(count in 1usize..9, key in any::<u64>()) {
            let table = Maglev::new(&hosts(&vec![1; count])).expect("a table");
            let mut met: Vec<u16> = table.candidates(key).collect();
            prop_assert_eq!(met.len(), SLOTS);
            met.sort_unstable();
            met.dedup();
            prop_assert_eq!(met.len(), count);
        }
    }
}

//! Leases of slots in the shared zone: which worker has which.

use super::zone::{Zone, SLOTS};
use crate::os::process::Pid;
use crate::os::shared::Object;
use crate::os::{self, log};
use std::os::fd::{AsFd, BorrowedFd};

/// The zone, created when the first worker asks for it, and the workers that take part.
#[derive(Default)]
pub struct Leases {
    zone: Option<(Zone, Object)>,
    slots: Slots,
}

impl Leases {
    /// What a worker needs to join: the memory, and its slot. `None`: it has to do without.
    pub fn admit(&mut self, pid: Pid) -> Option<(BorrowedFd<'_>, usize)> {
        if self.zone.is_none() {
            match Zone::create() {
                Ok(zone) => self.zone = Some(zone),
                Err(error) => log::message(&format!("shared memory: {}", os::reason(&error))),
            }
        }
        let (_, fd) = self.zone.as_ref()?;
        Some((fd.as_fd(), self.slots.assign(pid)?))
    }

    /// A process has ended, and writes no more: its slot is free again.
    pub fn ended(&mut self, pid: Pid) {
        if let (Some(slot), Some((zone, _))) = (self.slots.release(pid), &self.zone) {
            zone.clear(slot);
        }
    }
}

/// The slots, each with the process that has it.
#[derive(Debug)]
struct Slots([Option<Pid>; SLOTS]);

impl Default for Slots {
    fn default() -> Slots {
        Slots([None; SLOTS])
    }
}

impl Slots {
    /// The slot of a process, or a free one if it has none yet.
    fn assign(&mut self, pid: Pid) -> Option<usize> {
        let place = |wanted: Option<Pid>| self.0.iter().position(|&slot| slot == wanted);
        let slot = place(Some(pid)).or_else(|| place(None))?;
        self.0[slot] = Some(pid);
        Some(slot)
    }

    fn release(&mut self, pid: Pid) -> Option<usize> {
        let slot = self.0.iter().position(|&slot| slot == Some(pid))?;
        self.0[slot] = None;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_once_and_again() {
        let mut slots = Slots::default();
        assert_eq!(slots.assign(100), Some(0));
        assert_eq!(slots.assign(101), Some(1));
        assert_eq!(slots.assign(100), Some(0));
        assert_eq!(slots.release(100), Some(0));
        assert_eq!(slots.release(100), None);
        assert_eq!(slots.assign(102), Some(0));
        for pid in 0..SLOTS as Pid - 2 {
            assert!(slots.assign(1000 + pid).is_some());
        }
        assert_eq!(slots.assign(99), None);
        assert_eq!(slots.release(1003), Some(5));
        assert_eq!(slots.assign(99), Some(5));
    }

    #[test]
    fn what_a_dead_worker_had_is_given_back() {
        let mut leases = Leases::default();
        let join = |leases: &mut Leases, pid| {
            let (fd, slot) = leases.admit(pid).expect("a place");
            Zone::join(&Object::from(fd.try_clone_to_owned().expect("a copy")), slot)
                .expect("to join")
        };
        let (a, b) = (join(&mut leases, 7), join(&mut leases, 8));
        a.take_rows(&[1]).expect("a row");
        a.set_used(0, 3);
        b.set_used(0, 4);
        leases.ended(9);
        assert_eq!(b.state(0).used, 7);
        leases.ended(7);
        assert_eq!(b.state(0).used, 4);
    }
}

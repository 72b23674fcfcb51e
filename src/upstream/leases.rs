//! Leases of slots in the shared zone: which worker has which.

use super::zone::counters::{Counters, Standing};
use super::zone::notes::Notes;
use super::zone::{Zone, SLOTS};
use crate::os::process::{self, Pid};
use crate::os::shared::Object;
use crate::os::{self, log};
use std::os::fd::{AsFd, BorrowedFd};

/// The zone, created when the first worker asks for it, and the workers that take part.
#[derive(Default)]
pub struct Leases {
    zone: Option<(Zone, Object)>,
    slots: Slots,
    /// What the broker counts.
    counters: Counters,
    /// There is a monitor, as workers have to know.
    monitored: bool,
}

impl Leases {
    /// What a worker needs to join: the memory, and its slot. `None`: it has to do without.
    pub fn admit(&mut self, pid: Pid) -> Option<(BorrowedFd<'_>, usize)> {
        self.create();
        let (_, fd) = self.zone.as_ref()?;
        Some((fd.as_fd(), self.slots.assign(pid)?))
    }

    /// What the monitor needs to join. There is one at a time.
    pub fn admit_monitor(&mut self) -> Option<BorrowedFd<'_>> {
        self.create();
        let (_, fd) = self.zone.as_ref()?;
        Some(fd.as_fd())
    }

    /// Begins to count, in the zone that workers will get.
    pub fn count(&mut self) {
        self.create();
    }

    /// Begins to count in another zone: that of single-process mode.
    pub fn count_in(&mut self, zone: BorrowedFd<'_>) {
        if let Ok(zone) = zone.try_clone_to_owned() {
            self.counters = begin_counting(&zone.into());
        }
    }

    /// What the broker counts.
    #[inline]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn create(&mut self) {
        if self.zone.is_none() {
            match Zone::create() {
                Ok(zone) => {
                    self.zone = Some(zone);
                    self.set_monitored(self.monitored);
                }
                Err(error) => log::message(&format!("shared memory: {}", os::reason(&error))),
            }
        }
    }

    /// Tells workers that start from now on whether there is a monitor. Without one nobody counts,
    /// as nobody would look: that saves 5 % of a connection.
    pub fn set_monitored(&mut self, monitored: bool) {
        self.monitored = monitored;
        let Some((zone, object)) = &self.zone else {
            return;
        };
        zone.set_monitored(monitored);
        if monitored && !self.counters.are_kept() {
            self.counters = begin_counting(object);
        }
    }

    /// The monitor has ended, and writes no more.
    pub fn monitor_ended(&mut self) {
        if let Some((zone, _)) = &self.zone {
            zone.clear_monitor();
        }
    }

    /// The zone for the next image of the broker, and who has which slot.
    pub fn left(&self) -> Option<(BorrowedFd<'_>, Vec<(Pid, usize)>)> {
        let (_, fd) = self.zone.as_ref()?;
        let taken = self.slots.0.iter().enumerate();
        Some((fd.as_fd(), taken.filter_map(|(slot, pid)| Some(((*pid)?, slot))).collect()))
    }

    /// Goes on with the zone of the former image. One with another layout is left to its workers:
    /// this image makes its own.
    pub fn adopt(&mut self, fd: Object, slots: &[(Pid, usize)]) {
        let Ok(zone) = Zone::adopt(&fd) else {
            return;
        };
        zone.lift_marks();
        zone.end_passing_wishes();
        self.zone = Some((zone, fd));
        self.set_monitored(self.monitored);
        for &(pid, slot) in slots {
            if let Some(place) = self.slots.0.get_mut(slot) {
                *place = Some(pid);
            }
        }
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

/// The broker's counters in a zone; its errors go there too from now on.
fn begin_counting(object: &Object) -> Counters {
    let pid = process::id();
    let counters = Counters::of_broker(object, pid).unwrap_or_default();
    counters.stand(Standing::Serving, os::wall_clock());
    if let Ok(mut notes) = Notes::of_broker(object, pid) {
        log::keep_errors(move |text| notes.add(os::wall_clock(), text));
    }
    counters
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
    fn the_next_image_goes_on_with_the_zone() {
        let mut leases = Leases::default();
        assert!(leases.left().is_none());
        let slot = |leases: &mut Leases, pid| leases.admit(pid).map(|(_, slot)| slot);
        assert_eq!((slot(&mut leases, 7), slot(&mut leases, 8)), (Some(0), Some(1)));
        leases.ended(7);
        let (fd, slots) = leases.left().expect("a zone");
        let object = || fd.try_clone_to_owned().expect("a copy").into();
        let worker = Zone::join(&object(), 1).expect("a place");
        worker.take_rows(&[10]).expect("a row");
        worker.set_used(0, 3);
        worker.set_retry_at(0, 500);
        let mut next = Leases::default();
        next.adopt(object(), &slots);
        // Use goes on, and dead marks are lifted.
        assert_eq!((worker.state(0).used, worker.state(0).retry_at), (3, 0));
        assert_eq!((slot(&mut next, 8), slot(&mut next, 9)), (Some(1), Some(0)));
        // What is no zone is left alone.
        let (pipe, _writer) = std::io::pipe().expect("a pipe");
        let mut other = Leases::default();
        other.adopt(std::os::fd::OwnedFd::from(pipe).into(), &[(7, 0)]);
        assert!(other.left().is_none());
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

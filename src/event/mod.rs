//! The readiness loop: one per process, over whichever mechanism the system has.
//!
//! [`Loop`] owns the poller, the table of registered descriptors and the timers. Its owner waits,
//! then takes events and expired timers one at a time and handles each. So a handler may register,
//! change or remove any descriptor; events that this makes stale are skipped. Descriptors and
//! timers of C modules live in the same tables; the loop runs their callbacks while it looks for
//! the next event (`foreign`).
//!
//! Rules of this interface, the same for every mechanism:
//! * level-triggered: a descriptor that is ready and wanted is reported again until it is dealt
//!   with;
//! * interest is state: changes between two waits are merged into one system call;
//! * readiness may be over by the time it is reported (event ports): handlers must not block;
//! * no interest, no events: a descriptor without interest is not even polled for errors;
//! * a stream whose owner says when a read or write would block is watched edge-triggered where the
//!   mechanism supports it; at this interface it is level-triggered all the same;
//! * an error or hang-up counts as readiness for whatever is wanted: the next read or write shows
//!   which it is;
//! * if the system is too short of memory to watch a descriptor, or to wait at all, the loop polls
//!   on a timer until it can again: the owner notices only a little delay.

mod backend;
mod foreign;
mod interest;
mod slot;
mod timers;
mod token;

#[cfg(any(event_shims, target_os = "solaris", target_os = "illumos"))]
mod devpoll;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(any(
    event_shims,
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    target_vendor = "apple"
))]
mod kqueue;
mod periodic;
mod poll;
#[cfg(any(event_shims, target_os = "solaris", target_os = "illumos"))]
mod port;
mod resolver;
mod room;
mod select;
mod unwatched;

#[cfg(test)]
mod tests;

use crate::os::{self, log};
use backend::Backend;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

pub use backend::{Choice, Mechanism};
use foreign::Foreign;
pub use foreign::{Callback, Condition, Context, Order};
pub use interest::Interest;
use interest::PAUSED;
use periodic::{Periodic, FOREVER, STEP};
pub use resolver::{Resolver, Told};
use slot::{
    Ready, Slot, ALWAYS_READY, CHANGED, EDGE, HUNG_UP, READABLE, READ_ON, REGISTERED, VACANT,
    WRITABLE,
};
pub use timers::TimerId;
use timers::Timers;
pub use token::Token;

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Its owner, as registered.
    pub token: Token,
    /// Reading is wanted and will not block.
    pub readable: bool,
    /// Writing is wanted and will not block.
    pub writable: bool,
    /// An error or hang-up was seen.
    pub hangup: bool,
}

/// What is due later than this, in milliseconds, does not mind how long the turn before a wait took, so
/// the clock is not read for it again. Much less than the period of those who look at things every
/// second, which would make most waits read it.
const FAR: u64 = 20;

/// The loop.
pub struct Loop {
    backend: Backend,
    slots: Vec<Slot>,
    changed: Vec<RawFd>,
    always_ready: Vec<RawFd>,
    /// Descriptors that the system refuses to watch.
    unwatched: Periodic,
    /// Channels that were full and do not signal when there is room.
    rooms: Periodic,
    batch: Vec<Ready>,
    ready: VecDeque<(Ready, u8)>,
    timers: Timers,
    foreign: Foreign,
    /// In microseconds, on the monotonic clock.
    start: u64,
    now: u64,
}

impl Loop {
    /// A loop over the mechanism of `choice`.
    pub fn new(choice: &Choice) -> io::Result<Loop> {
        Ok(Loop {
            backend: Backend::new(choice.mechanism)?,
            slots: Vec::new(),
            changed: Vec::new(),
            always_ready: Vec::new(),
            unwatched: Periodic::default(),
            rooms: Periodic::default(),
            batch: Vec::new(),
            ready: VecDeque::new(),
            timers: Timers::default(),
            foreign: Foreign::default(),
            start: os::monotonic_microseconds(),
            now: 0,
        })
    }

    /// Milliseconds since the loop was made, as of the last wait. Starts at 0, never goes back.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// True if streams are watched edge-triggered.
    pub fn has_edges(&self) -> bool {
        self.backend.has_edges()
    }

    /// Microseconds since the loop was made, now.
    fn microseconds(&self) -> i64 {
        os::monotonic_microseconds().saturating_sub(self.start) as i64
    }

    /// Reads the clock again; for use after a slow operation.
    pub fn refresh_clock(&mut self) {
        self.now = self.microseconds() as u64 / 1000;
    }

    /// Watches a descriptor. Registering one again resets it. It must be [removed](Self::remove)
    /// before it is closed.
    pub fn register(&mut self, fd: &impl AsRawFd, token: Token, interest: Interest) {
        let fd = fd.as_raw_fd();
        let index = usize::try_from(fd).expect("descriptors are not negative");
        if index >= self.slots.len() {
            self.slots.resize(index + 1, VACANT);
        }
        // The number may have been closed without `remove`, and name another file now.
        self.remove(&fd);
        if token != Token::foreign() {
            self.foreign.forget(fd);
        }
        let slot = &mut self.slots[index];
        slot.token = token;
        slot.generation = slot.generation.wrapping_add(1);
        slot.flags |= REGISTERED;
        self.want(fd, interest);
    }

    /// As [`register`](Self::register), for a socket whose owner reports every read or write that
    /// would block or came up short ([`blocked`](Self::blocked),
    /// [`read_in_part`](Self::read_in_part)), and closes it right after removing it. Where edges
    /// are available, the system is told of the socket only once, and changes of interest cost no
    /// system call.
    pub fn register_stream(&mut self, fd: &impl AsRawFd, token: Token, interest: Interest) {
        self.register(fd, token, interest);
        if self.backend.has_edges() {
            self.slots[fd.as_raw_fd() as usize].flags |= EDGE;
        }
    }

    /// Reading or writing (or both) would have blocked: clears the readiness that was remembered.
    /// For streams.
    pub fn blocked(&mut self, fd: &impl AsRawFd, what: Interest) {
        if let Some(slot) = self.slots.get_mut(fd.as_raw_fd() as usize) {
            if what.contains(Interest::READ) {
                slot.flags &= !(READABLE | READ_ON | HUNG_UP);
            }
            if what.contains(Interest::WRITE) {
                slot.flags &= !(WRITABLE | HUNG_UP);
            }
        }
    }

    /// A read was short, so nothing is left and the next data will raise an edge; unless an end or
    /// urgent data is already known ([`reads_on`](Self::reads_on)), when it stays readable. For
    /// streams.
    pub fn read_in_part(&mut self, fd: &impl AsRawFd) {
        if let Some(slot) = self.slots.get_mut(fd.as_raw_fd() as usize) {
            if slot.flags & (READ_ON | HUNG_UP) == 0 {
                slot.flags &= !READABLE;
            }
        }
    }

    /// True if a stream must be read until it would block, even after a short read: its end has
    /// arrived already, or urgent data.
    pub fn reads_on(&self, fd: &impl AsRawFd) -> bool {
        self.slots.get(fd.as_raw_fd() as usize).is_some_and(|slot| slot.flags & READ_ON != 0)
    }

    /// Changes the interest in a registered descriptor; takes effect with the next wait.
    #[inline]
    pub fn set_interest(&mut self, fd: &impl AsRawFd, interest: Interest) {
        let fd = fd.as_raw_fd();
        match self.slots.get(fd as usize) {
            // Nothing to do: a stream's readiness is checked again after each delivery.
            Some(Slot { flags, wanted, installed, .. })
                if flags & EDGE != 0 && *wanted == interest && !installed.is_empty() => {}
            _ => self.want(fd, interest),
        }
    }

    fn want(&mut self, fd: RawFd, interest: Interest) {
        let Some(slot) = self.slots.get_mut(fd as usize) else {
            return;
        };
        if slot.flags & REGISTERED == 0 {
            return;
        }
        slot.wanted = interest;
        if interest.contains(Interest::ROOM) {
            let due = if self.rooms.due() == FOREVER { self.now + STEP } else { FOREVER };
            self.rooms.add(fd, due);
        } else {
            self.rooms.remove(fd);
        }
        if slot.flags & EDGE != 0 || slot.target() != slot.installed {
            self.note_change(fd);
        }
    }

    fn note_change(&mut self, fd: RawFd) {
        let slot = &mut self.slots[fd as usize];
        if slot.flags & CHANGED == 0 {
            slot.flags |= CHANGED;
            self.changed.push(fd);
        }
    }

    /// Stops watching a descriptor at once. Its events that have not been taken yet are dropped.
    pub fn remove(&mut self, fd: &impl AsRawFd) {
        let fd = fd.as_raw_fd();
        let Some(slot) = self.slots.get_mut(fd as usize) else {
            return;
        };
        if slot.flags & REGISTERED == 0 {
            return;
        }
        // The owner closes a stream next, and that ends the watching.
        let installed = if slot.flags & EDGE == 0 { slot.installed } else { Interest::empty() };
        // Its entry in `changed` stays, and will find a slot without interest.
        *slot = Slot {
            generation: slot.generation.wrapping_add(1),
            flags: slot.flags & CHANGED,
            ..VACANT
        };
        self.always_ready.retain(|&other| other != fd);
        self.unwatched.remove(fd);
        self.rooms.remove(fd);
        if !installed.is_empty() {
            self.backend.remove(fd, installed);
        }
    }

    /// Tells the backend the changes of interest since the last wait.
    fn flush(&mut self) {
        // Nothing here adds a change.
        for index in 0..self.changed.len() {
            let fd = self.changed[index];
            let slot = &mut self.slots[fd as usize];
            slot.flags &= !CHANGED;
            let (installed, target) = (slot.installed, slot.target());
            if slot.flags & EDGE != 0 && !installed.is_empty() {
                // Still ready, as far as we know.
                if slot.ready() != Interest::empty() {
                    self.ready.push_back((Ready { fd, ..Ready::default() }, slot.generation));
                }
                continue;
            }
            if slot.flags & ALWAYS_READY != 0 || installed == target {
                continue;
            }
            let (result, installed) = if slot.flags & EDGE != 0 {
                (self.backend.add_stream(fd, slot.generation), Interest::all())
            } else {
                (self.backend.update(fd, installed, target), target)
            };
            match result {
                Ok(()) => {
                    slot.installed = installed;
                    self.unwatched.remove(fd);
                }
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    slot.flags |= ALWAYS_READY;
                    self.always_ready.push(fd);
                }
                Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
                    // Closed without `remove`: the owner's next read or write fails with the same
                    // error.
                    let (readable, writable, hangup) = (true, true, true);
                    let ready = Ready { fd, readable, writable, hangup, ..Ready::default() };
                    self.ready.push_back((ready, slot.generation));
                }
                Err(_) => self.give_up_watching(fd),
            }
        }
        self.changed.clear();
    }

    /// Waits for events until the next timer is due, or at most `limit` milliseconds if given. An
    /// interrupted wait ends early, without an error, and reports what is ready at that moment.
    pub fn wait(&mut self, limit: Option<u64>) -> io::Result<()> {
        let deadline = self.timers.next_deadline().unwrap_or(FOREVER);
        let soonest = deadline.min(self.rooms.due()).min(self.unwatched.due());
        if soonest.saturating_sub(self.now) < FAR {
            self.refresh_clock();
        }
        let mut timeout = limit.unwrap_or(FOREVER);
        if deadline != FOREVER {
            timeout = timeout.min(deadline.saturating_sub(self.now));
        }
        if let Some(foreign) = self.foreign_timeout() {
            timeout = timeout.min(foreign);
        }
        self.wait_for(timeout)
    }

    /// Waits for events, at most `timeout` milliseconds.
    fn wait_for(&mut self, mut timeout: u64) -> io::Result<()> {
        self.flush();
        if self.unwatched.due() <= self.now {
            self.look_at_unwatched();
        }
        if let Some(log) = log::tend() {
            timeout = timeout.min(log);
        }
        let look = self.rooms.due().min(self.unwatched.due());
        if look != FOREVER {
            timeout = timeout.min(look.saturating_sub(self.now));
        }
        if !self.ready.is_empty() || !self.always_ready.is_empty() {
            timeout = 0;
        }
        let limit = (timeout != FOREVER).then_some(timeout);
        self.batch.clear();
        match self.backend.wait(limit, &mut self.batch) {
            Err(error) if os::interrupted(&error) => {
                // After SIGSTOP and SIGCONT, see what has arrived before timers expire.
                let _ = self.backend.wait(Some(0), &mut self.batch);
            }
            Err(error) if os::out_of_memory(&error) || os::would_block(&error) => {
                unwatched::pause(timeout);
            }
            result => result?,
        }
        self.refresh_clock();
        if self.rooms.due() <= self.now {
            self.tell_of_room();
        }
        for index in 0..self.always_ready.len() {
            let fd = self.always_ready[index];
            self.batch.push(Ready { fd, readable: true, writable: true, ..Ready::default() });
        }
        for index in 0..self.batch.len() {
            let ready = self.batch[index];
            if ready.lost {
                self.give_up_watching(ready.fd);
            } else if let Some(slot) = self.slots.get_mut(ready.fd as usize) {
                if let Some(generation) = ready.edge {
                    // A stale edge: that connection was closed here but is still open in another
                    // process.
                    if generation != slot.generation {
                        continue;
                    }
                    slot.remember(&ready);
                }
                self.ready.push_back((ready, slot.generation));
            }
        }
        Ok(())
    }

    /// The next descriptor that is ready and still wanted, if there is one.
    pub fn next_event(&mut self) -> Option<Event> {
        while let Some((ready, generation)) = self.ready.pop_front() {
            if !self.is_current(ready.fd, generation) {
                continue;
            }
            let slot = self.slots[ready.fd as usize];
            if slot.token == Token::foreign() {
                self.call_foreign(ready);
                continue;
            }
            if slot.flags & EDGE != 0 {
                // If it is still ready after this event, `flush` delivers it again before the next
                // wait.
                self.note_change(ready.fd);
                let found = slot.ready();
                if found.is_empty() {
                    continue;
                }
                return Some(Event {
                    token: slot.token,
                    readable: found.contains(Interest::READ),
                    writable: found.contains(Interest::WRITE),
                    hangup: found.contains(Interest::HANGUP),
                });
            }
            let readable = (ready.readable || ready.hangup) && slot.wanted.contains(Interest::READ);
            let writable = (ready.writable || ready.hangup)
                && slot.wanted.intersects(Interest::WRITE | Interest::ROOM);
            let hangup = ready.hangup && !slot.wanted.is_empty();
            if readable || writable || hangup {
                return Some(Event { token: slot.token, readable, writable, hangup });
            }
        }
        None
    }

    /// True if the descriptor's number has not been reused since the event was queued.
    fn is_current(&self, fd: RawFd, generation: u8) -> bool {
        let slot = self.slots.get(fd as usize);
        slot.is_some_and(|slot| slot.flags & REGISTERED != 0 && slot.generation == generation)
    }

    fn is_foreign(&self, fd: RawFd) -> bool {
        self.slots.get(fd as usize).is_some_and(|slot| slot.token == Token::foreign())
    }

    /// Arms a timer that is due at `deadline`, in milliseconds on the scale of [`Self::now`].
    pub fn arm(&mut self, token: Token, deadline: u64) -> TimerId {
        self.timers.arm(token, deadline)
    }

    /// Moves an armed timer. One that has expired or was cancelled is left alone.
    pub fn renew(&mut self, timer: TimerId, deadline: u64) {
        self.timers.renew(timer, deadline);
    }

    /// How many timers are armed.
    pub fn armed(&self) -> usize {
        self.timers.armed()
    }

    /// Disarms a timer. One that has expired or was cancelled is left alone.
    pub fn cancel(&mut self, timer: TimerId) {
        self.timers.cancel(timer);
    }

    /// The next timer that is due, disarmed. If there is none, runs the timers of C modules and
    /// returns `None`.
    pub fn next_expired(&mut self) -> Option<(TimerId, Token)> {
        let expired = self.timers.pop_due(self.now);
        if expired.is_none() {
            self.foreign_run_due();
        }
        expired
    }

    /// Frees memory after a peak; call it when few descriptors are registered.
    pub fn shrink(&mut self) {
        let used = self.slots.iter().rposition(|slot| slot.flags != 0).map_or(0, |last| last + 1);
        if self.slots.capacity() > 4 * used.max(64) {
            self.slots.truncate(used);
            self.slots.shrink_to(2 * used);
            self.timers.shrink();
            // The generations of the slots cut off are lost, so no queued event may refer to them.
            // The next wait reports again what is still ready.
            self.ready.clear();
            self.ready.shrink_to(256);
        }
    }

    /// Makes the loop of a forked child independent of its parent's: creates a fresh poller that
    /// watches the same descriptors.
    pub fn renew_after_fork(&mut self) -> io::Result<()> {
        self.replace_backend(self.backend.mechanism())
    }

    /// Switches to the mechanism of `choice`.
    pub fn set_mechanism(&mut self, choice: &Choice) -> io::Result<()> {
        if self.backend.mechanism() == choice.mechanism {
            return Ok(());
        }
        self.replace_backend(choice.mechanism)
    }

    fn replace_backend(&mut self, mechanism: Mechanism) -> io::Result<()> {
        self.backend = Backend::new(mechanism)?;
        self.changed.clear();
        self.unwatched = Periodic::default();
        for (fd, slot) in self.slots.iter_mut().enumerate() {
            slot.installed = Interest::empty();
            slot.flags &= !CHANGED;
            if !self.backend.has_edges() {
                slot.flags &= !(EDGE | READABLE | WRITABLE | HUNG_UP | READ_ON);
            }
            if slot.flags & REGISTERED != 0 && !slot.wanted.is_empty() {
                slot.flags |= CHANGED;
                self.changed.push(fd as RawFd);
            }
        }
        Ok(())
    }
}

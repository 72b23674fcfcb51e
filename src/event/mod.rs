//! The readiness loop: one per process, over whichever mechanism the system has.
//!
//! [`Loop`] owns the poller, the table of registered descriptors and the timers. Its owner waits,
//! takes the events and the expired timers one by one, and acts. So a handler may register, change
//! and remove anything, and an event that has become stale on the way is skipped. Descriptors and
//! timers of C modules are in the same tables; the loop calls them on the way (`foreign`).
//!
//! Rules at this interface, the same for every mechanism:
//! * level-triggered: what is ready and wanted is reported again until it is dealt with;
//! * interest is state: changes between two waits are merged, and the system is told once;
//! * what was ready may be so no longer when it is told (event ports): nobody may block on it;
//! * no interest, no events: a descriptor nobody asks about is not even polled for errors;
//! * a stream whose owner says when a read or write would block is watched by edges where the
//!   mechanism can, and is level-triggered at this interface all the same;
//! * an error or hang-up counts as readiness for whatever is wanted: the next read or write
//!   tells what it is;
//! * what the system refuses to watch, as it is short of memory, is asked about by timer until it
//!   does, and so is waiting: its owner notices nothing but a little delay.

mod backend;
mod foreign;
mod timers;

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
use std::time::Instant;

pub use backend::{Choice, Mechanism};
use foreign::Foreign;
pub use foreign::{Callback, Condition, Context};
use periodic::{Periodic, FOREVER, STEP};
pub use resolver::{Resolver, Told};
pub use timers::TimerId;
use timers::Timers;

bitflags::bitflags! {
    /// What a descriptor is watched for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Interest: u8 {
        /// Data, a connection to accept, or end of file.
        const READ = 1;
        /// Room to write, or the end of a connection attempt.
        const WRITE = 2;
        /// A reset of a connection that is neither read nor written at the moment. Only some
        /// mechanisms can tell (epoll, poll, event ports, /dev/poll); the others report it with
        /// the next read or write.
        const HANGUP = 4;
        /// Room in a channel that does not say when there is some: told as writable every 20 ms, until
        /// it is not wanted any more.
        const ROOM = 16;
    }
}

/// Beside what a backend was told last: none of that is to be reported for the time being, though it
/// is still known to the system where that can be. Going on needs no memory then.
const PAUSED: Interest = Interest::from_bits_retain(8);

impl Interest {
    /// What is to be reported.
    fn reported(self) -> Interest {
        if self.contains(PAUSED) {
            Interest::empty()
        } else {
            self
        }
    }
}

/// Names the owner of a descriptor or timer: a kind of five bits and an index of 27 bits, both
/// up to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u32);

impl Token {
    const INDEX_BITS: u32 = 27;

    /// How many kinds there are.
    pub const KINDS: u8 = 31;

    /// How many indices there are.
    pub const INDICES: u32 = 1 << Token::INDEX_BITS;

    /// Marks descriptors of C modules. No owner's kind goes up to it.
    const FOREIGN: u8 = Token::KINDS;

    fn foreign() -> Token {
        Token(u32::from(Token::FOREIGN) << Token::INDEX_BITS)
    }

    /// Panics if `kind` or `index` do not fit, which is a programming error.
    pub const fn new(kind: u8, index: u32) -> Token {
        assert!(kind < Token::KINDS && index < Token::INDICES);
        Token((kind as u32) << Token::INDEX_BITS | index)
    }

    /// The kind given to [`Token::new`].
    pub const fn kind(self) -> u8 {
        (self.0 >> Token::INDEX_BITS) as u8
    }

    /// The index given to [`Token::new`].
    pub const fn index(self) -> u32 {
        self.0 & (Token::INDICES - 1)
    }
}

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Who registered it.
    pub token: Token,
    /// Reading is wanted and will not block.
    pub readable: bool,
    /// Writing is wanted and will not block.
    pub writable: bool,
    /// An error or hang-up was seen.
    pub hangup: bool,
}

/// What a backend reports.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    fd: RawFd,
    readable: bool,
    writable: bool,
    hangup: bool,
    /// The other side will send nothing more. Only known of edges.
    ended: bool,
    /// There is urgent data, and a read may end at its mark. Only known of edges.
    urgent: bool,
    /// The backend does not watch it any more, as the system has refused to go on.
    lost: bool,
    /// The generation that an edge is about.
    edge: Option<u8>,
}

/// One registered descriptor: eight bytes, so that idle sessions stay cheap.
#[derive(Clone, Copy)]
struct Slot {
    token: Token,
    generation: u8,
    wanted: Interest,
    installed: Interest,
    flags: u8,
}

const REGISTERED: u8 = 1;
/// The slot is in the list of changes that the backend has not been told.
const CHANGED: u8 = 2;
/// The backend cannot watch it (a regular file): always ready.
const ALWAYS_READY: u8 = 4;
/// The backend tells of it by edges, and what it has told is remembered here.
const EDGE: u8 = 8;
const READABLE: u8 = 16;
const WRITABLE: u8 = 32;
const HUNG_UP: u8 = 64;
/// A read of less than there was room for is not the last: the other side will send nothing more,
/// or there is urgent data. Reading goes on until it finds nothing.
const READ_ON: u8 = 128;

impl Slot {
    /// Notes what an edge has told.
    fn remember(&mut self, ready: &Ready) {
        for (set, bit) in [
            (ready.readable, READABLE),
            (ready.writable, WRITABLE),
            (ready.hangup, HUNG_UP),
            (ready.ended || ready.urgent, READ_ON),
        ] {
            if set && self.flags & EDGE != 0 {
                self.flags |= bit;
            }
        }
    }

    /// What a stream is ready for, and watched for.
    fn ready(&self) -> Interest {
        let mut ready = Interest::empty();
        let any = |bits| self.flags & bits != 0;
        ready.set(Interest::READ, any(READABLE | READ_ON | HUNG_UP));
        ready.set(Interest::WRITE, any(WRITABLE | HUNG_UP));
        ready &= self.wanted;
        // An error counts with any interest.
        ready.set(Interest::HANGUP, any(HUNG_UP) && !self.wanted.is_empty());
        ready
    }

    /// What the system can tell of what is wanted.
    fn watched(&self) -> Interest {
        self.wanted - Interest::ROOM
    }

    /// What the backend is to be told: no interest is a pause, not a removal.
    fn target(&self) -> Interest {
        let wanted = self.watched();
        if wanted.is_empty() && !self.installed.is_empty() {
            self.installed | PAUSED
        } else {
            wanted
        }
    }
}

const VACANT: Slot = Slot {
    token: Token(0),
    generation: 0,
    wanted: Interest::empty(),
    installed: Interest::empty(),
    flags: 0,
};

/// What is due later than this, in milliseconds, does not mind how long the turn before a wait took, so
/// the clock is not read for it again.
const FAR: u64 = 1000;

/// The loop.
pub struct Loop {
    backend: Backend,
    slots: Vec<Slot>,
    changed: Vec<RawFd>,
    always_ready: Vec<RawFd>,
    /// What the system refuses to watch.
    unwatched: Periodic,
    /// Channels that were full, and do not say when there is room.
    rooms: Periodic,
    batch: Vec<Ready>,
    ready: VecDeque<(Ready, u8)>,
    timers: Timers,
    foreign: Foreign,
    start: Instant,
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
            start: Instant::now(),
            now: 0,
        })
    }

    /// Milliseconds since the loop was made, as of the last wait. Starts at 0, never goes back.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// True if streams are watched by edges.
    pub fn has_edges(&self) -> bool {
        self.backend.has_edges()
    }

    /// Microseconds since the loop was made, now.
    fn microseconds(&self) -> i64 {
        self.start.elapsed().as_micros() as i64
    }

    /// Reads the clock again, after something that took long.
    pub fn refresh_clock(&mut self) {
        self.now = self.start.elapsed().as_millis() as u64;
    }

    /// Watches a descriptor. Registering one again resets it. It must be [removed](Self::remove)
    /// before it is closed.
    pub fn register(&mut self, fd: &impl AsRawFd, token: Token, interest: Interest) {
        let fd = fd.as_raw_fd();
        let index = usize::try_from(fd).expect("descriptors are not negative");
        if index >= self.slots.len() {
            self.slots.resize(index + 1, VACANT);
        }
        // It may have been closed behind our back, and be another one now.
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

    /// As [`register`](Self::register), for a socket whose owner says when reading or writing
    /// has found nothing more ([`blocked`](Self::blocked), [`read_in_part`](Self::read_in_part)),
    /// and closes it right after its removal. So the system need be told of it only once, where
    /// it can tell of edges; changes of interest cost nothing then.
    pub fn register_stream(&mut self, fd: &impl AsRawFd, token: Token, interest: Interest) {
        self.register(fd, token, interest);
        if self.backend.has_edges() {
            self.slots[fd.as_raw_fd() as usize].flags |= EDGE;
        }
    }

    /// Reading or writing (or both) would have blocked: what was known of that is over. For
    /// streams.
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

    /// Reading found less than there was room for: whatever comes next is told, but for what is known
    /// to be left ([`reads_on`](Self::reads_on)). For streams.
    pub fn read_in_part(&mut self, fd: &impl AsRawFd) {
        if let Some(slot) = self.slots.get_mut(fd.as_raw_fd() as usize) {
            if slot.flags & (READ_ON | HUNG_UP) == 0 {
                slot.flags &= !READABLE;
            }
        }
    }

    /// True if a stream is to be read until nothing is found, though a read was short: an end has
    /// come already, or urgent data.
    pub fn reads_on(&self, fd: &impl AsRawFd) -> bool {
        self.slots.get(fd.as_raw_fd() as usize).is_some_and(|slot| slot.flags & READ_ON != 0)
    }

    /// Changes what a registered descriptor is watched for; takes effect with the next wait.
    #[inline]
    pub fn set_interest(&mut self, fd: &impl AsRawFd, interest: Interest) {
        let fd = fd.as_raw_fd();
        match self.slots.get(fd as usize) {
            // What is ready is looked at again after it was delivered.
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

    /// Stops watching a descriptor, at once. Events of it that wait to be taken are dropped.
    pub fn remove(&mut self, fd: &impl AsRawFd) {
        let fd = fd.as_raw_fd();
        let Some(slot) = self.slots.get_mut(fd as usize) else {
            return;
        };
        if slot.flags & REGISTERED == 0 {
            return;
        }
        // A stream is closed next, which ends everything.
        let installed = if slot.flags & EDGE == 0 { slot.installed } else { Interest::empty() };
        // The entry in the list of changes stays, and finds a slot that wants nothing.
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

    /// Tells the backend what has changed since the last wait.
    fn flush(&mut self) {
        let mut changed = std::mem::take(&mut self.changed);
        for fd in changed.drain(..) {
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
                    // Closed behind our back: the owner's next read or write says so.
                    let (readable, writable, hangup) = (true, true, true);
                    let ready = Ready { fd, readable, writable, hangup, ..Ready::default() };
                    self.ready.push_back((ready, slot.generation));
                }
                Err(_) => self.give_up_watching(fd),
            }
        }
        self.changed = changed;
    }

    /// Waits for events until the next timer is due, or at most `limit` milliseconds if given.
    /// Interrupted waits end early, without events and without an error.
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
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                // A process that was stopped looks at what has come meanwhile before its timers.
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
                    // Of a connection that was closed here, and lives on in another process?
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
                // What is left after this time is looked at before the next wait.
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

    /// True if what was found of a descriptor is still about the same one.
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

    /// The next timer that is due, if there is one; it is disarmed. When there is none, those of C
    /// modules have run.
    pub fn next_expired(&mut self) -> Option<(TimerId, Token)> {
        let expired = self.timers.pop_due(self.now);
        if expired.is_none() {
            self.foreign_run_due();
        }
        expired
    }

    /// Gives memory back after a peak; to be called when little is registered.
    pub fn shrink(&mut self) {
        let used = self.slots.iter().rposition(|slot| slot.flags != 0).map_or(0, |last| last + 1);
        if self.slots.capacity() > 4 * used.max(64) {
            self.slots.truncate(used);
            self.slots.shrink_to(2 * used);
            self.timers.shrink();
            // The generations of what is cut off are forgotten, so nothing may refer to them.
            // What is still ready is reported again by the next wait.
            self.ready.clear();
            self.ready.shrink_to(256);
        }
    }

    /// Makes the loop of a forked child independent of its parent's: a fresh poller that
    /// watches the same descriptors.
    pub fn renew_after_fork(&mut self) -> io::Result<()> {
        self.replace_backend(self.backend.mechanism())
    }

    /// Goes on with the mechanism of `choice`.
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

//! Descriptors and timers of C modules, in the same loop as all others.
//!
//! A module knows the loop as an opaque `struct io_context *`. It registers a descriptor with a
//! context pointer and four callbacks, and timers by a key. When one is ready, the loop calls the
//! callback while it looks for the next event ([`Loop::next_event`], [`Loop::next_expired`]).
//!
//! This is here and not in `ffi` because the loop makes the calls: a module's descriptor is a slot
//! of the same table, with the same rules, and its timer shortens the same wait. Nothing here reads
//! a C structure: a callback is a pointer that is called or handed back, and the loop's side of
//! `struct io_context` is [`Context`], which is opaque to C code.
//!
//! C code may call back into the loop while the loop's owner has lent it out: [`Loop::lend`] notes
//! the loop's address for the duration of a call into C, and [`Context::with`] finds it there. So
//! only one caller uses the loop at a time, though the compiler cannot check it.

use super::periodic::FOREVER;
use super::{Interest, Loop, Ready, Token};
use crate::os::{common_data, log};
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::ptr;

/// A C function, or null: `void (*)(void *, int)`.
pub type Callback = *mut c_void;

/// The condition that a callback is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Something can be read.
    Input,
    /// Something can be written.
    Output,
    /// The descriptor has failed.
    Error,
    /// The other end has hung up.
    Hangup,
}

/// What C code calls `struct io_context`: the loop's address while it is lent out.
pub struct Context {
    lent: Cell<*mut Loop>,
    /// C code owns the loop.
    given: Cell<bool>,
}

impl Context {
    /// The loop that belongs to `context`; `None` if that is null or the loop is not lent out.
    ///
    /// # Safety
    /// As for [`with`](Self::with), as long as the result is used.
    pub unsafe fn lent<'a>(context: *const Context) -> Option<&'a mut Loop> {
        // SAFETY: as the caller promises.
        unsafe { context.as_ref()?.lent.get().as_mut() }
    }

    /// Runs `action` on the loop that belongs to `context`; `None` if that is null or the loop is
    /// not lent out, when C code must not use it.
    ///
    /// # Safety
    /// `context` is null, or [`Loop::context`] of a loop that still exists, and no reference to
    /// that loop is in use except those that wait for a call into C to return.
    pub unsafe fn with<T>(
        context: *const Context,
        action: impl FnOnce(&mut Loop) -> T,
    ) -> Option<T> {
        // SAFETY: as the caller promises.
        unsafe { Context::lent(context) }.map(action)
    }
}

/// A descriptor of a module.
struct Slot {
    context: *mut c_void,
    callbacks: [Callback; 4],
    wanted: Interest,
    /// Replaces the input and output callbacks and the interest until an operation has finished.
    held: Option<(Callback, Interest)>,
}

impl Slot {
    /// The interest in effect.
    fn effective(&self) -> Interest {
        self.held.map_or(self.wanted, |(_, interest)| interest)
    }

    fn callback(&self, condition: Condition) -> Callback {
        match (condition, self.held) {
            (Condition::Input | Condition::Output, Some((callback, _))) => callback,
            _ => self.callbacks[condition as usize],
        }
    }
}

/// A call that a module has scheduled: `proc(key, -1)` after a wait in microseconds.
struct Later {
    procedure: Callback,
    wait: i64,
}

/// Where a new timer goes among those of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before the others: `io_sched_add`.
    First,
    /// After the others: `io_sched_app`.
    Last,
}

/// The timers of one key. Only the first one is armed.
struct Stack {
    events: VecDeque<Later>,
    /// When the first is due, in microseconds of the loop's clock.
    due: i64,
    /// The same as wall-clock time, for C code to read.
    time: Box<libc::timeval>,
}

/// The part of a loop that belongs to C modules.
pub(super) struct Foreign {
    context: Box<Context>,
    slots: HashMap<RawFd, Slot>,
    invalid: [Callback; 4],
    stacks: HashMap<usize, Stack>,
    /// (due, key)
    queue: BTreeSet<(i64, usize)>,
}

const MICROSECONDS: i64 = 1_000_000;

extern "C" fn invalid_input(_: *mut c_void, fd: c_int) {
    invalid("i", fd);
}
extern "C" fn invalid_output(_: *mut c_void, fd: c_int) {
    invalid("o", fd);
}
extern "C" fn invalid_error(_: *mut c_void, fd: c_int) {
    invalid("e", fd);
}
extern "C" fn invalid_hangup(_: *mut c_void, fd: c_int) {
    invalid("h", fd);
}

/// The module registered the descriptor, but no callback for this condition.
fn invalid(what: &str, fd: c_int) {
    log::message(&format!("io_invalid_{what} ({fd})"));
    std::process::abort();
}

impl Default for Foreign {
    fn default() -> Foreign {
        let functions: [extern "C" fn(*mut c_void, c_int); 4] =
            [invalid_input, invalid_output, invalid_error, invalid_hangup];
        Foreign {
            context: Box::new(Context {
                lent: Cell::new(ptr::null_mut()),
                given: Cell::new(false),
            }),
            slots: HashMap::new(),
            invalid: functions.map(|function| function as Callback),
            stacks: HashMap::new(),
            queue: BTreeSet::new(),
        }
    }
}

impl Foreign {
    /// A module closed the descriptor without unregistering it, and its number has a new owner.
    pub(super) fn forget(&mut self, fd: RawFd) {
        // Looking for it takes a hash, even in an empty map.
        if !self.slots.is_empty() {
            self.slots.remove(&fd);
        }
    }

    /// When the next timer is due, in microseconds of the loop's clock.
    fn next_due(&self) -> Option<i64> {
        self.queue.first().map(|&(due, _)| due)
    }

    fn arm_first(&mut self, key: usize, now: i64) {
        let Some(stack) = self.stacks.get_mut(&key) else {
            return;
        };
        self.queue.remove(&(stack.due, key));
        let Some(first) = stack.events.front() else {
            self.stacks.remove(&key);
            return;
        };
        stack.due = now.saturating_add(first.wait);
        let time = common_data::clock().saturating_add(first.wait);
        stack.time.tv_sec = (time / MICROSECONDS) as _;
        stack.time.tv_usec = (time % MICROSECONDS) as _;
        self.queue.insert((stack.due, key));
    }
}

impl Loop {
    /// The `struct io_context *` for C modules. Lives as long as the loop.
    pub fn context(&self) -> *mut c_void {
        ptr::from_ref(&*self.foreign.context).cast_mut().cast()
    }

    /// Calls into C code that may use the loop.
    pub fn lend<T>(&mut self, action: impl FnOnce() -> T) -> T {
        let context: *const Context = &*self.foreign.context;
        let this: *mut Loop = self;
        // SAFETY: the loop owns the context in a box, which keeps its address as long as the loop
        // exists, and the loop outlives this call. Nothing here uses `self` until C code has
        // returned.
        unsafe {
            let before = (*context).lent.replace(this);
            let result = action();
            (*context).lent.set(before);
            result
        }
    }

    /// Gives the loop to C code for good. Returns its address and its context.
    pub fn into_foreign(self) -> (*mut Loop, *mut c_void) {
        let this = Box::into_raw(Box::new(self));
        // SAFETY: the loop stays in its box until C code ends it, and nobody else uses it.
        unsafe {
            (*this).foreign.context.lent.set(this);
            (*this).foreign.context.given.set(true);
            (this, (*this).context())
        }
    }

    /// Frees a loop of [`into_foreign`](Self::into_foreign). Returns the contexts that were
    /// registered. Leaves a loop alone that is only lent.
    ///
    /// # Safety
    /// `context` is null or that of a loop, and not used afterwards.
    pub unsafe fn end_foreign(context: *const Context) -> Vec<*mut c_void> {
        // SAFETY: as the caller promises; the loop is in the box that `into_foreign` made.
        unsafe {
            let Some(context) = context.as_ref().filter(|context| context.given.get()) else {
                return Vec::new();
            };
            let this = Box::from_raw(context.lent.get());
            this.foreign.slots.values().map(|slot| slot.context).collect()
        }
    }

    fn call(&mut self, procedure: Callback, argument: *mut c_void, fd: c_int) {
        if procedure.is_null() {
            return;
        }
        common_data::refresh_clock();
        self.lend(|| {
            // SAFETY: C code registers only functions of this type as callbacks.
            let procedure = unsafe {
                std::mem::transmute::<Callback, unsafe extern "C" fn(*mut c_void, c_int)>(procedure)
            };
            // C code that gets 0 from read(2) may look for a reason in errno; it must not find one
            // that our own calls left there.
            crate::os::process::set_errno(0);
            // SAFETY: the module has registered the function to be called like this.
            unsafe { procedure(argument, fd) };
        });
    }

    /// Calls at most one callback of a module's descriptor that is ready.
    pub(super) fn call_foreign(&mut self, ready: Ready) {
        let fd = ready.fd;
        let Some(slot) = self.foreign.slots.get(&fd) else {
            return;
        };
        let (mut readable, mut writable) = (ready.readable, ready.writable);
        let (mut error, mut hangup) = (false, false);
        if ready.hangup {
            // Not every mechanism says whether it was an error or a hang-up, so ask.
            let state = crate::os::descriptor::poll_state(fd);
            (readable, writable) = (state.readable, state.writable);
            (error, hangup) = (state.error, state.hangup);
        }
        let condition = if readable && slot.effective().contains(Interest::READ) {
            Condition::Input
        } else if writable && slot.effective().contains(Interest::WRITE) && !hangup {
            Condition::Output
        } else if error {
            Condition::Error
        } else if hangup {
            Condition::Hangup
        } else {
            // It has been dealt with meanwhile, or there is no interest in it.
            return;
        };
        let (procedure, context) = (slot.callback(condition), slot.context);
        self.call(procedure, context, fd);
    }

    /// `io_register`
    pub fn foreign_register(&mut self, fd: RawFd, context: *mut c_void) {
        if fd < 0 {
            return;
        }
        let callbacks = self.foreign.invalid;
        let slot = Slot { context, callbacks, wanted: Interest::empty(), held: None };
        self.foreign.slots.insert(fd, slot);
        self.register(&fd, Token::foreign(), Interest::empty());
    }

    /// `io_unregister`: returns the context that was registered.
    pub fn foreign_unregister(&mut self, fd: RawFd) -> *mut c_void {
        match self.foreign.slots.remove(&fd) {
            Some(slot) => {
                self.remove(&fd);
                slot.context
            }
            None => ptr::null_mut(),
        }
    }

    /// `io_set_i`, `io_set_o`: adds to the interest in a descriptor.
    pub fn foreign_want(&mut self, fd: RawFd, interest: Interest) {
        if let Some(slot) = self.foreign.slots.get(&fd) {
            self.foreign_set_wanted(fd, slot.wanted | interest);
        }
    }

    /// `io_clr_i`, `io_clr_o`: takes from the interest in a descriptor.
    pub fn foreign_leave(&mut self, fd: RawFd, interest: Interest) {
        if let Some(slot) = self.foreign.slots.get(&fd) {
            self.foreign_set_wanted(fd, slot.wanted - interest);
        }
    }

    /// Sets the interest that the owner of a descriptor has.
    pub(super) fn foreign_set_wanted(&mut self, fd: RawFd, wanted: Interest) {
        let Some(slot) = self.foreign.slots.get_mut(&fd) else {
            return;
        };
        slot.wanted = wanted;
        // Once it has had any interest, keep watching it for hang-ups.
        let wanted = slot.effective() | Interest::HANGUP;
        self.set_interest(&fd, wanted);
    }

    /// Holds the descriptor for an operation that needs `interest`, whatever interest its owner has
    /// set. Until it is released, only that is watched, and `callback` is called for it. Interest
    /// that the owner sets meanwhile applies afterwards.
    fn foreign_hold(&mut self, fd: RawFd, callback: Callback, interest: Interest) {
        if let Some(slot) = self.foreign.slots.get_mut(&fd) {
            slot.held = Some((callback, interest));
            self.set_interest(&fd, interest | Interest::HANGUP);
        }
    }

    /// The interest that an operation holds the descriptor for
    /// ([`foreign_hold`](Self::foreign_hold)).
    fn foreign_held(&self, fd: RawFd) -> Option<Interest> {
        self.foreign.slots.get(&fd)?.held.map(|(_, interest)| interest)
    }

    /// Restores the owner's interest when the operation has finished.
    fn foreign_release(&mut self, fd: RawFd) {
        if let Some(slot) = self.foreign.slots.get_mut(&fd).filter(|slot| slot.held.is_some()) {
            slot.held = None;
            let wanted = slot.wanted | Interest::HANGUP;
            self.set_interest(&fd, wanted);
        }
    }

    /// Updates the hold on a descriptor after a step of an operation (a TLS read, say). `needed` is
    /// the interest that the operation waits for, empty if it has finished; `own` is the interest
    /// with which its caller will repeat it anyway. If that does not cover `needed`, the descriptor
    /// is held for it.
    pub fn foreign_settle(
        &mut self,
        fd: RawFd,
        callback: Callback,
        needed: Interest,
        own: Interest,
    ) {
        if !own.contains(needed) && !callback.is_null() {
            self.foreign_hold(fd, callback, needed);
        } else if needed.is_empty() || self.foreign_held(fd) != Some(needed) {
            // If it is held for the same interest, that is another operation, which still waits.
            self.foreign_release(fd);
        }
    }

    /// `io_want_read`, `io_want_write`
    pub fn foreign_wants(&self, fd: RawFd, interest: Interest) -> bool {
        self.foreign.slots.get(&fd).is_some_and(|slot| slot.wanted.contains(interest))
    }

    /// `io_set_cb_*`
    pub fn foreign_set_callback(&mut self, fd: RawFd, condition: Condition, function: Callback) {
        if let Some(slot) = self.foreign.slots.get_mut(&fd) {
            slot.callbacks[condition as usize] = function;
        }
    }

    /// `io_clr_cb_*`
    pub fn foreign_clear_callback(&mut self, fd: RawFd, condition: Condition) {
        self.foreign_set_callback(fd, condition, self.foreign.invalid[condition as usize]);
        match condition {
            Condition::Input => self.foreign_leave(fd, Interest::READ),
            Condition::Output => self.foreign_leave(fd, Interest::WRITE),
            _ => {}
        }
    }

    /// `io_get_cb_*`
    pub fn foreign_callback(&self, fd: RawFd, condition: Condition) -> Callback {
        let slot = self.foreign.slots.get(&fd);
        slot.map_or(ptr::null_mut(), |slot| slot.callback(condition))
    }

    /// `io_is_invalid_*`
    pub fn foreign_is_invalid(&self, fd: RawFd, condition: Condition) -> bool {
        let callback = self.foreign.slots.get(&fd).map(|slot| slot.callbacks[condition as usize]);
        callback == Some(self.foreign.invalid[condition as usize])
    }

    /// `io_set_cb_inv_*`: for descriptors registered from now on.
    pub fn foreign_set_invalid(&mut self, condition: Condition, function: Callback) {
        self.foreign.invalid[condition as usize] = function;
    }

    /// `io_get_ctx`
    pub fn foreign_context(&self, fd: RawFd) -> *mut c_void {
        self.foreign.slots.get(&fd).map_or(ptr::null_mut(), |slot| slot.context)
    }

    /// `io_clone`: gives `to` the context, callbacks, hold and interest of `from`.
    pub fn foreign_clone(&mut self, to: RawFd, from: RawFd) {
        let Some(slot) = self.foreign.slots.get(&from) else {
            return;
        };
        let (context, callbacks, held) = (slot.context, slot.callbacks, slot.held);
        let wanted = slot.wanted;
        if let Some(slot) = self.foreign.slots.get_mut(&to) {
            (slot.context, slot.callbacks, slot.held) = (context, callbacks, held);
            self.foreign_set_wanted(to, wanted);
        }
    }

    /// `io_sched_add`, `io_sched_app`: `procedure(key, -1)` in `wait` microseconds.
    pub fn foreign_schedule(
        &mut self,
        key: *mut c_void,
        procedure: Callback,
        wait: i64,
        order: Order,
    ) {
        common_data::refresh_clock();
        let now = self.microseconds();
        let name = key.expose_provenance();
        let stack = self.foreign.stacks.entry(name).or_insert_with(|| Stack {
            events: VecDeque::new(),
            due: i64::MAX,
            time: Box::new(libc::timeval { tv_sec: 0, tv_usec: 0 }),
        });
        let event = Later { procedure, wait };
        if order == Order::Last && !stack.events.is_empty() {
            stack.events.push_back(event);
        } else {
            stack.events.push_front(event);
            self.foreign.arm_first(name, now);
        }
    }

    /// `io_sched_pop`: removes the first event of a key and arms the next, whose procedure it
    /// returns.
    pub fn foreign_pop(&mut self, key: *mut c_void) -> Callback {
        let now = self.microseconds();
        if let Some(stack) = self.foreign.stacks.get_mut(&(key as usize)) {
            stack.events.pop_front();
            self.foreign.arm_first(key as usize, now);
        }
        self.foreign_peek(key)
    }

    /// `io_sched_drop`: removes all events of a key.
    pub fn foreign_drop(&mut self, key: *mut c_void) {
        if let Some(stack) = self.foreign.stacks.remove(&(key as usize)) {
            self.foreign.queue.remove(&(stack.due, key as usize));
        }
    }

    /// `io_sched_del`: removes the first event of a key if it has this procedure, otherwise all
    /// later ones that do. True if any was removed.
    pub fn foreign_delete(&mut self, key: *mut c_void, procedure: Callback) -> bool {
        if self.foreign_peek(key) == procedure && !procedure.is_null() {
            self.foreign_pop(key);
            return true;
        }
        let Some(stack) = self.foreign.stacks.get_mut(&(key as usize)) else {
            return false;
        };
        let before = stack.events.len();
        stack.events.retain(|event| event.procedure != procedure);
        stack.events.len() < before
    }

    /// `io_sched_renew_proc`: arms the first event of a key again, if it has this procedure or
    /// `procedure` is null. True if it was armed.
    pub fn foreign_renew(&mut self, key: *mut c_void, procedure: Callback) -> bool {
        let first = self.foreign_peek(key);
        if first.is_null() || !(procedure.is_null() || procedure == first) {
            return false;
        }
        let now = self.microseconds();
        self.foreign.arm_first(key as usize, now);
        true
    }

    /// `io_sched_peek`: the procedure of the first event of a key.
    pub fn foreign_peek(&self, key: *mut c_void) -> Callback {
        let stack = self.foreign.stacks.get(&(key as usize));
        stack
            .and_then(|stack| stack.events.front())
            .map_or(ptr::null_mut(), |event| event.procedure)
    }

    /// `io_sched_peek_time`: when the first event of a key is due. The pointer is valid as long as
    /// the key has events.
    pub fn foreign_peek_time(&self, key: *mut c_void) -> *const libc::timeval {
        self.foreign.stacks.get(&(key as usize)).map_or(ptr::null(), |stack| &raw const *stack.time)
    }

    /// `io_sched_exec`: runs the events that are due, one for each key, and returns the
    /// milliseconds until the next is due. An event that its procedure neither renews nor removes
    /// stays due.
    pub fn foreign_run_due(&mut self) -> Option<u64> {
        // A process without modules does not even read the clock.
        self.foreign.next_due()?;
        let now = self.microseconds();
        let due: Vec<(i64, usize)> =
            self.foreign.queue.iter().take_while(|&&(due, _)| due <= now).copied().collect();
        for entry in due {
            // An earlier procedure may have removed or renewed it.
            if self.foreign.queue.contains(&entry) {
                let key = ptr::with_exposed_provenance_mut(entry.1);
                self.call(self.foreign_peek(key), key, -1);
            }
        }
        self.foreign_timeout()
    }

    /// Milliseconds until the next timer of a module is due, rounded up.
    pub(super) fn foreign_timeout(&self) -> Option<u64> {
        let due = self.foreign.next_due()?;
        let wait = due.saturating_sub(self.microseconds()).max(0) as u64;
        Some(wait.div_ceil(1000))
    }

    /// `io_poll`: waits for descriptors of modules, calls their callbacks, and returns how many
    /// were ready. Other events stay queued for the loop's owner.
    pub fn foreign_poll(&mut self, timeout: Option<u64>) -> usize {
        if let Err(error) = self.wait_for(timeout.unwrap_or(FOREVER)) {
            log::braked(log::Kind::Events, || format!("event loop: {}", crate::os::reason(&error)));
            return 0;
        }
        common_data::refresh_clock();
        let is_ready = |(ready, generation): &(Ready, u8)| {
            self.is_foreign(ready.fd) && self.is_current(ready.fd, *generation)
        };
        let count = self.ready.iter().filter(|entry| is_ready(entry)).count();
        for _ in 0..self.ready.len() {
            let Some((ready, generation)) = self.ready.pop_front() else {
                break;
            };
            if !self.is_foreign(ready.fd) {
                self.ready.push_back((ready, generation));
            } else if self.is_current(ready.fd, generation) {
                self.call_foreign(ready);
            }
        }
        count
    }
}

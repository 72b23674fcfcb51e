//! Reverse DNS for C code: the queries run in its loop, the answers come by callback.
//!
//! An answer is queued, and delivered when no function of the resolver library is on the stack, so
//! that the callback may ask, cancel, and end the resolver. It is never delivered before
//! [`Resolver::ask`] has returned.

use super::{Callback, Condition, Context, Interest, Order};
use crate::os::dns::{Channel, Name};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::ptr;
use std::rc::Rc;

/// `void (*)(void *context, char *name, int lifetime)`
pub type Told = unsafe extern "C" fn(*mut c_void, *mut c_char, c_int);

/// The callback that gets the answer to a question.
#[derive(Clone, Copy)]
struct Asker {
    told: Option<Told>,
    context: *mut c_void,
}

/// What C code calls `struct io_dns_ctx`.
pub struct Resolver {
    /// `None` once the resolver has ended.
    channel: RefCell<Option<Channel>>,
    shared: Rc<Shared>,
}

/// What the channel's callbacks share with the resolver.
struct Shared {
    io: *const Context,
    /// The resolver as a pointer, which the loop passes back to callbacks.
    handle: Cell<*mut c_void>,
    watched: RefCell<BTreeSet<RawFd>>,
    askers: RefCell<BTreeMap<u64, Asker>>,
    answers: RefCell<VecDeque<(u64, Option<Name>)>>,
    next: Cell<u64>,
}

impl Shared {
    /// Watches a descriptor of the channel for what it asks; stops if that is nothing.
    fn watch(&self, fd: RawFd, read: bool, write: bool) {
        let functions: [(Condition, unsafe extern "C" fn(*mut c_void, c_int)); 4] = [
            (Condition::Input, readable),
            (Condition::Output, writable),
            (Condition::Error, failed),
            (Condition::Hangup, failed),
        ];
        let (handle, mut watched) = (self.handle.get(), self.watched.borrow_mut());
        // SAFETY: the loop outlives the resolver, as the caller of `Resolver::new` promised, and
        // nobody uses the loop while the channel calls this.
        unsafe {
            Context::with(self.io, |events| {
                if !read && !write {
                    if watched.remove(&fd) {
                        events.foreign_unregister(fd);
                    }
                    return;
                }
                if watched.insert(fd) {
                    events.foreign_register(fd, handle);
                    for (condition, function) in functions {
                        events.foreign_set_callback(fd, condition, function as Callback);
                    }
                }
                let wanted = [(read, Interest::READ), (write, Interest::WRITE)];
                let wanted = wanted.into_iter().filter(|(on, _)| *on);
                events.foreign_set_wanted(fd, wanted.map(|(_, interest)| interest).collect());
            });
        }
    }
}

/// The resolver behind the handle that the loop passes, held for the duration of a call.
///
/// # Safety
/// `handle` was registered in the loop by a resolver that has not ended.
unsafe fn borrow(handle: *mut c_void) -> Rc<Resolver> {
    let resolver = handle.cast_const().cast::<Resolver>();
    // SAFETY: the handle comes from `Rc::into_raw`, and holds a count until the resolver ends.
    unsafe {
        Rc::increment_strong_count(resolver);
        Rc::from_raw(resolver)
    }
}

unsafe extern "C" fn readable(handle: *mut c_void, fd: c_int) {
    // SAFETY: the loop passes the handle that was registered; ending the resolver unregisters it.
    unsafe { borrow(handle) }.process(Some(fd), None);
}

unsafe extern "C" fn writable(handle: *mut c_void, fd: c_int) {
    // SAFETY: as above.
    unsafe { borrow(handle) }.process(None, Some(fd));
}

unsafe extern "C" fn failed(handle: *mut c_void, fd: c_int) {
    // SAFETY: as above.
    unsafe { borrow(handle) }.process(Some(fd), Some(fd));
}

unsafe extern "C" fn due(handle: *mut c_void, _: c_int) {
    // SAFETY: as above.
    unsafe { borrow(handle) }.process(None, None);
}

impl Resolver {
    /// Makes a resolver in the loop of `io`, for C code to hold; `None` if the channel cannot be
    /// made.
    ///
    /// # Safety
    /// The loop lives longer than the resolver, and both are used by one thread.
    pub unsafe fn new(io: *const Context) -> Option<*const Resolver> {
        let shared = Rc::new(Shared {
            io,
            handle: Cell::new(ptr::null_mut()),
            watched: RefCell::default(),
            askers: RefCell::default(),
            answers: RefCell::default(),
            next: Cell::new(0),
        });
        let watcher = Rc::clone(&shared);
        let watch = move |fd, read, write| watcher.watch(fd, read, write);
        let channel = RefCell::new(Some(Channel::new(Box::new(watch))?));
        let resolver = Rc::into_raw(Rc::new(Resolver { channel, shared: Rc::clone(&shared) }));
        shared.handle.set(resolver.cast_mut().cast());
        Some(resolver)
    }

    /// Ends a resolver. No callback is called any more.
    ///
    /// # Safety
    /// `resolver` comes from [`new`](Self::new), has not ended, and is not used afterwards.
    pub unsafe fn end(resolver: *const Resolver) {
        // SAFETY: as the caller promises.
        let resolver = unsafe { Rc::from_raw(resolver) };
        let shared = &resolver.shared;
        shared.askers.borrow_mut().clear();
        // The channel reports the descriptors that it closes; those that it misses are unregistered
        // below.
        resolver.channel.take();
        shared.answers.borrow_mut().clear();
        let watched = shared.watched.take();
        // SAFETY: the loop exists, as the caller of `new` promised.
        unsafe {
            Context::with(shared.io, |events| {
                events.foreign_drop(shared.handle.get());
                for fd in watched {
                    events.foreign_unregister(fd);
                }
            });
        }
    }

    /// Asks for the name of an address; without an address, the answer is "no name". `told` gets
    /// `context`, the name or null, and the seconds for which the name is valid or -1.
    pub fn ask(&self, address: Option<IpAddr>, told: Option<Told>, context: *mut c_void) {
        let id = self.shared.next.get();
        self.shared.next.set(id + 1);
        self.shared.askers.borrow_mut().insert(id, Asker { told, context });
        let shared = Rc::clone(&self.shared);
        let answer = move |name| shared.answers.borrow_mut().push_back((id, name));
        match (address, &*self.channel.borrow()) {
            (Some(address), Some(channel)) => channel.ask(address, answer),
            _ => answer(None),
        }
        self.schedule();
    }

    /// Forgets all questions with this context.
    pub fn cancel(&self, context: *mut c_void) {
        self.shared.askers.borrow_mut().retain(|_, asker| asker.context != context);
    }

    /// Sets other name servers; see [`Channel::set_servers`].
    pub fn set_servers(&self, servers: &CStr) -> i32 {
        const ARES_ENODATA: i32 = 1;
        let channel = self.channel.borrow();
        channel.as_ref().map_or(ARES_ENODATA, |channel| channel.set_servers(servers))
    }

    /// Sends queries through a VRF, from the next socket on.
    pub fn set_vrf(&self, name: Option<String>) {
        if let Some(channel) = &*self.channel.borrow() {
            channel.set_vrf(name);
        }
    }

    /// Lets the channel work on ready descriptors, then delivers the answers.
    fn process(&self, readable: Option<RawFd>, writable: Option<RawFd>) {
        if let Some(channel) = &*self.channel.borrow() {
            channel.process(readable, writable);
        }
        // Take the answers that are there now: a callback may ask again, which may add an answer at
        // once.
        let answers = self.shared.answers.take();
        for (id, name) in answers {
            let asker = self.shared.askers.borrow_mut().remove(&id);
            if let Some(Asker { told: Some(told), context }) = asker {
                let lifetime = name.as_ref().map(|name| name.lifetime);
                let lifetime = lifetime.map_or(-1, |s| c_int::try_from(s).unwrap_or(c_int::MAX));
                let name = name.and_then(|name| CString::new(name.text).ok());
                let text = name.as_ref().map_or(ptr::null(), |name| name.as_ptr());
                // SAFETY: C code has supplied the function to be called like this; the text
                // outlives the call.
                unsafe { told(context, text.cast_mut(), lifetime) };
            }
        }
        self.schedule();
    }

    /// Sets the timer to the channel's next timeout, or to now if there are answers to deliver.
    fn schedule(&self) {
        let channel = self.channel.borrow();
        let Some(channel) = &*channel else {
            return;
        };
        let wait = match self.shared.answers.borrow().is_empty() {
            true => channel.timeout().map(|wait| wait.as_micros() as i64),
            false => Some(0),
        };
        let handle = self.shared.handle.get();
        let due: unsafe extern "C" fn(*mut c_void, c_int) = due;
        // SAFETY: as in `Shared::watch`.
        unsafe {
            Context::with(self.shared.io, |events| {
                events.foreign_drop(handle);
                if let Some(wait) = wait {
                    events.foreign_schedule(handle, due as Callback, wait, Order::First);
                }
            });
        }
    }
}

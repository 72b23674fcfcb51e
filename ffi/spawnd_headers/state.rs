//! The state of a C program's broker, for `broker::hosted` ([`Host`]). It lives where C code keeps
//! it: in `spawnd_data` and `common_data`, in their arrays of listeners and workers, and in the
//! program's loop.
//!
//! Both arrays hold pointers to contexts. A context keeps its address until it is removed.

use super::{received, spawnd_accepted, spawnd_bind_listener, spawnd_cleanup_internal};
use crate::broker::hosted::{self, Given, Host, Listening};
use crate::broker::policy::{Limits, WorkerId};
use crate::broker::sticky::{Cache, Key};
use crate::broker::worker_process::{self, Started};
use crate::broker::Connection;
use crate::channel::broker_side::BrokerSide;
use crate::channel::protocol::{FromBroker, FromWorker, ACCEPT, UDP_HEADER, UDP_LIMIT};
use crate::channel::Peer;
use crate::config::acl::Acl;
use crate::config::broker::Overload;
use crate::event::{Callback, Condition, Context, Interest, Order};
use crate::ffi::layout::common_data;
use crate::ffi::layout::spawnd_data::{self, bit, SpawndContext};
use crate::ffi::layout::spawnd_settings as settings;
use crate::ffi::scm;
use crate::ffi::set_proctitle::{self, ACCEPTING, FULL};
use crate::os::address::ScopedIp;
use crate::os::signals::{Signal, Signals};
use crate::os::{self, descriptor, log, process, Listener};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::ptr;

thread_local! {
    /// The access list, from `permit` and `deny`.
    static ACL: RefCell<Acl> = RefCell::default();
    /// The signals that were caught.
    static SIGNALS: RefCell<Option<Signals>> = const { RefCell::new(None) };
    /// The stickiness caches: one for each listener that has its own, and the broker's at null.
    static STICKY: RefCell<HashMap<*mut SpawndContext, Cache>> = RefCell::default();
    /// The broker's side of each worker's channel, by process id.
    static SIDES: RefCell<HashMap<WorkerId, BrokerSide>> = RefCell::default();
}

/// A callback of the loop, for a context.
type Handler = unsafe extern "C" fn(*mut SpawndContext, c_int);

fn io() -> *const Context {
    common_data::io().cast_const().cast()
}

pub(super) fn set_acl(acl: Acl) {
    ACL.set(acl);
}

/// True if the access list permits the address.
pub(super) fn permits(address: ScopedIp) -> bool {
    ACL.with_borrow(|acl| acl.permits(address))
}

/// The id of a worker, which does not depend on its index in the array: its process id.
///
/// # Safety
/// It is the context of a worker.
unsafe fn id(server: *mut SpawndContext) -> WorkerId {
    // SAFETY: as the caller promises.
    WorkerId(unsafe { (*server).pid } as u32)
}

/// Finds the context of a worker.
fn server(worker: WorkerId) -> Option<*mut SpawndContext> {
    // SAFETY: the array has contexts of workers.
    spawnd_data::servers().into_iter().find(|&server| unsafe { id(server) } == worker)
}

/// The broker's state as seen by the listener that a connection came to.
pub(super) struct State {
    /// The listener; null if the event concerns no listener.
    listener: *mut SpawndContext,
}

impl State {
    fn nowhere() -> State {
        State { listener: ptr::null_mut() }
    }

    /// Acts upon the signals caught since the last call.
    pub(super) fn process_signals() {
        let arrived = SIGNALS.with_borrow(|signals| signals.as_ref().map(Signals::take));
        if let Some(arrived) = arrived {
            // SAFETY: the variable lives as long as the process; the field is copied.
            let inherited = unsafe { (*spawnd_data::address()).inetd } != 0;
            hosted::signal(&mut State::nowhere(), &arrived, inherited);
        }
    }

    /// Uses the listener's stickiness cache: its own, or else the broker's. `None` if neither is
    /// configured.
    fn sticky<T>(&self, action: impl FnOnce(&mut Cache, u64) -> T) -> Option<T> {
        // SAFETY: the listener is a context, and the variable lives as long as the process.
        let (place, track) = unsafe {
            match self.listener.as_ref().map(|listener| listener.track_data) {
                Some(track) if track.tracking_period > 0 => (self.listener, track),
                _ => (ptr::null_mut(), (*spawnd_data::address()).track_data),
            }
        };
        let period = u64::try_from(track.tracking_period).ok().filter(|&period| period > 0)?;
        let size = usize::try_from(track.tracking_size).unwrap_or(0);
        let now = u64::try_from(common_data::clock() / 1000).unwrap_or(0);
        STICKY.with_borrow_mut(|caches| {
            let cache = caches.entry(place).or_insert_with(|| Cache::new(period * 1000, size));
            Some(action(cache, now))
        })
    }
}

impl Host for State {
    fn limits(&self) -> Limits {
        settings::limits()
    }

    fn users(&self) -> usize {
        usize::try_from(common_data::users_cur()).unwrap_or(0)
    }

    fn is_full(&self) -> bool {
        let limit = common_data::users_max_total();
        limit > 0 && common_data::users_cur() >= limit
    }

    fn permits(&self, client: ScopedIp) -> bool {
        permits(client)
    }

    fn workers(&self) -> Vec<(WorkerId, usize)> {
        let servers = spawnd_data::servers().into_iter();
        // SAFETY: the array has contexts of workers.
        unsafe {
            let staying = servers.filter(|&server| (*server).bits & bit::DYING == 0);
            staying
                .map(|server| (id(server), usize::try_from((*server).r#use).unwrap_or(0)))
                .collect()
        }
    }

    fn start_worker(&mut self) {
        add_worker();
    }

    fn last(&mut self, client: &Key) -> Option<WorkerId> {
        self.sticky(|cache, now| cache.get(client, now)).flatten()
    }

    fn remember(&mut self, client: Key, worker: WorkerId) {
        self.sticky(|cache, now| cache.put(client, worker, now));
    }

    fn give_here(&mut self, connection: Connection) -> Option<Connection> {
        if common_data::single_process() == 0 {
            return Some(connection);
        }
        // SAFETY: the message is valid; its receiver owns the descriptor.
        unsafe { send(-1, &connection.message(), connection.socket.into_raw_fd()) };
        None
    }

    fn give(&mut self, worker: WorkerId, connection: &Connection) -> Given {
        let Some(server) = server(worker) else {
            return Given::Gone;
        };
        // SAFETY: the context is that of a worker, and the message is valid.
        unsafe {
            let channel = (*server).r#fn;
            if send(channel, &connection.message(), connection.socket.as_raw_fd()) == 0 {
                (*server).r#use += 1;
                common_data::set_users_cur(common_data::users_cur() + 1);
                return Given::Taken;
            }
            let state = descriptor::poll_state(channel);
            if state.error || state.hangup || state.writable {
                Given::Gone
            } else {
                Given::Busy
            }
        }
    }

    fn ended(&mut self, worker: WorkerId, count: usize) {
        let count = c_int::try_from(count).unwrap_or(c_int::MAX);
        if let Some(server) = server(worker) {
            // SAFETY: the context is that of a worker.
            unsafe { (*server).r#use -= count };
            common_data::set_users_cur(common_data::users_cur() - count);
        }
    }

    fn cap(&mut self, most: usize) -> bool {
        let most = c_int::try_from(most).unwrap_or(c_int::MAX);
        let lower = common_data::users_max() > most;
        if lower {
            common_data::set_users_max(most);
        }
        lower
    }

    fn kill_worker(&mut self, worker: WorkerId) {
        // C code may have stored anything in `pid`, and zero or less would signal process groups.
        let pid = worker.0 as process::Pid;
        if server(worker).is_some() && pid > 0 {
            process::kill(pid);
        }
        self.drop_worker(worker);
    }

    fn drop_worker(&mut self, worker: WorkerId) {
        if let Some(server) = server(worker) {
            // SAFETY: the context is that of a worker, and not used afterwards.
            unsafe { remove(server) };
        }
    }

    fn dismiss(&mut self) {
        for server in spawnd_data::servers() {
            // SAFETY: the array has contexts of workers.
            unsafe { send((*server).r#fn, &FromBroker::may_die(), -1) };
        }
    }

    fn restart(&mut self) -> String {
        let own = process::executable().unwrap_or_default();
        let program = common_data::program_path().map_or(own, PathBuf::from);
        let environment: Vec<_> = std::env::vars_os().collect();
        let error = process::execute(&program, &common_data::arguments(), &environment, &[]);
        format!("{}: {}", program.display(), os::reason(&error))
    }

    fn overload(&self) -> Overload {
        settings::overload()
    }

    fn doing(&self) -> String {
        spawnd_data::overload_hint()
    }

    fn is_stopped(&self) -> bool {
        // SAFETY: the variable lives as long as the process; the field is copied.
        unsafe { (*spawnd_data::address()).listeners_inactive != 0 }
    }

    fn listen(&mut self, how: Listening) {
        let stopped = how != Listening::Open;
        // SAFETY: the variable lives as long as the process, and its array has contexts.
        unsafe {
            (*spawnd_data::address()).listeners_inactive = -c_int::from(stopped);
            for listener in spawnd_data::listeners() {
                let fd = (*listener).r#fn;
                match how {
                    Listening::Closed => {
                        close(listener);
                        continue;
                    }
                    Listening::Open if fd < 0 => {
                        bind(listener);
                        continue;
                    }
                    Listening::Open => set_backlog(listener, (*listener).listen_backlog),
                    _ => set_backlog(listener, (*listener).overload_backlog),
                }
                if how != Listening::Refusing {
                    Context::with(io(), |events| match how {
                        Listening::Open => events.foreign_want(fd, Interest::READ),
                        _ => events.foreign_leave(fd, Interest::READ),
                    });
                }
            }
        }
    }

    fn show_accepting(&mut self) {
        set_proctitle::show(ACCEPTING);
    }

    fn show_full(&mut self) {
        set_proctitle::show(FULL);
    }
}

/// Calls listen(2) again, if the backlog during overload differs from the normal one.
///
/// # Safety
/// It is the context of a listener with a socket.
unsafe fn set_backlog(listener: *mut SpawndContext, backlog: c_int) {
    // SAFETY: as the caller promises.
    unsafe {
        let differs = (*listener).listen_backlog != (*listener).overload_backlog;
        if differs && (*listener).socktype != libc::SOCK_DGRAM {
            libc::listen((*listener).r#fn, backlog);
        }
    }
}

/// Watches a descriptor for input in the loop of C code.
///
/// # Safety
/// The context is valid; the loop of C code is null or exists.
unsafe fn watch(context: *mut SpawndContext, input: Handler) {
    // SAFETY: as the caller promises.
    unsafe {
        let fd = (*context).r#fn;
        (*context).io = common_data::io();
        Context::with(io(), |events| {
            events.foreign_register(fd, context.cast());
            events.foreign_set_callback(fd, Condition::Input, input as Callback);
            let end: Handler = spawnd_cleanup_internal;
            for condition in [Condition::Error, Condition::Hangup] {
                events.foreign_set_callback(fd, condition, end as Callback);
            }
            events.foreign_want(fd, Interest::READ);
        });
    }
}

/// Sends a message with the function that the program has set in `common_data`; without a socket,
/// to the worker in this process. 0 if it was sent.
///
/// # Safety
/// The message is valid, and the field of `common_data` null or a function of this type.
unsafe fn send(socket: c_int, message: &[u8], fd: c_int) -> c_int {
    let mut aligned = [0u64; (UDP_HEADER + UDP_LIMIT) / 8];
    // SAFETY: as the caller promises; the message is copied to aligned memory, as far as there is
    // room.
    unsafe {
        let length = message.len().min(size_of_val(&aligned));
        let start = aligned.as_mut_ptr();
        start.cast::<u8>().copy_from_nonoverlapping(message.as_ptr(), length);
        let function = common_data::scm_send();
        let send = match (socket < 0, function.is_null()) {
            (true, _) => scm::fakescm_send_msg,
            (false, true) => scm::scm_send_msg,
            (false, false) => std::mem::transmute::<*const c_void, scm::Send>(function),
        };
        send(socket, start.cast(), fd)
    }
}

/// Receives a message from a worker.
///
/// # Safety
/// It is the context of a worker.
pub(super) unsafe fn receive(server: *mut SpawndContext, fd: c_int) {
    let mut buffer = [0u64; ACCEPT / 8];
    let size = size_of_val(&buffer);
    let start: *mut u8 = buffer.as_mut_ptr().cast();
    // SAFETY: the buffer has as much room as `size` says; the field is null or a function of this
    // type.
    let (failed, message) = unsafe {
        let function = common_data::scm_receive();
        let receive = match function.is_null() {
            true => scm::scm_recv_msg,
            false => std::mem::transmute::<*const c_void, scm::Receive>(function),
        };
        let failed = receive(fd, start, size, ptr::null_mut()) != 0;
        (failed, std::slice::from_raw_parts(start.cast_const(), size))
    };
    if failed {
        // SAFETY: as the caller promises.
        return unsafe { remove(server) };
    }
    // SAFETY: as the caller promises.
    let (worker, has) = unsafe { (id(server), usize::try_from((*server).r#use).unwrap_or(0)) };
    let now = u64::try_from(common_data::clock() / 1000).unwrap_or(0);
    // The message may remove the worker, and with it this side of its channel.
    let mut side = SIDES
        .with_borrow_mut(|sides| sides.remove(&worker))
        .unwrap_or_else(|| BrokerSide::new(Peer::Foreign));
    let state = &mut State::nowhere();
    hosted::hear(state, worker, &mut side, FromWorker::decode(message), (has, now));
    if self::server(worker).is_some() {
        SIDES.with_borrow_mut(|sides| sides.insert(worker, side));
    }
}

/// Accepts a connection or receives a datagram on a listener, and gives it to a worker.
///
/// # Safety
/// It is the context of a listener, and the descriptor its own, or negative.
pub(super) unsafe fn accept(context: *mut SpawndContext, fd: c_int) {
    if fd < 0 {
        return;
    }
    // SAFETY: as the caller promises; the descriptor stays the context's.
    let (listener, purpose) = unsafe {
        (ManuallyDrop::new(Listener::from(OwnedFd::from_raw_fd(fd))), settings::purpose(context))
    };
    hosted::accept(&mut State { listener: context }, &listener, &purpose);
}

/// Opens the socket of a listener, unless it has one, listens, and watches it.
///
/// # Safety
/// It is the context of a listener.
pub(super) unsafe fn bind(context: *mut SpawndContext) {
    let again: Handler = spawnd_bind_listener;
    // SAFETY: as the caller promises; the variable lives as long as the process.
    unsafe {
        Context::with(io(), |events| events.foreign_delete(context.cast(), again as Callback));
        let Some(address) = (*context).sa.to_address() else {
            return log::message("listen: not an address");
        };
        let bound = (*context).bits & bit::LISTENER != 0;
        if (*context).r#fn < 0 {
            (*context).port = address.port();
            let mut failed = (*context).bits & bit::LOGGED_RETRY != 0;
            let opened = hosted::open(settings::listener(context), &address, bound, &mut failed);
            if failed {
                (*context).bits |= bit::LOGGED_RETRY;
            }
            let Some(socket) = opened else {
                return retry(context, again);
            };
            (*context).r#fn = socket.into_raw_fd();
        } else {
            if (*context).socktype != libc::SOCK_DGRAM {
                libc::listen((*context).r#fn, (*context).listen_backlog);
            }
            hosted::opened(&address, bound);
        }
        (*context).bits |= bit::LISTENER;
        watch(context, spawnd_accepted);
    }
}

/// Opens a listener later, if a retry delay is configured. Without one, the process ends once all
/// listeners have failed.
///
/// # Safety
/// It is the context of a listener.
unsafe fn retry(context: *mut SpawndContext, again: Handler) {
    // SAFETY: as the caller promises; the variable lives as long as the process.
    unsafe {
        let wait = i64::from((*context).retry_delay) * 1_000_000;
        if wait > 0 {
            Context::with(io(), |events| {
                events.foreign_schedule(context.cast(), again as Callback, wait, Order::First);
            });
            return;
        }
        let data = spawnd_data::address();
        (*data).bind_failures += 1;
        if (*data).bind_failures == (*data).listeners_max {
            hosted::nothing_bound();
        }
    }
}

/// Starts a worker.
pub(super) fn start_worker() -> Option<Started> {
    let Some(program) = settings::worker_program() else {
        log::braked(log::Kind::Worker, || "no program to start workers with".to_owned());
        return None;
    };
    // SAFETY: the variable lives as long as the process; the field is copied.
    let buffer = unsafe { (*spawnd_data::address()).scm_bufsize };
    match worker_process::start(&program, buffer, None) {
        Ok(started) => Some(started),
        Err((call, error)) => {
            log::braked(log::Kind::Worker, || format!("{call}: {}", os::reason(&error)));
            None
        }
    }
}

/// Starts a worker, unless there are as many as configured, and adds it to the workers.
pub(super) fn add_worker() {
    if common_data::servers_cur() >= common_data::servers_max() {
        return;
    }
    let Some(started) = start_worker() else {
        return;
    };
    let now = common_data::clock();
    let server = spawnd_data::new_context(common_data::io());
    // SAFETY: the context has just been made.
    unsafe {
        ((*server).pid, (*server).r#fn) = (started.pid, started.channel.into_raw_fd());
        (*server).tv.tv_sec = (now / 1_000_000) as _;
        (*server).tv.tv_usec = (now % 1_000_000) as _;
        let mut servers = spawnd_data::servers();
        servers.push(server);
        spawnd_data::set_servers(&servers);
        watch(server, received);
    }
}

/// Drops a worker from the stickiness caches, and its side of the channel.
///
/// # Safety
/// It is the context of a worker.
pub(super) unsafe fn forget_worker(server: *mut SpawndContext) {
    // SAFETY: as the caller promises.
    let id = unsafe { id(server) };
    STICKY.with_borrow_mut(|caches| caches.values_mut().for_each(|cache| cache.forget(id)));
    SIDES.with_borrow_mut(|sides| sides.remove(&id));
}

/// Closes the socket of a listener or worker.
///
/// # Safety
/// The context is valid, and its loop is null or exists.
unsafe fn close(context: *mut SpawndContext) {
    // SAFETY: as the caller promises; the descriptor is the context's.
    unsafe {
        let fd = std::mem::replace(&mut (*context).r#fn, -1);
        if fd >= 0 {
            let io = (*context).io.cast_const().cast();
            Context::with(io, |events| events.foreign_unregister(fd));
            libc::close(fd);
        }
    }
}

/// Closes and frees a listener or worker, and takes it off the list it is in.
///
/// # Safety
/// The context is valid, and not used afterwards.
pub(super) unsafe fn remove(context: *mut SpawndContext) {
    let without = |mut all: Vec<*mut SpawndContext>| {
        let place = all.iter().position(|&other| other == context)?;
        all.swap_remove(place);
        Some(all)
    };
    // SAFETY: as the caller promises.
    unsafe {
        let io = (*context).io.cast_const().cast();
        Context::with(io, |events| events.foreign_drop(context.cast()));
        close(context);
        if (*context).bits & bit::LISTENER != 0 {
            if let Some(listeners) = without(spawnd_data::listeners()) {
                spawnd_data::set_listeners(&listeners);
            }
            STICKY.with_borrow_mut(|caches| caches.remove(&context));
        } else {
            if let Some(servers) = without(spawnd_data::servers()) {
                common_data::set_users_cur(common_data::users_cur() - (*context).r#use);
                forget_worker(context);
                spawnd_data::set_servers(&servers);
                hosted::resume(&mut State::nowhere());
            }
            set_proctitle::show(ACCEPTING);
        }
        spawnd_data::free_context(context);
    }
}

/// Catches signals, and has the loop of C code call `noted` when one arrives.
pub(super) fn watch_signals(noted: unsafe extern "C" fn(*mut c_void, c_int)) {
    static PLACE: u8 = 0;
    // SIGUSR2 has nothing to do here, as this broker opens no log file, but must not end it: what
    // rotates logs may send it to all processes.
    let caught =
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
    let signals = match Signals::install(&caught) {
        Ok(signals) => signals,
        Err(error) => return log::message(&format!("signals: {error}")),
    };
    let fd = signals.descriptor().as_raw_fd();
    let context = (&raw const PLACE).cast_mut().cast();
    let before = SIGNALS.replace(Some(signals));
    // SAFETY: the loop of C code is null or exists. The context is not used.
    unsafe {
        Context::with(io(), |events| {
            if let Some(before) = &before {
                events.foreign_unregister(before.descriptor().as_raw_fd());
            }
            events.foreign_register(fd, context);
            events.foreign_set_callback(fd, Condition::Input, noted as Callback);
            events.foreign_want(fd, Interest::READ);
        });
    }
}

//! mavis/spawnd_headers.h: the sockets and processes of a broker that C code builds.
use super::overload::{check_overload, is_full};
use super::permits;
use super::workers::{add_child, clean_up, spawnd_cleanup_internal};
use crate::broker::policy::WorkerId;
use crate::broker::sticky::{Cache, Key};
use crate::broker::{open_listener, receive_datagram};
use crate::channel::protocol::{Accept, UDP_HEADER, UDP_LIMIT};
use crate::config::listen;
use crate::config::Ids;
use crate::event::{Callback, Condition, Context, Interest};
use crate::ffi::entry::{entry, Argument};
use crate::ffi::layout::common_data;
use crate::ffi::layout::spawnd_data::{self, bit, SpawndContext};
use crate::ffi::scm;
use crate::os::process::exit;
use crate::os::socket::{self, Keepalive, Kind, Protocol};
use crate::os::{self, log};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::{self, NonNull};

thread_local! {
    /// Who was served by which process: of a listener, and of the whole broker at null.
    static STICKY: RefCell<HashMap<*mut SpawndContext, Cache>> = RefCell::default();
}

/// A callback of the loop for a context.
pub(super) type Handler = unsafe extern "C" fn(*mut SpawndContext, c_int);

pub(super) fn io() -> *const Context {
    common_data::io().cast_const().cast()
}

/// Watches a descriptor for input in the loop of C code.
pub(super) unsafe fn watch(context: *mut SpawndContext, input: Handler) {
    // SAFETY: as the caller promises; the loop of C code is null or exists.
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
            events.foreign_want(fd, Interest::READ, true);
        });
    }
}

/// Sends a message with the function that the program has chosen; without a socket, to the worker
/// in this process. 0 if it was sent.
pub(super) unsafe fn send(socket: c_int, message: &[u8], fd: c_int) -> c_int {
    let mut aligned = [0u64; (UDP_HEADER + UDP_LIMIT) / 8];
    // SAFETY: the message is copied to where its numbers are aligned, as far as there is room; the
    // field is null or a function of this type.
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

/// What a listener is opened with.
unsafe fn configuration(context: *mut SpawndContext) -> listen::Listener {
    let set = |value: c_int| u32::try_from(value).ok();
    let some = |value: u32| (value != 0).then_some(value);
    // SAFETY: as the caller promises; the name of the VRF is null or NUL-terminated.
    unsafe {
        listen::Listener {
            kind: match (*context).socktype {
                libc::SOCK_DGRAM => Kind::Datagram,
                libc::SOCK_SEQPACKET => Kind::SequencedPacket,
                _ => Kind::Stream,
            },
            protocol: match (*context).protocol {
                libc::IPPROTO_UDP => Protocol::Udp,
                socket::IPPROTO_SCTP => Protocol::Sctp,
                socket::IPPROTO_MPTCP => Protocol::Mptcp,
                _ => Protocol::Tcp,
            },
            backlog: (*context).listen_backlog,
            overload_backlog: (*context).overload_backlog,
            vrf: String::take((*context).vrf).filter(|name| !name.is_empty()),
            #[allow(clippy::useless_conversion, reason = "the types differ between systems")]
            mode: some(u32::from((*context).mode)),
            owner: Ids { uid: some((*context).uid), gid: some((*context).gid) },
            keepalive: Keepalive {
                count: set((*context).keepcnt),
                idle: set((*context).keepidle),
                interval: set((*context).keepintvl),
                user_timeout: None,
            },
            ..listen::Listener::new(set((*context).retry_delay).unwrap_or(0))
        }
    }
}

/// Closes the socket of a listener or worker.
pub(super) unsafe fn close(context: *mut SpawndContext) {
    // SAFETY: as the caller promises; the loop is null or exists, and the descriptor the context's.
    unsafe {
        let fd = std::mem::replace(&mut (*context).r#fn, -1);
        if fd >= 0 {
            Context::with((*context).io.cast_const().cast(), |events| {
                events.foreign_unregister(fd)
            });
            libc::close(fd);
        }
    }
}

/// Opens the socket of a listener, unless it has one, listens, and watches it. What fails is tried
/// again if that is configured; if it is not and no listener is left, the process ends.
pub(super) unsafe fn bind(context: *mut SpawndContext) {
    // SAFETY: as the caller promises.
    unsafe {
        let again: Handler = spawnd_bind_listener;
        Context::with(io(), |events| events.foreign_delete(context.cast(), again as Callback));
        let Some(address) = (*context).sa.to_address() else {
            return log::message("listen: not an address");
        };
        if (*context).r#fn < 0 {
            (*context).port = address.port();
            match open_listener(configuration(context), address.clone()) {
                Ok(fd) => (*context).r#fn = fd.into_raw_fd(),
                Err((call, error)) => return failed(context, &format!("{address}"), &call, &error),
            }
        } else if (*context).socktype != libc::SOCK_DGRAM {
            libc::listen((*context).r#fn, (*context).listen_backlog);
        }
        let bound = || format!("bind to {address} succeeded");
        match (*context).bits & bit::LISTENER {
            0 => log::message(&bound()),
            // Again, as a limit was left.
            _ => log::braked(log::Kind::Listener, bound),
        }
        (*context).bits |= bit::LISTENER;
        watch(context, spawnd_accepted);
    }
}

/// A listener could not be opened.
unsafe fn failed(context: *mut SpawndContext, address: &str, call: &str, error: &io::Error) {
    // SAFETY: as the caller promises; the variable lives as long as the process.
    unsafe {
        let delay = (*context).retry_delay;
        if (*context).bits & bit::LOGGED_RETRY == 0 {
            (*context).bits |= bit::LOGGED_RETRY;
            log::message(&format!("{call}: {}", os::reason(error)));
            let retry = match delay {
                1.. => format!(" Will retry every {delay} seconds."),
                _ => String::new(),
            };
            log::message(&format!("bind to {address} failed.{retry}"));
        }
        if delay > 0 {
            let again: Handler = spawnd_bind_listener;
            let wait = i64::from(delay) * 1_000_000;
            Context::with(io(), |events| {
                events.foreign_schedule(context.cast(), again as Callback, wait, false);
            });
            return;
        }
        let data = spawnd_data::address();
        (*data).bind_failures += 1;
        if (*data).bind_failures == (*data).listeners_max {
            log::message("Failed to bind to any address or port. Exiting.");
            std::process::exit(exit::TEMPORARY);
        }
    }
}

entry! {
    /// `void spawnd_bind_listener(struct spawnd_context *, int)`: opens the socket of a listener,
    /// unless it has one, listens, and watches it. What fails is tried again if that is configured;
    /// if it is not and no listener is left, the process ends.
    pub fn spawnd_bind_listener(context: NonNull<SpawndContext>, _fd: c_int) {
        // SAFETY: the context is one.
        unsafe { bind(context.as_ptr()) };
    }

    /// `void spawnd_accepted(struct spawnd_context *, int fd)`: callback of a listener: takes a
    /// connection or datagram, and gives it to a worker.
    pub fn spawnd_accepted(context: NonNull<SpawndContext>, fd: c_int) {
        if fd >= 0 {
            // SAFETY: the context is one, and the descriptor its own.
            unsafe { accept(context.as_ptr(), fd) };
        }
    }
}

/// Takes a connection or datagram, and gives it to a worker.
unsafe fn accept(context: *mut SpawndContext, fd: c_int) {
    // SAFETY: as the caller promises; the descriptor stays the context's.
    let (listener, settings) = unsafe { (ManuallyDrop::new(OwnedFd::from_raw_fd(fd)), *context) };
    let datagrams = settings.socktype == libc::SOCK_DGRAM;
    let taken = match datagrams {
        true => receive_datagram(&listener),
        false => socket::accept(&listener, false).map(|socket| Some((socket, None))),
    };
    let (socket, datagram) = match taken {
        Ok(Some(taken)) => taken,
        Ok(None) => return,
        Err(error) if os::would_block(&error) => return,
        Err(error) => {
            return log::braked(log::Kind::Accept, || format!("accept: {}", os::reason(&error)))
        }
    };
    if is_full() {
        return;
    }
    let peer = socket::peer_address(&socket).and_then(|peer| peer.scoped_ip());
    if let Some(address) = peer.filter(|&address| !permits(address)) {
        return log::braked(log::Kind::Denied, || {
            format!("connection attempt from [{address}] rejected")
        });
    }
    if !datagrams {
        // SAFETY: as the caller promises.
        let keepalive = unsafe { configuration(context) }.keepalive;
        // A UNIX socket has none of them.
        let _ = socket::set_keepalive(&socket);
        let _ = socket::set_keepalive_parameters(&socket, keepalive);
        if let Some(class) = u8::try_from(settings.dscp).ok().filter(|&class| class != 0) {
            let _ = socket::set_traffic_class(&socket, class);
        }
    }
    let mut realm = [0; 16];
    realm[..15].copy_from_slice(&settings.tag[..15]);
    let accept = Accept {
        tls_versions: if datagrams { settings.dtls_versions } else { settings.tls_versions },
        aaa_protocol: settings.aaa_protocol,
        flags: settings.sd_flags,
        realm,
        protocol: settings.protocol as u32,
    };
    let message = match datagram {
        Some(data) => accept.encode_datagram(&data),
        None => accept.encode().to_vec(),
    };
    if common_data::single_process() != 0 {
        // SAFETY: the message is one; who gets the descriptor owns it.
        unsafe { send(-1, &message, socket.into_raw_fd()) };
    } else {
        let key =
            peer.map(|address| Key { address, port: settings.port, protocol: settings.protocol });
        // SAFETY: as the caller promises.
        unsafe { hand_over(context, &socket, &message, key) };
    }
    check_overload();
}

/// Forgets who was served by a worker.
pub(super) unsafe fn forget_worker(server: *mut SpawndContext) {
    // SAFETY: as the caller promises.
    let id = unsafe { worker(server) };
    STICKY.with_borrow_mut(|caches| caches.values_mut().for_each(|cache| cache.forget(id)));
}

/// Forgets whom a listener has had.
pub(super) fn forget_listener(listener: *mut SpawndContext) {
    STICKY.with_borrow_mut(|caches| caches.remove(&listener));
}

/// The cache that holds for a listener.
unsafe fn sticky<T>(
    context: *mut SpawndContext,
    action: impl FnOnce(&mut Cache) -> T,
) -> Option<T> {
    // SAFETY: as the caller promises; the variable lives as long as the process.
    let (place, track) = unsafe {
        match (*context).track_data.tracking_period {
            1.. => (context, (*context).track_data),
            _ => (ptr::null_mut(), (*spawnd_data::address()).track_data),
        }
    };
    let period = u64::try_from(track.tracking_period).ok().filter(|&period| period > 0)?;
    let size = usize::try_from(track.tracking_size).unwrap_or(0);
    STICKY.with_borrow_mut(|caches| {
        let cache = caches.entry(place).or_insert_with(|| Cache::new(period * 1000, size));
        Some(action(cache))
    })
}

/// Gives a connection to the worker that the client had last, or else to the one with the fewest
/// users; starts one if all have enough.
unsafe fn hand_over(
    context: *mut SpawndContext,
    socket: &OwnedFd,
    message: &[u8],
    key: Option<Key>,
) {
    let now = u64::try_from(common_data::clock() / 1000).unwrap_or(0);
    let most = match common_data::users_max() {
        most @ 1.. => most,
        _ => c_int::MAX,
    };
    let mut refused = Vec::new();
    // SAFETY: as the caller promises; the arrays have contexts.
    unsafe {
        let known = key.and_then(|key| sticky(context, |cache| cache.get(&key, now))).flatten();
        for _ in 0..=common_data::servers_max().max(0) {
            let takes = |server: &*mut SpawndContext| {
                let leaving = (**server).bits & bit::DYING != 0;
                !leaving && (**server).r#use < most && !refused.contains(&(**server).pid)
            };
            let servers = spawnd_data::servers();
            let least = |servers: Vec<*mut SpawndContext>| {
                servers.into_iter().filter(takes).min_by_key(|server| (**server).r#use)
            };
            let same = |server: &&*mut SpawndContext| Some(worker(**server)) == known;
            let chosen = match servers.iter().filter(|server| takes(server)).find(same) {
                Some(same) => Some(*same),
                None => match least(servers) {
                    Some(idle) if (*idle).r#use < common_data::users_min() => Some(idle),
                    _ => {
                        add_child();
                        least(spawnd_data::servers())
                    }
                },
            };
            let Some(server) = chosen else {
                break;
            };
            let channel = (*server).r#fn;
            if send(channel, message, socket.as_raw_fd()) == 0 {
                (*server).r#use += 1;
                common_data::set_users_cur(common_data::users_cur() + 1);
                if let Some(key) = key {
                    sticky(context, |cache| cache.put(key, worker(server), now));
                }
                return;
            }
            let state = socket::poll_state(channel);
            if state.error || state.hangup || state.writable {
                clean_up(server);
            } else {
                // It has too much to read, and may still be well.
                refused.push((*server).pid);
            }
        }
    }
    log::braked(log::Kind::Accept, || "no worker takes the connection".to_owned());
}

/// By what a worker is remembered, wherever it is in the array.
unsafe fn worker(server: *mut SpawndContext) -> WorkerId {
    // SAFETY: as the caller promises.
    WorkerId(unsafe { (*server).pid } as u32)
}

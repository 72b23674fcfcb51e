//! mavis/spawnd_headers.h: parts of the broker, for who builds one of their own: its settings, its
//! listeners as data, and its signals.
//!
//! Contexts are null or of `spawnd_new_context`; C code calls this library from one thread.

mod overload;
mod serve;
mod workers;

use super::entry::{entry, Argument};
use super::layout::common_data;
use super::layout::sockaddr::SockaddrUnion;
use super::layout::spawnd_data::{self, SpawndContext, TrackData};
use super::mavis::reading::Reader;
use crate::broker::acl::Acl;
use crate::channel::protocol::FromBroker;
use crate::config::broker::{self, Broker, Overload};
use crate::config::listen::{Listener, Sticky};
use crate::config::token::{S_close, S_queue, S_reset};
use crate::event::{Callback, Condition, Context, Interest};
use crate::os::address::Address;
use crate::os::address::ScopedIp;
use crate::os::log;
use crate::os::malloc::Text;
use crate::os::process::{self, exit};
use crate::os::signals::{Signal, Signals};
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::{self, NonNull};

thread_local! {
    /// `permit` and `deny`.
    static ACL: RefCell<Acl> = RefCell::default();
    /// What the broker's handlers note.
    static SIGNALS: RefCell<Option<Signals>> = const { RefCell::new(None) };
}

fn number(value: usize) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

fn keep(value: Option<u32>, before: c_int) -> c_int {
    value.map_or(before, |value| c_int::try_from(value).unwrap_or(c_int::MAX))
}

/// What is set already.
fn current() -> Broker {
    let mut broker = Broker::default();
    let count = |value: c_int, default: usize| match usize::try_from(value) {
        Ok(value) if value > 0 => value,
        _ => default,
    };
    let spawn = &mut broker.spawn;
    spawn.instances_min = count(common_data::servers_min(), spawn.instances_min);
    spawn.instances_max = count(common_data::servers_max(), spawn.instances_max);
    spawn.users_min = count(common_data::users_min(), spawn.users_min);
    spawn.users_max = count(common_data::users_max(), spawn.users_max);
    spawn.ipc_key = common_data::ipc_key() as i32;
    let data = spawnd_data::address();
    // SAFETY: the variable lives as long as the process; its fields are copied.
    unsafe {
        broker.background = (*data).background != 0;
        broker.channel_buffer = (*data).scm_bufsize;
        broker.retry_delay = u32::try_from((*data).retry_delay).unwrap_or(0);
        broker.overload = match (*data).overload {
            code if code == S_close.0 => Overload::Close,
            code if code == S_reset.0 => Overload::Reset,
            _ => Overload::Queue,
        };
        let track = (*data).track_data;
        broker.sticky.period = u32::try_from(track.tracking_period).unwrap_or(0);
        broker.sticky.size = count(track.tracking_size, broker.sticky.size);
    }
    broker
}

/// Makes what was read visible to C code.
fn publish(broker: Broker) {
    let data = spawnd_data::address();
    let set_text = |place, text: Option<&[u8]>| {
        if let Some(text) = text {
            // SAFETY: the places are fields of the variable, set by this or by C code with
            // strings of malloc(3).
            unsafe { spawnd_data::set_text(place, text) };
        }
    };
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.as_os_str().to_owned());
    let spawn = &broker.spawn;
    // SAFETY: the variable lives as long as the process, and nobody refers into it.
    unsafe {
        if (*data).background_lock == 0 {
            (*data).background = broker.background.into();
        }
        if (*data).pidfile_lock == 0 {
            set_text(
                &raw mut (*data).pidfile,
                path(&broker.pid_file).as_ref().map(|p| p.as_bytes()),
            );
        }
        let (overload, hint) = match broker.overload {
            Overload::Queue => (S_queue, c"queueing"),
            Overload::Close => (S_close, c"immediately closing"),
            Overload::Reset => (S_reset, c"resetting"),
        };
        ((*data).overload, (*data).overload_hint) = (overload.0, hint.as_ptr());
        (*data).retry_delay = keep(Some(broker.retry_delay), 0);
        (*data).scm_bufsize = broker.channel_buffer;
        // Zero is as good as unset: the system takes none of them.
        let unset = |value: c_int| if value == 0 { -1 } else { value };
        (*data).keepcnt = keep(broker.keepalive.count, unset((*data).keepcnt));
        (*data).keepidle = keep(broker.keepalive.idle, unset((*data).keepidle));
        (*data).keepintvl = keep(broker.keepalive.interval, unset((*data).keepintvl));
        (*data).track_data.tracking_period = c_long::from(broker.sticky.period as i32);
        (*data).track_data.tracking_size = number(broker.sticky.size);
        (*data).uid = spawn.ids.uid.unwrap_or((*data).uid);
        (*data).gid = spawn.ids.gid.unwrap_or((*data).gid);
        let program = path(&spawn.program);
        set_text(&raw mut (*data).child_path, program.as_ref().map(|path| path.as_bytes()));
        set_text(&raw mut (*data).child_id, spawn.id.as_ref().map(String::as_bytes));
        set_text(&raw mut (*data).child_config, spawn.config.as_ref().map(String::as_bytes));
        let directory = path(&spawn.directory);
        set_text(&raw mut (*data).cwd, directory.as_ref().map(|path| path.as_bytes()));
    }
    common_data::set_servers_min(number(spawn.instances_min));
    common_data::set_servers_max(number(spawn.instances_max));
    common_data::set_users_min(number(spawn.users_min));
    common_data::set_users_max(number(spawn.users_max));
    common_data::set_users_max_total(number(spawn.users_max.saturating_mul(spawn.instances_max)));
    common_data::set_ipc_key(spawn.ipc_key as u64);
    if let Some(single) = broker.single_process {
        common_data::set_single_process(single.into());
    }
    for listener in &broker.listeners {
        match listener.resolve() {
            Ok(address) => note(listener, &address),
            Err(reason) => log::message(&format!("listen: {reason}")),
        }
    }
    ACL.set(Acl::new(broker.acl));
}

/// Adds a listener of the configuration.
fn note(listener: &Listener, address: &Address) {
    let context = spawnd_data::new_context(ptr::null_mut());
    let mut tag = [0; 17];
    let length = listener.realm.len().min(15);
    tag[..length].copy_from_slice(&listener.realm[..length]);
    let Sticky { period, size } = listener.sticky;
    // SAFETY: the context has just been made, and nobody else knows it.
    unsafe {
        let empty = *context;
        *context = SpawndContext {
            sd_flags: listener.flags,
            tls_versions: listener.tls_versions,
            dtls_versions: listener.dtls_versions,
            socktype: listener.kind.number(),
            protocol: listener.protocol.number(),
            port: address.port(),
            listen_backlog: listener.backlog,
            overload_backlog: listener.overload_backlog,
            tag,
            tag_len: length,
            uid: listener.owner.uid.unwrap_or(0),
            gid: listener.owner.gid.unwrap_or(0),
            mode: listener.mode.unwrap_or(0) as libc::mode_t,
            retry_delay: keep(Some(listener.retry_delay), 0),
            keepcnt: keep(listener.keepalive.count, -1),
            keepidle: keep(listener.keepalive.idle, -1),
            keepintvl: keep(listener.keepalive.interval, -1),
            dscp: c_int::from(listener.dscp) << 2,
            aaa_protocol: listener.aaa_protocol,
            sa: SockaddrUnion::from(address),
            track_data: TrackData {
                tracking_period: c_long::from(period as i32),
                // Where it is not said, the section's cache holds.
                tracking_size: if listener.sticky == Sticky::default() { 0 } else { number(size) },
                ..empty.track_data
            },
            ..empty
        };
        if let Some(vrf) = &listener.vrf {
            (*context).vrf = Text::new(vrf.as_bytes()).into_raw();
            (*context).vrf_len = vrf.len() + 1;
        }
    }
    let mut listeners = spawnd_data::listeners();
    listeners.push(context);
    spawnd_data::set_listeners(&listeners);
}

/// What the access list says.
fn permits(address: ScopedIp) -> bool {
    ACL.with_borrow(|acl| acl.permits(address))
}

/// Asks all workers to leave.
fn farewell() {
    for server in spawnd_data::servers() {
        // SAFETY: the array has contexts.
        unsafe { serve::send((*server).r#fn, &FromBroker::may_die(), -1) };
    }
}

entry! {
    /// `void spawnd_parse_decls(struct sym *)`: the broker's section, up to its closing brace or
    /// the end of the text.
    #[otherwise(0)]
    pub(in crate::ffi) fn spawnd_parse_decls(sym: Reader) -> c_int {
        sym.read(|parser| {
            let mut broker = current();
            broker::parse_into(parser, &mut broker)?;
            let spawn = &mut broker.spawn;
            spawn.instances_min = spawn.instances_min.min(spawn.instances_max);
            common_data::publish(&std::mem::take(&mut parser.common));
            publish(broker);
            Ok(())
        })
    }

    /// `struct spawnd_context *spawnd_new_context(struct io_context *io)`: a context of malloc(3)
    /// without a descriptor.
    #[otherwise(ptr::null_mut())]
    pub fn spawnd_new_context(io: *mut c_void) -> *mut SpawndContext {
        spawnd_data::new_context(io)
    }

    /// `int spawnd_note_listener(sockaddr_union *sa, void *context)`: adds the context to the
    /// listeners, with this address; a copy of it if it is there already. 0
    #[otherwise(0)]
    pub fn spawnd_note_listener(address: &SockaddrUnion, context: NonNull<SpawndContext>) -> c_int {
        let context = context.as_ptr();
        let mut listeners = spawnd_data::listeners();
        // SAFETY: the context is one.
        unsafe {
            let mut added = context;
            if listeners.contains(&context) {
                added = spawnd_data::new_context((*context).io);
                *added = *context;
                if let Some(vrf) = <&[u8]>::take((*context).vrf) {
                    (*added).vrf = Text::new(vrf).into_raw();
                }
            }
            (*added).sa = *address;
            listeners.push(added);
        }
        spawnd_data::set_listeners(&listeners);
        0
    }

    /// `int spawnd_acl_check(sockaddr_union *)`: not 0 if the address may connect; one that is no
    /// IP address always may.
    #[otherwise(0)]
    pub fn spawnd_acl_check(address: Option<&SockaddrUnion>) -> c_int {
        match address.and_then(SockaddrUnion::scoped_ip) {
            Some(address) => permits(address).into(),
            None => -1,
        }
    }

    /// `void spawnd_setup_signals(void)`: notes SIGHUP, SIGINT, SIGTERM and SIGUSR1, and ignores
    /// SIGPIPE. What is noted is done by [`spawnd_process_signals`], and in the loop of
    /// `common_data.io`, if there is one.
    pub fn spawnd_setup_signals() {
        watch_signals();
    }

    /// A signal was noted, in the loop of C code.
    fn noted(_context: *mut c_void, _fd: c_int) {
        process_signals();
    }

    /// `void spawnd_process_signals(void)`: does what was asked for by signals.
    pub fn spawnd_process_signals() {
        process_signals();
    }

    /// `void get_exec_path(char **path, char *dflt)`: sets `*path` to a copy of `dflt` if that has
    /// a slash, otherwise to the path of this process's program, and to `dflt` if that is not
    /// known. It is given back with free(3).
    pub fn get_exec_path(path: &mut *mut c_char, default: Option<&[u8]>) {
        *path = Text::new(&process::program_path(default.unwrap_or_default())).into_raw();
    }
}

/// Notes signals, and watches for them in the loop of C code.
fn watch_signals() {
    static PLACE: u8 = 0;
    let caught = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1];
    let signals = match Signals::install(&caught) {
        Ok(signals) => signals,
        Err(error) => return log::message(&format!("signals: {error}")),
    };
    let fd = signals.descriptor().as_raw_fd();
    let context = (&raw const PLACE).cast_mut().cast();
    let noted: unsafe extern "C" fn(*mut c_void, c_int) = noted;
    let io = common_data::io().cast_const().cast::<Context>();
    let before = SIGNALS.replace(Some(signals));
    // SAFETY: the loop of C code is null or exists. The context is not used.
    unsafe {
        Context::with(io, |events| {
            if let Some(before) = &before {
                events.foreign_unregister(before.descriptor().as_raw_fd());
            }
            events.foreign_register(fd, context);
            events.foreign_set_callback(fd, Condition::Input, noted as Callback);
            events.foreign_want(fd, Interest::READ, true);
        });
    }
}

/// Does what was asked for by signals.
fn process_signals() {
    let Some(arrived) = SIGNALS.with_borrow(|signals| signals.as_ref().map(Signals::take)) else {
        return;
    };
    // SAFETY: the variable lives as long as the process; the field is copied.
    let inherited = unsafe { (*spawnd_data::address()).inetd } != 0;
    let restart = arrived.has(Signal::SIGHUP);
    let end = arrived.has(Signal::SIGTERM) || arrived.has(Signal::SIGINT);
    if end || (restart && inherited) {
        farewell();
        log::message("SIGTERM: exiting");
        std::process::exit(0);
    }
    if restart {
        farewell();
        log::message("SIGHUP: restarting");
        let own = process::executable().unwrap_or_default();
        let program = common_data::program_path().map_or(own, PathBuf::from);
        let environment: Vec<_> = std::env::vars_os().collect();
        let error = process::execute(&program, &common_data::arguments(), &environment, &[]);
        log::message(&format!("{}: {}", program.display(), crate::os::reason(&error)));
        std::process::exit(exit::OS_ERROR);
    }
    if arrived.has(Signal::SIGUSR1) {
        for server in spawnd_data::servers() {
            // SAFETY: the array has contexts of workers.
            unsafe { workers::clean_up(server) };
        }
    }
}

//! Converts between the configuration of a broker and its C layout: `struct spawnd_data`, and the
//! listeners' `struct spawnd_context`.

use super::common_data;
use super::sockaddr::SockaddrUnion;
use super::spawnd_data::{self, SpawndContext, TrackData};
use crate::broker::addresses::Resolver;
use crate::broker::hosted::Purpose;
use crate::broker::policy::Limits;
use crate::broker::text;
use crate::broker::worker_process::arguments;
use crate::channel::protocol::Accept;
use crate::config::broker::{Broker, Overload};
use crate::config::listen::{Listener, Sticky};
use crate::config::token::{S_close, S_queue, S_reset};
use crate::config::Ids;
use crate::ffi::entry::Argument;
use crate::os::address::Address;
use crate::os::log;
use crate::os::malloc::Text;
use crate::os::process::{Identity, Program};
use crate::os::socket::{self, Keepalive, Kind, Protocol};
use std::ffi::{c_char, c_int, c_long, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;

fn number(value: usize) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

fn keep(value: Option<u32>, before: c_int) -> c_int {
    value.map_or(before, |value| c_int::try_from(value).unwrap_or(c_int::MAX))
}

/// The settings so far, as defaults for the configuration that is to be read.
pub(crate) fn current() -> Broker {
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
        broker.overload = overload();
        let track = (*data).track_data;
        broker.sticky.period = u32::try_from(track.tracking_period).unwrap_or(0);
        broker.sticky.size = count(track.tracking_size, broker.sticky.size);
    }
    broker
}

/// What to do with new connections while all workers are full.
pub(crate) fn overload() -> Overload {
    // SAFETY: the variable lives as long as the process; the field is copied.
    match unsafe { (*spawnd_data::address()).overload } {
        code if code == S_close.0 => Overload::Close,
        code if code == S_reset.0 => Overload::Reset,
        _ => Overload::Queue,
    }
}

/// The configured limits.
pub(crate) fn limits() -> Limits {
    let count = |value: c_int| usize::try_from(value).unwrap_or(0);
    Limits {
        instances_min: count(common_data::servers_min()),
        instances_max: count(common_data::servers_max()),
        users_min: count(common_data::users_min()),
        users_max: match common_data::users_max() {
            most @ 1.. => count(most),
            _ => usize::MAX,
        },
    }
}

/// Copies the configuration to where C code reads it, and adds its listeners.
pub(crate) fn publish(broker: &Broker) {
    let data = spawnd_data::address();
    let set_text = |place, text: Option<&[u8]>| {
        if let Some(text) = text {
            // SAFETY: the places are fields of the variable, set here or by C code with strings of
            // malloc(3).
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
        (*data).overload = match broker.overload {
            Overload::Queue => S_queue.0,
            Overload::Close => S_close.0,
            Overload::Reset => S_reset.0,
        };
        (*data).overload_hint = text::doing_for_c(broker.overload).as_ptr();
        (*data).retry_delay = keep(Some(broker.retry_delay), 0);
        (*data).scm_bufsize = broker.channel_buffer;
        // Zero means unset, as the system accepts zero for none of them.
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
        match Resolver::default().resolve(listener) {
            Ok(address) => note(listener, &address),
            Err(reason) => log::message(&format!("listen: {reason}")),
        }
    }
}

/// Adds a listener from the configuration.
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
                // Without `sticky` settings of its own, the listener uses the section's cache.
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

/// The settings for opening a listener.
///
/// # Safety
/// It is the context of a listener.
pub(crate) unsafe fn listener(context: *mut SpawndContext) -> Listener {
    let set = |value: c_int| u32::try_from(value).ok();
    let some = |value: u32| (value != 0).then_some(value);
    // SAFETY: as the caller promises; the name of the VRF is null or NUL-terminated.
    unsafe {
        Listener {
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
            ..Listener::new(set((*context).retry_delay).unwrap_or(0))
        }
    }
}

/// How to accept connections and datagrams of a listener, and what workers are told about them.
///
/// # Safety
/// It is the context of a listener.
pub(crate) unsafe fn purpose(context: *mut SpawndContext) -> Purpose {
    // SAFETY: as the caller promises; the fields are copied.
    let (settings, keepalive) = unsafe { (*context, listener(context).keepalive) };
    let datagrams = settings.socktype == libc::SOCK_DGRAM;
    let mut realm = [0; 16];
    realm[..15].copy_from_slice(&settings.tag[..15]);
    Purpose {
        datagrams,
        keepalive,
        class: u8::try_from(settings.dscp).unwrap_or(0),
        accept: Accept {
            tls_versions: if datagrams { settings.dtls_versions } else { settings.tls_versions },
            aaa_protocol: settings.aaa_protocol,
            flags: settings.sd_flags,
            realm,
            protocol: settings.protocol as u32,
            client: 0,
            listener: 0,
        },
        port: settings.port,
        protocol: settings.protocol,
    }
}

/// Copies a text field of the variable.
unsafe fn field(text: *const c_char) -> Option<OsString> {
    // SAFETY: null or NUL-terminated, as C code keeps it.
    unsafe { <&[u8]>::take(text) }.map(|text| OsStr::from_bytes(text).to_owned())
}

/// The program to start a worker with, and its arguments; `None` if no program is set.
pub(crate) fn worker_program() -> Option<Program> {
    let data = spawnd_data::address();
    let parse_only = common_data::parse_only() != 0;
    let some = |id: u32| (id != 0 && !parse_only).then_some(id);
    // SAFETY: the variable lives as long as the process; its fields are copied.
    unsafe {
        let mut arguments = arguments(
            common_data::debug(),
            common_data::debug_stderr() != 0,
            field((*data).child_config),
            field((*data).child_id),
        );
        for (set, flag) in [(parse_only, "-P"), (common_data::version_only() != 0, "-v")] {
            if set {
                arguments.insert(0, flag.into());
            }
        }
        Some(Program {
            path: PathBuf::from(field((*data).child_path)?),
            arguments,
            identity: Identity {
                uid: some((*data).uid),
                gid: some((*data).gid),
                ..Identity::default()
            },
            directory: field((*data).cwd).filter(|_| !parse_only).map(PathBuf::from),
            environment: None,
            group: false,
            held: None,
        })
    }
}

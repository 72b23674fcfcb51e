//! The c-ares library; uses only the interface that has not changed since version 1.18.

use super::{message, Addresses, Failure, Family, Name, Services, Watch};
use crate::os::socket;
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_uchar, c_ushort, c_void, CStr, CString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::time::Duration;

const ARES_SUCCESS: c_int = 0;
const ARES_ENODATA: c_int = 1;
const ARES_ENOTFOUND: c_int = 4;
const ARES_OPT_LOOKUPS: c_int = 1 << 8;
const ARES_AI_NOSORT: c_int = 1 << 7;
const ARES_LIB_INIT_ALL: c_int = 1;
const ARES_OPT_SOCK_STATE_CB: c_int = 1 << 9;
const ARES_SOCKET_BAD: c_int = -1;

/// `struct ares_options`. c-ares reads only the fields that the mask names; newer versions have
/// more.
#[repr(C)]
struct Options {
    flags: c_int,
    timeout: c_int,
    tries: c_int,
    ndots: c_int,
    udp_port: c_ushort,
    tcp_port: c_ushort,
    socket_send_buffer_size: c_int,
    socket_receive_buffer_size: c_int,
    servers: *mut c_void,
    nservers: c_int,
    domains: *mut *mut c_char,
    ndomains: c_int,
    lookups: *mut c_char,
    sock_state_cb: Option<unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int)>,
    sock_state_cb_data: *mut c_void,
    more: [u64; 32],
}

/// `struct ares_addrinfo_hints`
#[repr(C)]
struct Hints {
    flags: c_int,
    family: c_int,
    kind: c_int,
    protocol: c_int,
}

/// The beginning of `struct ares_addrinfo`
#[repr(C)]
struct Found {
    aliases: *const c_void,
    nodes: *const Node,
}

/// `struct ares_addrinfo_node`
#[repr(C)]
struct Node {
    lifetime: c_int,
    flags: c_int,
    family: c_int,
    kind: c_int,
    protocol: c_int,
    length: libc::socklen_t,
    address: *const libc::sockaddr,
    next: *const Node,
}

type Resolved = unsafe extern "C" fn(*mut c_void, c_int, c_int, *mut Found);
type Answered = unsafe extern "C" fn(*mut c_void, c_int, c_int, *mut c_uchar, c_int);
type Configure = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;

#[link(name = "cares")]
extern "C" {
    /// ares_library_init(3).
    fn ares_library_init(flags: c_int) -> c_int;
    /// ares_init_options(3).
    fn ares_init_options(channel: *mut *mut c_void, options: *const Options, mask: c_int) -> c_int;
    /// ares_destroy(3).
    fn ares_destroy(channel: *mut c_void);
    /// ares_query(3).
    fn ares_query(
        channel: *mut c_void,
        name: *const c_char,
        class: c_int,
        kind: c_int,
        answered: Answered,
        argument: *mut c_void,
    );
    /// ares_getaddrinfo(3).
    fn ares_getaddrinfo(
        channel: *mut c_void,
        host: *const c_char,
        service: *const c_char,
        hints: *const Hints,
        resolved: Resolved,
        argument: *mut c_void,
    );
    /// ares_freeaddrinfo(3).
    fn ares_freeaddrinfo(found: *mut Found);
    /// ares_strerror(3).
    fn ares_strerror(status: c_int) -> *const c_char;
    /// ares_process_fd(3).
    fn ares_process_fd(channel: *mut c_void, readable: c_int, writable: c_int);
    /// ares_timeout(3).
    fn ares_timeout(
        channel: *mut c_void,
        most: *mut libc::timeval,
        place: *mut libc::timeval,
    ) -> *mut libc::timeval;
    /// ares_set_servers_csv(3).
    fn ares_set_servers_ports_csv(channel: *mut c_void, servers: *const c_char) -> c_int;
    /// ares_set_socket_configure_callback(3).
    fn ares_set_socket_configure_callback(
        channel: *mut c_void,
        configure: Configure,
        argument: *mut c_void,
    );
}

/// What the library's callbacks use.
struct Shared {
    watch: Watch,
    vrf: RefCell<Option<String>>,
}

/// A c-ares channel: queries in flight, and their descriptors.
///
/// No callback of the library calls a method of this type: callbacks only take notes.
pub struct Channel {
    channel: NonNull<c_void>,
    /// Boxed, because the library keeps its address.
    shared: NonNull<Shared>,
}

/// Takes the message that was received, or the library's status.
type Answer = Box<dyn FnOnce(Result<&[u8], c_int>)>;
/// Takes addresses.
type Addressed = Box<dyn FnOnce(Result<Addresses, Failure>)>;

fn failure(status: c_int) -> Failure {
    match status {
        ARES_ENODATA | ARES_ENOTFOUND => Failure::Nothing,
        // SAFETY: the library returns a text that is never freed, for any number.
        _ => match unsafe { ares_strerror(status).as_ref() } {
            Some(text) => {
                // SAFETY: as above; it is NUL-terminated.
                let text = unsafe { CStr::from_ptr(text) };
                Failure::Unknown(text.to_string_lossy().into_owned())
            }
            None => Failure::Unknown(format!("status {status}")),
        },
    }
}

unsafe extern "C" fn state_changed(shared: *mut c_void, fd: c_int, read: c_int, write: c_int) {
    // SAFETY: the address given to the library, of what lives longer than its channel.
    let shared = unsafe { &*shared.cast::<Shared>() };
    (shared.watch)(fd, read != 0, write != 0);
}

unsafe extern "C" fn configure(fd: c_int, _kind: c_int, shared: *mut c_void) -> c_int {
    // SAFETY: as above.
    let shared = unsafe { &*shared.cast::<Shared>() };
    match &*shared.vrf.borrow() {
        // Better no answer than a query sent through the wrong network.
        Some(name) => socket::set_vrf(fd, name).map_or(-1, |()| 0),
        None => 0,
    }
}

unsafe extern "C" fn answered(
    argument: *mut c_void,
    status: c_int,
    _timeouts: c_int,
    message: *mut c_uchar,
    length: c_int,
) {
    // SAFETY: the library calls once for each question, with what was given with it.
    let answer = unsafe { Box::from_raw(argument.cast::<Answer>()) };
    let length = usize::try_from(length).unwrap_or(0);
    if status == ARES_SUCCESS && !message.is_null() {
        // SAFETY: the library gives that many bytes for the time of the call.
        answer(Ok(unsafe { std::slice::from_raw_parts(message, length) }));
    } else {
        answer(Err(status));
    }
}

unsafe extern "C" fn resolved(
    argument: *mut c_void,
    status: c_int,
    _timeouts: c_int,
    found: *mut Found,
) {
    // SAFETY: the library calls once for each question, with what was given with it.
    let answer = unsafe { Box::from_raw(argument.cast::<Addressed>()) };
    // SAFETY: null, or a list that is ours until it is freed below.
    let addresses = unsafe { found.as_ref() }.map(|found| unsafe { addresses(found) });
    if !found.is_null() {
        // SAFETY: the list is ours, and not used any more.
        unsafe { ares_freeaddrinfo(found) };
    }
    answer(match addresses.filter(|addresses| !addresses.list.is_empty()) {
        _ if status != ARES_SUCCESS => Err(failure(status)),
        Some(addresses) => Ok(addresses),
        None => Err(Failure::Nothing),
    });
}

/// The addresses in a list of the library.
///
/// # Safety
/// The list is one that the library has made.
unsafe fn addresses(found: &Found) -> Addresses {
    let (mut list, mut lifetime) = (Vec::new(), u32::MAX);
    // SAFETY: each node points at the next, and at an address of its family.
    let mut next = unsafe { found.nodes.as_ref() };
    while let Some(node) = next {
        let address = match node.family {
            _ if node.address.is_null() => None,
            // SAFETY: as above; the address may be misaligned, so it is copied.
            libc::AF_INET => unsafe {
                let address = node.address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(IpAddr::from(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes())))
            },
            // SAFETY: as above.
            libc::AF_INET6 => unsafe {
                let address = node.address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(IpAddr::from(Ipv6Addr::from(address.sin6_addr.s6_addr)))
            },
            _ => None,
        };
        if let Some(address) = address {
            list.push(address);
            lifetime = lifetime.min(u32::try_from(node.lifetime).unwrap_or(0));
        }
        // SAFETY: as above.
        next = unsafe { node.next.as_ref() };
    }
    Addresses { list, lifetime }
}

impl Channel {
    /// A channel to the system's name servers; `None` if the library cannot create one.
    pub fn new(watch: Watch) -> Option<Channel> {
        Channel::make(watch, ptr::null_mut(), 0)
    }

    /// A channel for [`addresses`](Self::addresses) and [`services`](Self::services), which asks
    /// name servers and reads no /etc/hosts.
    pub fn for_hosts(watch: Watch) -> Option<Channel> {
        // Not written to: the library copies it.
        Channel::make(watch, c"b".as_ptr().cast_mut(), ARES_OPT_LOOKUPS)
    }

    fn make(watch: Watch, lookups: *mut c_char, mask: c_int) -> Option<Channel> {
        static READY: OnceLock<bool> = OnceLock::new();
        // SAFETY: the first call of the library, made once.
        let ready = || unsafe { ares_library_init(ARES_LIB_INIT_ALL) } == ARES_SUCCESS;
        if !READY.get_or_init(ready) {
            return None;
        }
        let shared = Box::new(Shared { watch, vrf: RefCell::new(None) });
        let shared = NonNull::from(Box::leak(shared));
        let options = Options {
            flags: 0,
            timeout: 0,
            tries: 0,
            ndots: 0,
            udp_port: 0,
            tcp_port: 0,
            socket_send_buffer_size: 0,
            socket_receive_buffer_size: 0,
            servers: ptr::null_mut(),
            nservers: 0,
            domains: ptr::null_mut(),
            ndomains: 0,
            lookups,
            sock_state_cb: Some(state_changed),
            sock_state_cb_data: shared.as_ptr().cast(),
            more: [0; 32],
        };
        let mut channel = ptr::null_mut();
        // SAFETY: the fields of the options that the mask names are valid, and copied.
        let status =
            unsafe { ares_init_options(&mut channel, &options, ARES_OPT_SOCK_STATE_CB | mask) };
        let Some(channel) = NonNull::new(channel).filter(|_| status == ARES_SUCCESS) else {
            // SAFETY: there is no channel that could use it.
            drop(unsafe { Box::from_raw(shared.as_ptr()) });
            return None;
        };
        // SAFETY: the channel is alive, and ends before `shared` does.
        unsafe {
            let argument = shared.as_ptr().cast();
            ares_set_socket_configure_callback(channel.as_ptr(), configure, argument);
        }
        Some(Channel { channel, shared })
    }

    /// Looks up the name of an address. `answer` is called exactly once: possibly at once, and at
    /// the latest when the channel ends. It must not use the channel.
    pub fn ask(&self, address: IpAddr, answer: impl FnOnce(Option<Name>) + 'static) {
        self.query(&message::question(address), message::PTR, |message| {
            answer(message.ok().and_then(message::answer));
        });
    }

    /// Looks up who offers a service, as [`ask`](Self::ask) does.
    pub fn services(&self, name: &str, answer: impl FnOnce(Result<Services, Failure>) + 'static) {
        self.query(name, message::SRV, |message| {
            let broken = || Failure::Unknown("the answer is broken".to_owned());
            let services = message.map_err(failure);
            let services =
                services.and_then(|message| message::services(message).ok_or_else(broken));
            answer(match services {
                Ok(services) if services.list.is_empty() => Err(Failure::Nothing),
                services => services,
            });
        });
    }

    fn query(&self, name: &str, kind: u16, answer: impl FnOnce(Result<&[u8], c_int>) + 'static) {
        let Ok(name) = CString::new(name) else {
            return answer(Err(ARES_ENOTFOUND));
        };
        let answer: Box<Answer> = Box::new(Box::new(answer));
        let (class, kind) = (c_int::from(message::IN), c_int::from(kind));
        // SAFETY: the channel is alive; the name is copied; `answered` takes the box over.
        unsafe {
            let argument = Box::into_raw(answer).cast();
            ares_query(self.channel.as_ptr(), name.as_ptr(), class, kind, answered, argument);
        }
    }

    /// Looks up the addresses of a host, as [`ask`](Self::ask) does. Search domains count.
    pub fn addresses(
        &self,
        host: &str,
        family: Family,
        answer: impl FnOnce(Result<Addresses, Failure>) + 'static,
    ) {
        let Ok(host) = CString::new(host) else {
            return answer(Err(Failure::Nothing));
        };
        let family = match family {
            Family::Any => libc::AF_UNSPEC,
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        };
        let hints = Hints { flags: ARES_AI_NOSORT, family, kind: 0, protocol: 0 };
        let answer: Box<Addressed> = Box::new(Box::new(answer));
        // SAFETY: the channel is alive; name and hints are copied; `resolved` takes the box over.
        unsafe {
            let argument = Box::into_raw(answer).cast();
            ares_getaddrinfo(
                self.channel.as_ptr(),
                host.as_ptr(),
                ptr::null(),
                &hints,
                resolved,
                argument,
            );
        }
    }

    /// Continues the queries after these descriptors became ready, or the timeout passed.
    pub fn process(&self, readable: Option<RawFd>, writable: Option<RawFd>) {
        let number = |fd: Option<RawFd>| fd.unwrap_or(ARES_SOCKET_BAD);
        // SAFETY: the channel is alive; a descriptor that is not of the channel is ignored.
        unsafe { ares_process_fd(self.channel.as_ptr(), number(readable), number(writable)) };
    }

    /// How long to wait at most before the next call of [`Channel::process`].
    pub fn timeout(&self) -> Option<Duration> {
        let mut place = libc::timeval { tv_sec: 0, tv_usec: 0 };
        // SAFETY: the channel is alive. The result is null or points at `place`.
        let time =
            unsafe { ares_timeout(self.channel.as_ptr(), ptr::null_mut(), &mut place).as_ref()? };
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let microseconds = u64::try_from(time.tv_usec).unwrap_or(0);
        Some(Duration::from_secs(seconds) + Duration::from_micros(microseconds))
    }

    /// From now on asks these servers, a comma-separated list of `address[:port]`. Returns the
    /// library's status: 0 for success.
    pub fn set_servers(&self, servers: &CStr) -> i32 {
        // SAFETY: the channel is alive; the text is copied.
        unsafe { ares_set_servers_ports_csv(self.channel.as_ptr(), servers.as_ptr()) }
    }

    /// From now on binds sockets to this VRF.
    pub fn set_vrf(&self, name: Option<String>) {
        // SAFETY: it is freed when the channel ends; nobody holds a mutable reference to it.
        unsafe { self.shared.as_ref() }.vrf.replace(name);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: the library completes open queries, closes its sockets and forgets `shared`.
        unsafe {
            ares_destroy(self.channel.as_ptr());
            drop(Box::from_raw(self.shared.as_ptr()));
        }
    }
}

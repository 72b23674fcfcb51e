//! The resolver's library (c-ares), as far as the product uses it. Its answers are data; it has no
//! descriptors, so that time alone brings them.

use super::*;
use crate::kernel::Reply;

const SUCCESS: c_int = 0;
const NO_DATA: c_int = 1;
const SERVER_FAILED: c_int = 3;
const NOT_FOUND: c_int = 4;
const TIMED_OUT: c_int = 12;
const DESTROYED: c_int = 16;

/// `struct ares_addrinfo_node`
#[repr(C)]
struct Node {
    lifetime: c_int,
    flags: c_int,
    family: c_int,
    kind: c_int,
    protocol: c_int,
    length: socklen_t,
    address: *mut sockaddr,
    next: *mut Node,
}

/// `struct ares_addrinfo`
#[repr(C)]
struct Found {
    aliases: *const c_void,
    nodes: *mut Node,
    name: *const c_char,
}

/// `struct ares_addrinfo_hints`
#[repr(C)]
struct Hints {
    flags: c_int,
    family: c_int,
}

type Resolved = unsafe extern "C" fn(*mut c_void, c_int, c_int, *mut Found);
type Answered = unsafe extern "C" fn(*mut c_void, c_int, c_int, *mut u8, c_int);

struct Question {
    host: String,
    family: c_int,
    due: u64,
    resolved: Resolved,
    argument: *mut c_void,
}

/// A channel: the questions that were not answered yet.
#[derive(Default)]
struct Asked(Vec<Question>);

#[no_mangle]
extern "C" fn ares_library_init(_flags: c_int) -> c_int {
    SUCCESS
}

#[no_mangle]
unsafe extern "C" fn ares_init_options(
    channel: *mut *mut c_void,
    _options: *const c_void,
    _mask: c_int,
) -> c_int {
    // SAFETY: the caller has room for the address of a channel.
    unsafe { *channel = Box::into_raw(Box::<Asked>::default()).cast() };
    SUCCESS
}

#[no_mangle]
unsafe extern "C" fn ares_destroy(channel: *mut c_void) {
    // SAFETY: the channel is one of ours, and not used any more.
    let asked = unsafe { Box::from_raw(channel.cast::<Asked>()) };
    for Question { resolved, argument, .. } in asked.0 {
        // SAFETY: each question is answered once.
        unsafe { resolved(argument, DESTROYED, 0, ptr::null_mut()) };
    }
}

#[no_mangle]
unsafe extern "C" fn ares_getaddrinfo(
    channel: *mut c_void,
    host: *const c_char,
    _service: *const c_char,
    hints: *const Hints,
    resolved: Resolved,
    argument: *mut c_void,
) {
    let due = with(Kernel::answers_at).unwrap_or(0);
    // SAFETY: the channel is one of ours; the name ends with a NUL, and there are hints.
    unsafe {
        let host = std::ffi::CStr::from_ptr(host).to_string_lossy().into_owned();
        let asked = &mut *channel.cast::<Asked>();
        asked.0.push(Question { host, family: (*hints).family, due, resolved, argument });
    }
}

/// No services are simulated.
#[no_mangle]
unsafe extern "C" fn ares_query(
    _channel: *mut c_void,
    _name: *const c_char,
    _class: c_int,
    _kind: c_int,
    answered: Answered,
    argument: *mut c_void,
) {
    // SAFETY: each question is answered once.
    unsafe { answered(argument, NOT_FOUND, 0, ptr::null_mut(), 0) };
}

#[no_mangle]
unsafe extern "C" fn ares_process_fd(channel: *mut c_void, _readable: c_int, _writable: c_int) {
    let now = with(|kernel| kernel.now).unwrap_or(u64::MAX);
    // SAFETY: the channel is one of ours. Answers do not use it.
    let asked = unsafe { &mut *channel.cast::<Asked>() };
    let (due, left) = std::mem::take(&mut asked.0).into_iter().partition(|one| one.due <= now);
    asked.0 = left;
    for question in due {
        let (status, found) = answer_to(&question);
        // SAFETY: each question is answered once; what was found is the receiver's.
        unsafe { (question.resolved)(question.argument, status, 0, found) };
    }
}

fn answer_to(question: &Question) -> (c_int, *mut Found) {
    let none = ptr::null_mut();
    let Some(names) = with(|kernel| kernel.names.clone()) else {
        return (SERVER_FAILED, none);
    };
    with(|kernel| kernel.note(|| format!("{} is {:?}", question.host, names.addresses)));
    match names.reply {
        Reply::Failure => return (SERVER_FAILED, none),
        Reply::Silence => return (TIMED_OUT, none),
        Reply::Answer if names.host != question.host => return (NOT_FOUND, none),
        Reply::Answer if question.family == libc::AF_INET6 => return (NO_DATA, none),
        Reply::Answer if names.addresses.is_empty() => return (NO_DATA, none),
        Reply::Answer => {}
    }
    let mut next = ptr::null_mut();
    for address in names.addresses {
        // SAFETY: an address of zeros is one.
        let mut raw: libc::sockaddr_in = unsafe { mem::zeroed() };
        raw.sin_family = libc::AF_INET as libc::sa_family_t;
        raw.sin_addr.s_addr = u32::from(address).to_be();
        next = Box::into_raw(Box::new(Node {
            lifetime: names.lifetime,
            flags: 0,
            family: libc::AF_INET,
            kind: 0,
            protocol: 0,
            length: size_of::<libc::sockaddr_in>() as socklen_t,
            address: Box::into_raw(Box::new(raw)).cast(),
            next,
        }));
    }
    let found = Found { aliases: ptr::null(), nodes: next, name: ptr::null() };
    (SUCCESS, Box::into_raw(Box::new(found)))
}

#[no_mangle]
unsafe extern "C" fn ares_freeaddrinfo(found: *mut Found) {
    // SAFETY: the list was made above, and is not used any more.
    unsafe {
        let found = Box::from_raw(found);
        let mut next = found.nodes;
        while !next.is_null() {
            let node = Box::from_raw(next);
            drop(Box::from_raw(node.address.cast::<libc::sockaddr_in>()));
            next = node.next;
        }
    }
}

#[no_mangle]
unsafe extern "C" fn ares_timeout(
    channel: *mut c_void,
    most: *mut libc::timeval,
    place: *mut libc::timeval,
) -> *mut libc::timeval {
    // SAFETY: the channel is one of ours, and there is room for a time.
    unsafe {
        let asked = &*channel.cast::<Asked>();
        let Some(due) = asked.0.iter().map(|question| question.due).min() else {
            return most;
        };
        let left = due.saturating_sub(with(|kernel| kernel.now).unwrap_or(0));
        (*place).tv_sec = (left / 1_000_000) as _;
        (*place).tv_usec = (left % 1_000_000) as _;
    }
    place
}

#[no_mangle]
extern "C" fn ares_strerror(_status: c_int) -> *const c_char {
    c"the server does not answer".as_ptr()
}

#[no_mangle]
extern "C" fn ares_set_servers_ports_csv(_channel: *mut c_void, _servers: *const c_char) -> c_int {
    SUCCESS
}

#[no_mangle]
extern "C" fn ares_set_socket_configure_callback(
    _channel: *mut c_void,
    _configure: *const c_void,
    _argument: *mut c_void,
) {
}

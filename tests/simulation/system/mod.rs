//! The product's system calls, answered by the simulated kernel. The linker prefers functions of
//! this executable to those of the C library, so `os` and the event loop run unchanged, down to
//! each flag and control message. Calls on real descriptors, and all calls while no kernel is
//! [entered](enter), go to the C library.

use crate::kernel::{Errno, Event, Kernel, Kind, Passed, Process, Request, Waiting, FIRST};
use libc::{c_char, c_int, c_long, c_uint, c_ulong, c_void, size_t, sockaddr, socklen_t, ssize_t};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::{mem, ptr, slice};

macro_rules! real {
    ($name:literal, fn($($argument:ty),*) -> $result:ty) => {{
        // SAFETY: the C library has a function of this name and these arguments.
        unsafe {
            let name = concat!($name, "\0").as_ptr().cast::<c_char>();
            let found = libc::dlsym(libc::RTLD_NEXT, name);
            assert!(!found.is_null(), $name);
            mem::transmute::<*mut c_void, extern "C" fn($($argument),*) -> $result>(found)
        }
    }};
}

pub fn close_real(fd: i32) {
    let close = real!("close", fn(c_int) -> c_int);
    close(fd);
}

mod descriptors;
mod names;
mod processes;
mod readiness;
mod sockets;
mod transfer;

pub use processes::HANDOVER;

thread_local! {
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

/// Makes this the kernel of the current thread.
pub fn enter(kernel: Kernel) {
    KERNEL.with(|cell| *cell.borrow_mut() = Some(kernel));
}

/// Takes the kernel of the current thread away.
pub fn leave() -> Option<Kernel> {
    KERNEL.with(|cell| cell.borrow_mut().take())
}

/// Runs `work` on this thread's kernel; for the simulation itself.
pub fn kernel<R>(work: impl FnOnce(&mut Kernel) -> R) -> R {
    with(work).expect("a kernel was entered")
}

/// `None` if the thread has no kernel, or if the kernel itself made the call.
fn with<R>(work: impl FnOnce(&mut Kernel) -> R) -> Option<R> {
    KERNEL.with(|cell| cell.try_borrow_mut().ok()?.as_mut().map(work))
}

/// Runs a process's signal handler, as the kernel would between two instructions.
pub fn deliver_signal(process: Process, number: i32) {
    let handler = kernel(|kernel| {
        kernel.note(|| format!("signal {number} to {process}"));
        let running = kernel.processes.get(&process);
        running.and_then(|running| running.handlers.get(&number)).copied()
    });
    if let Some(handler) = handler.filter(|&handler| handler > 1) {
        kernel(|kernel| kernel.signalled = Some(process));
        // SAFETY: sigaction() was given this function for a handler without SA_SIGINFO.
        let handler: extern "C" fn(c_int) = unsafe { mem::transmute(handler) };
        handler(number);
        kernel(|kernel| kernel.signalled = None);
    }
}

fn fail(errno: Errno) -> c_int {
    // SAFETY: the place of this thread's errno.
    unsafe { *libc::__errno_location() = errno };
    -1
}

fn answer(result: Result<c_int, Errno>) -> c_int {
    result.unwrap_or_else(fail)
}

fn answer_size(result: Result<usize, Errno>) -> ssize_t {
    match result {
        Ok(size) => size as ssize_t,
        Err(errno) => fail(errno) as ssize_t,
    }
}

/// Whether a call is for the simulated kernel.
fn is_ours(fd: c_int) -> bool {
    fd >= FIRST && with(Kernel::enter_call).is_some()
}

fn is_simulated() -> bool {
    is_ours(FIRST)
}

/// Injects EINTR before a call has done anything.
fn interrupted(kernel: &mut Kernel) -> Result<(), Errno> {
    if kernel.random.once_in(kernel.faults.interrupted) {
        return Err(libc::EINTR);
    }
    Ok(())
}

/// # Safety
/// `address` is a socket address of `length` bytes.
unsafe fn read_address(address: *const sockaddr, length: socklen_t) -> Option<SocketAddrV4> {
    // SAFETY: as the caller promises.
    unsafe {
        if (length as usize) < size_of::<libc::sockaddr_in>()
            || c_int::from((*address).sa_family) != libc::AF_INET
        {
            return None;
        }
        let address = ptr::read_unaligned(address.cast::<libc::sockaddr_in>());
        let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
        Some(SocketAddrV4::new(ip, u16::from_be(address.sin_port)))
    }
}

/// # Safety
/// There is room for `length` bytes at `to`.
unsafe fn write_address(address: SocketAddrV4, to: *mut sockaddr, length: *mut socklen_t) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut raw: libc::sockaddr_in = mem::zeroed();
        raw.sin_family = libc::AF_INET as libc::sa_family_t;
        raw.sin_port = address.port().to_be();
        raw.sin_addr.s_addr = u32::from(*address.ip()).to_be();
        let size = size_of::<libc::sockaddr_in>();
        ptr::copy_nonoverlapping(
            (&raw const raw).cast::<u8>(),
            to.cast(),
            size.min(*length as usize),
        );
        *length = size as socklen_t;
    }
}

fn set_nonblocking(kernel: &mut Kernel, fd: c_int, on: bool) {
    if let Some(object) = kernel.object(fd).ok().and_then(|id| kernel.objects.get_mut(&id)) {
        object.nonblocking = on;
    }
}

/// Reports a call on a blocking descriptor: the simulation has one thread, so nothing may wait.
fn must_not_block(kernel: &mut Kernel, fd: c_int, flags: c_int, call: &str) {
    let id = kernel.object(fd).unwrap_or(0);
    let blocks = kernel.objects.get(&id).is_some_and(|object| !object.nonblocking);
    if blocks && flags & libc::MSG_DONTWAIT == 0 {
        kernel.violated(format!("{call} of {fd} (#{id}) would block the process"));
    }
}

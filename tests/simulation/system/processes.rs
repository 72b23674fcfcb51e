//! System calls for processes, signals and clocks.

use super::*;
use std::ffi::CStr;

/// The environment variable by which an image of the broker hands over to the next one.
pub const HANDOVER: &str = "TCPRELAY_HANDOVER";

#[no_mangle]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let offset =
        |kernel: &Kernel| if clock == libc::CLOCK_REALTIME { kernel.wall_offset } else { 0 };
    let Some((now, offset)) = with(|kernel| (kernel.now, offset(kernel))) else {
        let real = real!("clock_gettime", fn(libc::clockid_t, *mut libc::timespec) -> c_int);
        return real(clock, time);
    };
    // SAFETY: clock_gettime(2) is given room for the time.
    unsafe {
        (*time).tv_sec = ((now / 1_000_000) as i64 + offset) as _;
        (*time).tv_nsec = (now % 1_000_000 * 1000) as _;
    }
    0
}

#[no_mangle]
unsafe extern "C" fn clock_nanosleep(
    clock: libc::clockid_t,
    flags: c_int,
    time: *const libc::timespec,
    left: *mut libc::timespec,
) -> c_int {
    // SAFETY: clock_nanosleep(2) is given a time.
    let microseconds = unsafe { (*time).tv_sec as u64 * 1_000_000 + (*time).tv_nsec as u64 / 1000 };
    if with(|kernel| kernel.now += microseconds).is_some() {
        return 0;
    }
    let real = real!(
        "clock_nanosleep",
        fn(libc::clockid_t, c_int, *const libc::timespec, *mut libc::timespec) -> c_int
    );
    real(clock, flags, time, left)
}

#[no_mangle]
extern "C" fn fork() -> c_int {
    if !is_simulated() {
        return real!("fork", fn() -> c_int)();
    }
    answer(kernel(|kernel| kernel.fork().map(|child| child as c_int)))
}

#[no_mangle]
unsafe extern "C" fn waitpid(pid: c_int, status: *mut c_int, flags: c_int) -> c_int {
    if !is_simulated() {
        return real!("waitpid", fn(c_int, *mut c_int, c_int) -> c_int)(pid, status, flags);
    }
    match kernel(|kernel| kernel.wait_for_child(Process::try_from(pid).ok())) {
        Ok(Some((child, how))) => {
            // SAFETY: waitpid(2) is given room for the status.
            unsafe { *status = how };
            child as c_int
        }
        Ok(None) => 0,
        Err(errno) => fail(errno),
    }
}

#[no_mangle]
extern "C" fn kill(pid: c_int, number: c_int) -> c_int {
    if !is_simulated() {
        return real!("kill", fn(c_int, c_int) -> c_int)(pid, number);
    }
    kernel(|kernel| {
        kernel.note(|| format!("kill {pid} {number}"));
        kernel.requests.push(Request::Signal { process: pid as Process, number });
    });
    0
}

#[no_mangle]
extern "C" fn killpg(group: c_int, number: c_int) -> c_int {
    if !is_simulated() {
        return real!("killpg", fn(c_int, c_int) -> c_int)(group, number);
    }
    // Those that lead a group have no children here.
    kill(group, number)
}

#[no_mangle]
unsafe extern "C" fn execve(
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    if !is_simulated() {
        let real =
            real!("execve", fn(*const c_char, *const *const c_char, *const *const c_char) -> c_int);
        return real(path, arguments, environment);
    }
    let mut handed_over = String::new();
    // SAFETY: execve(2) is given a list of strings that ends with a null pointer.
    unsafe {
        let mut next = environment;
        while !(*next).is_null() {
            let entry = CStr::from_ptr(*next).to_string_lossy();
            if let Some((_, text)) = entry.strip_prefix(HANDOVER).and_then(|e| e.split_once('=')) {
                handed_over.push_str(text);
            }
            next = next.add(1);
        }
    }
    fail(kernel(|kernel| kernel.execute(handed_over)))
}

#[no_mangle]
unsafe extern "C" fn sigaction(
    number: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    if !is_simulated() {
        let real =
            real!("sigaction", fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int);
        return real(number, new, old);
    }
    // SAFETY: sigaction(2) is given an action, and room for one, or null.
    unsafe {
        if let Some(new) = new.as_ref() {
            let handler = new.sa_sigaction;
            kernel(|kernel| kernel.running().handlers.insert(number, handler));
        }
        if !old.is_null() {
            *old = mem::zeroed();
        }
    }
    0
}

/// Hash tables and balancing draw their seeds here, so that a run is the same every time.
#[no_mangle]
unsafe extern "C" fn getrandom(data: *mut c_void, size: size_t, _flags: c_uint) -> ssize_t {
    // SAFETY: getrandom(2) is given a buffer.
    unsafe { data.cast::<u8>().write_bytes(0x5a, size) };
    size as ssize_t
}

#[no_mangle]
extern "C" fn getpid() -> c_int {
    match with(|kernel| kernel.current) {
        Some(process) => process as c_int,
        None => real!("getpid", fn() -> c_int)(),
    }
}

#[no_mangle]
extern "C" fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int {
    if is_simulated() {
        if option == libc::PR_SET_PDEATHSIG {
            kernel(|kernel| kernel.running().parent_signal = Some(a as i32));
        }
        return 0;
    }
    real!("prctl", fn(c_int, c_ulong, c_ulong, c_ulong, c_ulong) -> c_int)(option, a, b, c, d)
}

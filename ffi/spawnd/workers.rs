//! mavis/spawnd_headers.h: the worker processes of a broker that C code builds.
//!
//! # Safety
//! As for the module above.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::overload::resume;
use super::serve::{forget_listener, forget_worker, watch};
use crate::channel::protocol::{FromWorker, ACCEPT};
use crate::ffi::io_sched::{io_close, io_sched_drop};
use crate::ffi::{bytes, guard, scm, setproctitle};
use crate::os::process::{self, exit, Descriptors, Identity, Program};
use crate::os::spawnd_data::{self, bit, SpawndContext};
use crate::os::{self, channel, common_data, log};
use std::ffi::{c_char, c_int, c_void, OsStr, OsString};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;

/// A text of the variable.
unsafe fn field(text: *const c_char) -> Option<OsString> {
    // SAFETY: null or NUL-terminated, as C code keeps it.
    unsafe { bytes(text) }.map(|text| OsStr::from_bytes(text).to_owned())
}

/// The program of a worker, and how it is called; `None` if none is set.
fn program() -> Option<Program> {
    let data = spawnd_data::address();
    let mut arguments: Vec<OsString> = Vec::new();
    if common_data::version_only() != 0 {
        arguments.push("-v".into());
    }
    let parse_only = common_data::parse_only() != 0;
    if parse_only {
        arguments.push("-P".into());
    }
    if common_data::debug() != 0 {
        arguments.extend(["-d".into(), common_data::debug().to_string().into()]);
    }
    if common_data::debug_stderr() != 0 {
        arguments.push("-D".into());
    }
    let some = |id: u32| (id != 0 && !parse_only).then_some(id);
    // SAFETY: the variable lives as long as the process; its fields are copied.
    unsafe {
        // An id stands behind a configuration.
        if let Some(configuration) = field((*data).child_config) {
            arguments.push(configuration);
            arguments.extend(field((*data).child_id));
        }
        Some(Program {
            path: PathBuf::from(field((*data).child_path)?),
            arguments,
            identity: Identity { uid: some((*data).uid), gid: some((*data).gid) },
            directory: field((*data).cwd).filter(|_| !parse_only).map(PathBuf::from),
            environment: None,
            group: false,
        })
    }
}

/// `int spawnd_spawn_child(pid_t *)`: starts a worker. Returns the broker's end of its channel, or
/// -1.
#[no_mangle]
pub unsafe extern "C" fn spawnd_spawn_child(pid: *mut libc::pid_t) -> c_int {
    guard(-1, || {
        let Some(program) = program() else {
            log::braked(log::Kind::Worker, || "no program to start workers with".to_owned());
            return -1;
        };
        let (ours, theirs) = match channel::pair() {
            Ok(ends) => ends,
            Err(error) => {
                log::braked(log::Kind::Worker, || format!("socketpair: {}", os::reason(&error)));
                return -1;
            }
        };
        channel::refuse_descriptors(&ours);
        // SAFETY: the variable lives as long as the process; the field is copied.
        let size = unsafe { (*spawnd_data::address()).scm_bufsize };
        if size > 0 {
            for end in [&ours, &theirs] {
                if let Err(error) = channel::set_buffer_sizes(end, size) {
                    log::braked(log::Kind::Worker, || {
                        format!("tcp bufsize: {}", os::reason(&error))
                    });
                }
            }
        }
        let descriptors = Descriptors { stdin: theirs, stderr: None, kept: None };
        match process::spawn(&program, descriptors, log::message) {
            Ok(started) => {
                // SAFETY: the pointer is null or writable.
                if let Some(pid) = unsafe { pid.as_mut() } {
                    *pid = started;
                }
                ours.into_raw_fd()
            }
            Err(error) => {
                log::braked(log::Kind::Worker, || format!("fork: {}", os::reason(&error)));
                -1
            }
        }
    })
}

/// `void spawnd_add_child(void)`: starts a worker, if there may be one more.
#[no_mangle]
pub extern "C" fn spawnd_add_child() {
    guard((), || {
        if common_data::servers_cur() >= common_data::servers_max() {
            return;
        }
        let mut pid = 0;
        // SAFETY: the pointer is to a local variable.
        let fd = unsafe { spawnd_spawn_child(&mut pid) };
        if fd < 0 {
            return;
        }
        let server = spawnd_data::new_context(common_data::io());
        // SAFETY: the context has just been made.
        unsafe {
            ((*server).pid, (*server).r#fn) = (pid, fd);
            let now = common_data::clock();
            (*server).tv.tv_sec = (now / 1_000_000) as _;
            (*server).tv.tv_usec = (now % 1_000_000) as _;
            let mut servers = spawnd_data::servers();
            servers.push(server);
            spawnd_data::set_servers(&servers);
            watch(server, received);
        }
    });
}

/// A worker has sent something, or is gone.
unsafe extern "C" fn received(server: *mut SpawndContext, fd: c_int) {
    let mut buffer = [0u64; ACCEPT / 8];
    let size = size_of_val(&buffer);
    let start: *mut c_void = buffer.as_mut_ptr().cast();
    // SAFETY: the buffer has room for what is said; the field is null or a function of this type;
    // the loop gives back the context that was registered.
    unsafe {
        let function = common_data::scm_receive();
        let receive = match function.is_null() {
            true => scm::scm_recv_msg,
            false => std::mem::transmute::<*const c_void, scm::Receive>(function),
        };
        if receive(fd, start, size, ptr::null_mut()) != 0 {
            return spawnd_cleanup_internal(server, fd);
        }
        let message = std::slice::from_raw_parts(start.cast_const().cast::<u8>(), size);
        guard((), || understood(server, message));
    }
}

unsafe fn understood(server: *mut SpawndContext, message: &[u8]) {
    let Ok(message) = FromWorker::decode(message) else {
        return;
    };
    // SAFETY: as the caller promises.
    unsafe {
        match message {
            FromWorker::Done(count) => {
                let count = c_int::try_from(count).unwrap_or(c_int::MAX).min((*server).r#use);
                (*server).r#use -= count;
                common_data::set_users_cur(common_data::users_cur() - count);
                resume();
                setproctitle::set_proctitle(1);
            }
            FromWorker::Dying => spawnd_cleanup_internal(server, (*server).r#fn),
            FromWorker::BadConfiguration => {
                log::message("Child reported fatal configuration problem. Exiting.");
                std::process::exit(exit::CONFIGURATION);
            }
            FromWorker::Max(most) => {
                if most > 0 && common_data::users_max() > most {
                    common_data::set_users_max(most);
                    log::braked(log::Kind::Channel, || {
                        format!("child limits maximum number of users to {most}")
                    });
                    setproctitle::set_proctitle(1);
                }
            }
            FromWorker::KeepAlive => {}
            FromWorker::Hello(_) => {
                log::braked(log::Kind::Channel, || "Child used unknown message type 64".to_owned())
            }
            FromWorker::Unknown(number) => {
                log::braked(log::Kind::Channel, || {
                    format!("Child used unknown message type {number}")
                });
            }
        }
    }
}

/// `void spawnd_cleanup_internal(struct spawnd_context *, int fd)`: closes and frees a listener or
/// worker, wherever it is noted.
#[no_mangle]
pub unsafe extern "C" fn spawnd_cleanup_internal(context: *mut SpawndContext, _fd: c_int) {
    // SAFETY: as the caller promises; it is not used afterwards.
    guard((), || unsafe {
        if context.is_null() {
            return;
        }
        let io = (*context).io.cast_const().cast();
        io_sched_drop(io, context.cast());
        if (*context).r#fn >= 0 {
            io_close(io, (*context).r#fn);
        }
        let without = |mut all: Vec<*mut SpawndContext>| {
            let place = all.iter().position(|&other| other == context)?;
            Some((place, all.swap_remove(place), all))
        };
        if (*context).bits & bit::LISTENER != 0 {
            if let Some((.., listeners)) = without(spawnd_data::listeners()) {
                spawnd_data::set_listeners(&listeners);
            }
            forget_listener(context);
        } else {
            if let Some((.., servers)) = without(spawnd_data::servers()) {
                common_data::set_users_cur(common_data::users_cur() - (*context).r#use);
                forget_worker(context);
                spawnd_data::set_servers(&servers);
                resume();
            }
            setproctitle::set_proctitle(1);
        }
        spawnd_data::free_context(context);
    });
}

/// `void spawnd_adjust_tracking(int old, int new)`: the worker at place `old` is at `new` now; gone
/// if that is negative. Workers are remembered by their process, so that only the latter matters.
#[no_mangle]
pub extern "C" fn spawnd_adjust_tracking(old: c_int, new: c_int) {
    guard((), || {
        let servers = spawnd_data::servers();
        let server = usize::try_from(old).ok().and_then(|place| servers.get(place));
        if let Some(&server) = server.filter(|server| new < 0 && !server.is_null()) {
            // SAFETY: the array has contexts.
            unsafe { forget_worker(server) };
        }
    });
}

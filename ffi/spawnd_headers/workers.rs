//! mavis/spawnd_headers.h: the worker processes of a broker that C code builds.
use super::overload::resume;
use super::serve::{close, forget_listener, forget_worker, watch};
use crate::channel::protocol::{FromWorker, ACCEPT};
use crate::event::Context;
use crate::ffi::entry::{entry, Argument, Out};
use crate::ffi::layout::common_data;
use crate::ffi::layout::spawnd_data::{self, bit, SpawndContext};
use crate::ffi::scm;
use crate::ffi::set_proctitle::{self, ACCEPTING};
use crate::os::process::{self, exit, Descriptors, Identity, Program};
use crate::os::{self, channel, log};
use std::ffi::{c_char, c_int, c_void, OsStr, OsString};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::{self, NonNull};

/// A text of the variable.
unsafe fn field(text: *const c_char) -> Option<OsString> {
    // SAFETY: null or NUL-terminated, as C code keeps it.
    unsafe { <&[u8]>::take(text) }.map(|text| OsStr::from_bytes(text).to_owned())
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

/// Starts a worker, and gives the broker's end of its channel.
fn spawn_child() -> Option<(libc::pid_t, OwnedFd)> {
    let Some(program) = program() else {
        log::braked(log::Kind::Worker, || "no program to start workers with".to_owned());
        return None;
    };
    let (ours, theirs) = match channel::pair() {
        Ok(ends) => ends,
        Err(error) => {
            log::braked(log::Kind::Worker, || format!("socketpair: {}", os::reason(&error)));
            return None;
        }
    };
    channel::refuse_descriptors(&ours);
    // SAFETY: the variable lives as long as the process; the field is copied.
    let size = unsafe { (*spawnd_data::address()).scm_bufsize };
    if size > 0 {
        for end in [&ours, &theirs] {
            if let Err(error) = channel::set_buffer_sizes(end, size) {
                log::braked(log::Kind::Worker, || format!("tcp bufsize: {}", os::reason(&error)));
            }
        }
    }
    let descriptors = Descriptors { stdin: theirs, stderr: None, kept: None };
    match process::spawn(&program, descriptors, log::message) {
        Ok(started) => Some((started, ours)),
        Err(error) => {
            log::braked(log::Kind::Worker, || format!("fork: {}", os::reason(&error)));
            None
        }
    }
}

/// Starts a worker, if there may be one more.
pub(super) fn add_child() {
    if common_data::servers_cur() >= common_data::servers_max() {
        return;
    }
    let Some((pid, channel)) = spawn_child() else {
        return;
    };
    let server = spawnd_data::new_context(common_data::io());
    // SAFETY: the context has just been made.
    unsafe {
        ((*server).pid, (*server).r#fn) = (pid, channel.into_raw_fd());
        let now = common_data::clock();
        (*server).tv.tv_sec = (now / 1_000_000) as _;
        (*server).tv.tv_usec = (now % 1_000_000) as _;
        let mut servers = spawnd_data::servers();
        servers.push(server);
        spawnd_data::set_servers(&servers);
        watch(server, received);
    }
}

entry! {
    /// `int spawnd_spawn_child(pid_t *)`: starts a worker. Returns the broker's end of its channel,
    /// or -1.
    #[otherwise(-1)]
    pub fn spawnd_spawn_child(pid: Out<libc::pid_t>) -> c_int {
        match spawn_child() {
            Some((started, channel)) => {
                pid.put(started);
                channel.into_raw_fd()
            }
            None => -1,
        }
    }

    /// `void spawnd_add_child(void)`: starts a worker, if there may be one more.
    pub fn spawnd_add_child() {
        add_child();
    }

    /// A worker has sent something, or is gone.
    fn received(server: NonNull<SpawndContext>, fd: c_int) {
        // SAFETY: the loop gives back the context that was registered.
        unsafe { receive(server.as_ptr(), fd) };
    }

    /// `void spawnd_cleanup_internal(struct spawnd_context *, int fd)`: closes and frees a listener
    /// or worker, wherever it is noted.
    pub fn spawnd_cleanup_internal(context: NonNull<SpawndContext>, _fd: c_int) {
        // SAFETY: the context is one, and not used afterwards.
        unsafe { clean_up(context.as_ptr()) };
    }

    /// `void spawnd_adjust_tracking(int old, int new)`: the worker at place `old` is at `new` now;
    /// gone if that is negative. Workers are remembered by their process, so that only the latter
    /// matters.
    pub fn spawnd_adjust_tracking(old: c_int, new: c_int) {
        let servers = spawnd_data::servers();
        let server = usize::try_from(old).ok().and_then(|place| servers.get(place));
        if let Some(&server) = server.filter(|server| new < 0 && !server.is_null()) {
            // SAFETY: the array has contexts.
            unsafe { forget_worker(server) };
        }
    }
}

/// Takes a message of a worker.
unsafe fn receive(server: *mut SpawndContext, fd: c_int) {
    let mut buffer = [0u64; ACCEPT / 8];
    let size = size_of_val(&buffer);
    let start: *mut u8 = buffer.as_mut_ptr().cast();
    // SAFETY: the buffer has room for what is said; the field is null or a function of this type;
    // the loop gives back the context that was registered.
    unsafe {
        let function = common_data::scm_receive();
        let receive = match function.is_null() {
            true => scm::scm_recv_msg,
            false => std::mem::transmute::<*const c_void, scm::Receive>(function),
        };
        if receive(fd, start, size, ptr::null_mut()) != 0 {
            return clean_up(server);
        }
        let message = std::slice::from_raw_parts(start.cast_const(), size);
        understood(server, message);
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
                set_proctitle::show(ACCEPTING);
            }
            FromWorker::Dying => clean_up(server),
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
                    set_proctitle::show(ACCEPTING);
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

/// Closes and frees a listener or worker, wherever it is noted.
pub(super) unsafe fn clean_up(context: *mut SpawndContext) {
    // SAFETY: as the caller promises; it is not used afterwards.
    unsafe {
        let io = (*context).io.cast_const().cast();
        Context::with(io, |events| events.foreign_drop(context.cast()));
        close(context);
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
            set_proctitle::show(ACCEPTING);
        }
        spawnd_data::free_context(context);
    }
}

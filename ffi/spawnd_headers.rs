//! mavis/spawnd_headers.h: parts of the broker, for C programs that build a broker of their own.
//! `broker::hosted` has what each part does; `state.rs` connects it to the C program's variables.
//!
//! Contexts are null or came from `spawnd_new_context`. C code calls this library from one thread.

mod state;

use super::entry::{entry, Out};
use super::layout::common_data;
use super::layout::sockaddr::SockaddrUnion;
use super::layout::spawnd_data::{self, SpawndContext};
use super::layout::spawnd_settings as settings;
use super::mavis::reading::Reader;
use crate::config::acl::Acl;
use crate::config::broker;
use crate::os::log::Severity;
use crate::os::malloc::Text;
use crate::os::process;
use state::State;
use std::ffi::{c_char, c_int, c_void};
use std::os::fd::IntoRawFd;
use std::ptr::{self, NonNull};

entry! {
    /// `void spawnd_parse_decls(struct sym *)`: reads the broker's section, up to its closing brace
    /// or the end of the text.
    #[otherwise(0)]
    pub(in crate::ffi) fn spawnd_parse_decls(sym: Reader) -> c_int {
        sym.read(|parser| {
            let mut broker = settings::current();
            broker::parse_into(parser, &mut broker)?;
            let spawn = &mut broker.spawn;
            spawn.instances_min = spawn.instances_min.min(spawn.instances_max);
            common_data::publish(&std::mem::take(&mut parser.common));
            if broker.clients.are_set() {
                let text = "client: this program does not apply limits of clients".to_owned();
                parser.message(Severity::WARNING, text);
            }
            settings::publish(&broker);
            state::set_acl(Acl::new(broker.acl));
            Ok(())
        })
    }

    /// `struct spawnd_context *spawnd_new_context(struct io_context *io)`: a context without a
    /// descriptor, allocated with malloc(3).
    #[otherwise(ptr::null_mut())]
    pub fn spawnd_new_context(io: *mut c_void) -> *mut SpawndContext {
        spawnd_data::new_context(io)
    }

    /// `int spawnd_note_listener(sockaddr_union *sa, void *context)`: adds the context to the
    /// listeners, with this address; if it is a listener already, adds a copy. Returns 0.
    #[otherwise(0)]
    pub fn spawnd_note_listener(address: &SockaddrUnion, context: NonNull<SpawndContext>) -> c_int {
        // SAFETY: the context is valid.
        unsafe { spawnd_data::add_listener(context.as_ptr(), address) };
        0
    }

    /// `int spawnd_acl_check(sockaddr_union *)`: not 0 if the access list lets the address connect;
    /// an address that is not IP always may.
    #[otherwise(0)]
    pub fn spawnd_acl_check(address: Option<&SockaddrUnion>) -> c_int {
        match address.and_then(SockaddrUnion::scoped_ip) {
            Some(address) => state::permits(address).into(),
            None => -1,
        }
    }

    /// `void spawnd_bind_listener(struct spawnd_context *, int)`: opens the socket of a listener,
    /// unless it has one, listens, and watches it. On failure it tries again later, if a retry
    /// delay is configured; without one, the process ends once all listeners have failed.
    pub fn spawnd_bind_listener(context: NonNull<SpawndContext>, _fd: c_int) {
        // SAFETY: the context is valid.
        unsafe { state::bind(context.as_ptr()) };
    }

    /// `void spawnd_accepted(struct spawnd_context *, int fd)`: callback of a listener: accepts a
    /// connection or receives a datagram, and gives it to a worker.
    pub fn spawnd_accepted(context: NonNull<SpawndContext>, fd: c_int) {
        // SAFETY: the context is valid, and the descriptor its own.
        unsafe { state::accept(context.as_ptr(), fd) };
    }

    /// `int spawnd_spawn_child(pid_t *)`: starts a worker process. Returns the broker's end of its
    /// channel, or -1.
    #[otherwise(-1)]
    pub fn spawnd_spawn_child(pid: Out<libc::pid_t>) -> c_int {
        match state::start_worker() {
            Some(started) => {
                pid.put(started.pid);
                started.channel.into_raw_fd()
            }
            None => -1,
        }
    }

    /// `void spawnd_add_child(void)`: starts a worker, unless there are as many as configured, and
    /// adds it to the workers.
    pub fn spawnd_add_child() {
        state::add_worker();
    }

    /// Callback of a worker's channel: the worker has sent a message, or has gone.
    fn received(server: NonNull<SpawndContext>, fd: c_int) {
        // SAFETY: the loop passes the context that was registered.
        unsafe { state::receive(server.as_ptr(), fd) };
    }

    /// `void spawnd_cleanup_internal(struct spawnd_context *, int fd)`: closes and frees a listener
    /// or worker, and takes it off the list it is in.
    pub fn spawnd_cleanup_internal(context: NonNull<SpawndContext>, _fd: c_int) {
        // SAFETY: the context is valid, and not used afterwards.
        unsafe { state::remove(context.as_ptr()) };
    }

    /// `void spawnd_adjust_tracking(int old, int new)`: the worker at index `old` has moved to
    /// `new`, or has gone if `new` is negative. The stickiness caches name workers by process id,
    /// so only a worker that has gone changes anything.
    pub fn spawnd_adjust_tracking(old: c_int, new: c_int) {
        let servers = spawnd_data::servers();
        let server = usize::try_from(old).ok().and_then(|place| servers.get(place));
        if let Some(&server) = server.filter(|server| new < 0 && !server.is_null()) {
            // SAFETY: the array has contexts.
            unsafe { state::forget_worker(server) };
        }
    }

    /// `void spawnd_setup_signals(void)`: catches SIGHUP, SIGINT, SIGTERM and SIGUSR1, and ignores
    /// SIGPIPE. A caught signal is acted upon by [`spawnd_process_signals`], and by the loop
    /// `common_data.io`, if there is one.
    pub fn spawnd_setup_signals() {
        state::watch_signals(noted);
    }

    /// Callback of the loop of C code: a signal was caught.
    fn noted(_context: *mut c_void, _fd: c_int) {
        State::process_signals();
    }

    /// `void spawnd_process_signals(void)`: acts upon the signals caught since the last call.
    pub fn spawnd_process_signals() {
        State::process_signals();
    }

    /// `void get_exec_path(char **path, char *dflt)`: sets `*path` to a copy of `dflt` if that has
    /// a slash; otherwise to the path of this process's executable; or to a copy of `dflt` if that
    /// path is unknown. To be freed with free(3).
    pub fn get_exec_path(path: &mut *mut c_char, default: Option<&[u8]>) {
        *path = Text::new(&process::program_path(default.unwrap_or_default())).into_raw();
    }
}

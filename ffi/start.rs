//! mavis/scm.h, mavis/mavis.h: the start of a program.

use super::guard;
use super::scm::{
    fakescm_recv_msg, fakescm_send_msg, scm_fatal, scm_recv_msg, scm_send_msg, Receive, Send,
};
use crate::config::environment::publish_name;
use crate::os::process::{self, exit};
use crate::os::{common_data, log, socket};
use crate::program::{self, Hosted, HostedWorker};
use std::ffi::{c_char, c_int, c_void, CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Where C code finds functions in `common_data`.
pub(super) fn set_functions() {
    let (send, receive): (Send, Receive) = (scm_send_msg, scm_recv_msg);
    common_data::set_scm_send(send as *const c_void);
    common_data::set_scm_receive(receive as *const c_void);
}

/// `void init_common_data(void)`: what everything starts from.
#[no_mangle]
pub extern "C" fn init_common_data() {
    guard((), || {
        common_data::start();
        let terminal = process::stderr_is_terminal();
        common_data::set_debug_terminal(terminal.into());
        common_data::set_fonts(terminal);
        common_data::set_process_id(process::id());
        let tools = ["/usr/bin/gcore", "/usr/local/bin/gcore"];
        if let Some(tool) = tools.into_iter().find(|tool| process::is_executable(Path::new(tool))) {
            common_data::set_core_command(tool);
        }
        set_functions();
        super::log::logopen();
    });
}

/// Tells a program of the C kind what its broker wants of it.
fn enter_worker(worker: &HostedWorker) {
    common_data::set_program_name(&worker.name);
    publish_name(&worker.configuration);
    if let Some(section) = &worker.section {
        common_data::set_section(section);
    }
}

/// The arguments of a C program.
///
/// # Safety
/// `argv` has `argc` NUL-terminated strings.
unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    let count = usize::try_from(argc).unwrap_or(0);
    let argument = |index| {
        // SAFETY: as the caller promises.
        let text = unsafe { CStr::from_ptr(*argv.add(index)) };
        OsString::from_vec(text.to_bytes().to_vec())
    };
    (0..count).map(argument).collect()
}

/// `void scm_main(int argc, char **argv, char **envp)`: the start of a program that is broker and
/// worker. Returns in the worker, with `common_data` filled in; the broker ends here, unless it is
/// one process with its worker.
///
/// # Safety
/// As for main().
#[no_mangle]
pub unsafe extern "C" fn scm_main(argc: c_int, argv: *mut *mut c_char, envp: *mut *mut c_char) {
    init_common_data();
    // SAFETY: as the caller promises.
    unsafe {
        common_data::set_argv(argv, envp);
        if !matches!(socket::inspect(0), socket::Inherited::Channel) {
            spawnd_main(argc, argv, envp, c"spawnd".as_ptr());
            return;
        }
        let arguments = arguments(argc, argv.cast_const().cast());
        guard((), || match program::hosted_worker(arguments) {
            Ok(worker) => enter_worker(&worker),
            Err(status) => std::process::exit(status),
        });
    }
}

/// `int spawnd_main(int argc, char **argv, char **envp, char *id)`: the broker. Returns only if it
/// is one process with its worker; `common_data.io` is its loop then.
///
/// # Safety
/// As for main(); `id` is null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn spawnd_main(
    argc: c_int,
    argv: *mut *mut c_char,
    _envp: *mut *mut c_char,
    id: *const c_char,
) -> c_int {
    // SAFETY: as the caller promises.
    let (arguments, id) = unsafe { (arguments(argc, argv.cast_const().cast()), super::text(id)) };
    guard(1, || match program::hosted_broker(arguments, id) {
        Hosted::Ended(status) => std::process::exit(status),
        Hosted::Recursive => scm_fatal(),
        Hosted::Single { context, worker } => {
            common_data::set_io(context);
            common_data::set_single_process(1);
            let (send, receive): (Send, Receive) = (fakescm_send_msg, fakescm_recv_msg);
            common_data::set_scm_send(send as *const c_void);
            common_data::set_scm_receive(receive as *const c_void);
            enter_worker(&worker);
            0
        }
    })
}

/// `void common_usage(void)`: shows the usage, and ends the process.
#[no_mangle]
pub extern "C" fn common_usage() {
    guard((), || log::stderr(&program::usage(&common_data::program_name().unwrap_or_default())));
    std::process::exit(exit::USAGE);
}

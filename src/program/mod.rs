//! The programs: what a process is, how it starts, and how it exits.

#![forbid(unsafe_code)]

mod broker;
mod check;
mod hosted;
mod logs;
mod mavistest;
mod monitor;
mod next_image;
pub mod options;
mod own;
pub mod report;
mod sandbox;
mod section;
mod security;
mod service;
mod signer;
mod single;
pub mod system;
mod worker;

use crate::broker::SIGNER_VARIABLE;
use crate::channel::protocol::{MONITOR_ROLE, ROLE_VARIABLE};
use crate::config::common::{known_debug_bits, Common};
use crate::config::rules::UnknownNames;
use crate::event::{Choice, Loop};
use crate::operator;
use crate::os::process::{self, exit};
use crate::os::signals::{self, LOG_SIGNAL};
use crate::os::socket::{self, Inherited};
use crate::os::{common_data, crash, log, title, tls as library};
use options::{Options, Stop};
use report::Report;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Once;

pub use hosted::{hosted_broker, hosted_loop, hosted_worker, serve_foreign, Hosted};
pub use single::HostedWorker;

/// Which program this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Broker and worker in one executable.
    Tcprelay,
    /// The broker alone.
    Spawnd,
    /// mavistest: sends queries through a chain of modules.
    Mavistest,
    /// tcprelayctl: asks and changes a running relay.
    Tcprelayctl,
    /// Another program that uses the library: a broker and its own worker in one executable.
    Foreign {
        /// The name of the broker's section.
        broker: String,
    },
}

/// What a process knows about itself.
struct Process {
    kind: Kind,
    /// Base name of argv\[0].
    name: String,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

/// The main function of the programs; `arguments` begin with argv\[0]. Returns the exit status.
pub fn main(kind: Kind, arguments: Vec<OsString>) -> i32 {
    process::sanitize_descriptors();
    if kind == Kind::Tcprelayctl {
        return operator::main(&arguments, env!("CARGO_PKG_VERSION"));
    }
    if kind != Kind::Mavistest {
        library::protect_keys();
        let traceable = std::env::var_os("TCPRELAY_TRACEABLE");
        if traceable.is_none_or(|value| value.is_empty()) {
            process::forbid_inspection();
        }
    }
    let first = arguments.first().cloned().unwrap_or_else(|| "tcprelay".into());
    let name = Path::new(&first)
        .file_name()
        .map_or_else(|| "tcprelay".to_owned(), |name| name.to_string_lossy().into_owned());
    common_data::set_program_name(&name);
    log::open(&name, std::env::var_os("TCPRELAY_LOG_STDERR").is_some());
    let process = Process { kind, name, arguments, environment: std::env::vars_os().collect() };
    if process.kind == Kind::Mavistest {
        return mavistest::main(&process.arguments);
    }
    title::prepare();
    if process.kind == Kind::Tcprelay && std::env::var_os(SIGNER_VARIABLE).is_some() {
        return signer::main(&process);
    }
    match socket::inspect(0) {
        Inherited::Channel => {
            signals::catch_held(LOG_SIGNAL);
            if is_monitor() {
                monitor::main(&process)
            } else {
                worker::main(&process)
            }
        }
        input @ (Inherited::Listener | Inherited::Other) => broker::main(&process, input),
    }
}

/// True if our broker has started this process as its monitor.
fn is_monitor() -> bool {
    let is_monitor = std::env::var_os(ROLE_VARIABLE).is_some_and(|role| role == MONITOR_ROLE);
    std::env::remove_var(ROLE_VARIABLE);
    is_monitor
}

impl Process {
    /// Reads the command line. On a mistake, shows the usage and returns the exit status.
    fn options(&self, letters: &str) -> Result<Options, i32> {
        let program = self.arguments.first().map_or("".into(), |name| name.to_string_lossy());
        let arguments = self.arguments.get(1..).unwrap_or(&[]);
        let options = options::parse(&program, letters, arguments).map_err(|stop| match stop {
            Stop::Help => answer(&usage_text(&self.name, ["", ""])),
            Stop::Version => answer(&format!("{} version {}\n", self.name, version())),
            Stop::Usage(complaint) => {
                if !complaint.is_empty() {
                    log::stderr(&format!("{complaint}\n"));
                }
                log::stderr(&self.usage());
                exit::USAGE
            }
        })?;
        if !options.parse_only && !options.version {
            log::serve();
        }
        Ok(options)
    }

    fn report(&self, options: &Options) -> Report {
        common_data::set_debug(known_debug_bits(options.debug));
        let parse_only = options.parse_only || options.version;
        let terminal = process::stderr_is_terminal();
        // Modules look at these.
        common_data::set_parse_only(parse_only.into());
        common_data::set_debug_stderr(options.debug_to_stderr.into());
        common_data::set_debug_terminal(terminal.into());
        let debug_to_stderr = options.debug_to_stderr;
        let unknown_names =
            if self.is_foreign() { UnknownNames::Ignored } else { UnknownNames::Refused };
        Report { parse_only, debug_to_stderr, terminal, unknown_names }
    }

    /// True for another program that uses the library.
    fn is_foreign(&self) -> bool {
        matches!(self.kind, Kind::Foreign { .. })
    }

    fn usage(&self) -> String {
        usage(&self.name)
    }

    /// argv\[0] if that is a path, otherwise the resolved path of the executable.
    fn executable(&self) -> std::path::PathBuf {
        match self.arguments.first() {
            Some(name) if name.as_bytes().contains(&b'/') => name.into(),
            _ => process::executable().unwrap_or_else(|_| "tcprelay".into()),
        }
    }

    fn print_version(&self) {
        log::stderr(&format!("{} version {}\n", self.name, version()));
    }
}

/// Answers a question on standard output; returns the exit status.
fn answer(text: &str) -> i32 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => exit::OS_ERROR,
    }
}

/// The usage of a program called `name`, for standard error.
pub fn usage(name: &str) -> String {
    let bold = if process::stderr_is_terminal() { ["\x1b[1m", "\x1b[0m"] } else { ["", ""] };
    usage_text(name, bold)
}

/// The usage, with what makes a terminal's text bold and plain.
fn usage_text(name: &str, [bold, plain]: [&str; 2]) -> String {
    format!(
        "{bold}Usage:{plain} {} [ <Options> ] <configuration file> [ <id> ]

{bold}Options:{plain}
-P                parse configuration file, then quit
-1                enable single-process (\"degraded\") mode
-v, --version     show version, then quit
-h, --help        show this text, then quit
-b                force going to background
-f                force staying in foreground
-i <child-id>     select child configuration id
-I <spawnd-id>    select spawnd configuration id
-p <pid-file>     write master process ID to the file specified
-d <debug-level>  set debugging level
-D                send debug to stderr even if it's not a TTY

{bold}Version:{plain} {}

BSD 2-clause licence. The manual is tcprelay(8), the configuration tcprelay.cfg(5).
",
        name,
        version()
    )
}

/// The version and what the program was built with.
pub fn version() -> String {
    let mut text = env!("CARGO_PKG_VERSION").to_owned();
    #[cfg(feature = "curl")]
    {
        text += "/CURL ";
        text += &crate::os::fetch::version();
    }
    text += "/";
    text += openssl::version::version();
    if cfg!(event_shims) {
        text += "/TEST-SHIMS";
    }
    text
}

/// Makes the event loop, with the mechanism that the environment names, and raises the limit of
/// descriptors. Returns the loop and the limit.
pub fn make_loop() -> Result<(Loop, u64), i32> {
    let mut events = early_loop()?;
    let limit = settle_loop(&mut events)?;
    Ok((events, limit))
}

/// A loop with the default mechanism, for modules that are loaded while the configuration is read.
/// The configuration may still name another mechanism in the environment.
fn early_loop() -> Result<Loop, i32> {
    let choice = Choice::from_setting(None);
    Loop::new(&choice).map_err(|error| mechanism_failed(&choice, &error))
}

fn mechanism_failed(choice: &Choice, error: &std::io::Error) -> i32 {
    log::message(&format!("{}: {}", choice.mechanism.name(), crate::os::reason(error)));
    exit::OS_ERROR
}

/// A loop with the mechanism that the environment names, without a word about it.
fn quiet_loop() -> Result<Loop, i32> {
    let choice = Choice::from_environment();
    Loop::new(&choice).map_err(|error| mechanism_failed(&choice, &error))
}

/// Switches a loop to the mechanism that the environment names, logs that once for each process,
/// and raises the limit of descriptors. Returns the limit.
fn settle_loop(events: &mut Loop) -> Result<u64, i32> {
    let choice = Choice::from_environment();
    if let Some(warning) = &choice.warning {
        // Workers inherit this variable, and need not repeat the warning.
        const WARNED: &str = "TCPRELAY_MECHANISM_WARNED";
        if std::env::var(WARNED).as_ref() != Ok(warning) {
            log::message(warning);
            std::env::set_var(WARNED, warning);
        }
    }
    let limit = process::raise_descriptor_limit(choice.descriptor_cap());
    events.set_mechanism(&choice).map_err(|error| mechanism_failed(&choice, &error))?;
    static ANNOUNCED: Once = Once::new();
    ANNOUNCED.call_once(|| {
        let name = choice.mechanism.name();
        log::message(&format!("{name} event notification mechanism is being used"));
    });
    Ok(limit)
}

/// Installs the handler for crashes, with what the configuration wants done.
fn install_crash_handler(common: &Common) {
    crash::install(crash::Actions {
        version: version(),
        core_directory: common.core_directory.clone(),
        core_command: common.core_command.clone(),
        debug_command: common.debug_command.clone(),
    });
}

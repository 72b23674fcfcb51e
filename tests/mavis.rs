//! The C interface of `libmavis.so`, tested from outside: headers, exports, and what the functions
//! do.
//!
//! `tests/mavis/programs` holds C programs that check one area each; `tests/mavis/modules` holds
//! modules for them to load. This driver compiles both against `compat/include` and the library,
//! and runs each program as a test of its own.
//!
//! `TCPRELAY_TEST_LIBMAVIS` names the directory of another library to test, and `MAVIS_ORIGINAL=1`
//! says that it is the C project's: the checks for its known bugs are left out then.
//! `TCPRELAY_TEST_LEGACY_MODULES` names a directory of the C project's modules to load as well.
//! With `TCPRELAY_TEST_VALGRIND=1` the programs run under valgrind, which must find nothing; with
//! `TCPRELAY_TEST_CC` and `TCPRELAY_TEST_EMULATOR` they are built for another processor.

mod common;
#[path = "mavis/interface.rs"]
mod interface;
#[path = "mavis/queries.rs"]
mod queries;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use common::left_out;
use common::modules::{self, cc, source};
use common::within;

/// How long one program may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The attributes that queries of the driver tests begin with.
const HOST: &str = "TYPE=TACPLUS;TACTYPE=HOST;USER";

/// True if the library under test is the C project's.
fn is_original() -> bool {
    env::var("MAVIS_ORIGINAL").is_ok_and(|value| value == "1")
}

/// The directory of the library under test.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let directory = match env::var_os("TCPRELAY_TEST_LIBMAVIS") {
            Some(directory) => PathBuf::from(directory),
            None => modules::library(),
        };
        let file = directory.join("libmavis.so");
        assert!(file.exists(), "{} is not there: build it first", file.display());
        directory
    })
}

/// Runs a tool; returns its output, or what went wrong.
fn try_tool(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{text}{errors}", output.status))
}

/// The same, but panics on failure.
fn tool(command: &mut Command) -> String {
    try_tool(command).unwrap_or_else(|message| panic!("{message}"))
}

/// True if this tool is installed.
fn has_tool(name: &str) -> bool {
    let mut command = Command::new(name);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The directory for everything that the tests make.
fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mavis");
        // Removed at the start, not at the end, so that failures can be examined.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("the directory for builds is writable");
        directory
    })
}

/// The directory of the modules, built once for all tests.
fn built() -> &'static Path {
    static BUILT: OnceLock<&Path> = OnceLock::new();
    BUILT.get_or_init(|| {
        let directory = scratch();
        let syslog = directory.join("syslog.so");
        let shim = source("tests/mavis/shims/syslog.c");
        tool(cc().args(["-shared", "-fPIC", "-o"]).arg(syslog).arg(shim));
        modules::build(directory, library());
        directory
    })
}

/// A compiled program, built once. One that does not compile fails only its own tests.
fn program(name: &str) -> Result<PathBuf, String> {
    type Built = BTreeMap<String, Result<PathBuf, String>>;
    static PROGRAMS_BUILT: Mutex<Built> = Mutex::new(BTreeMap::new());
    let build = || {
        let file = built().join(name);
        let source = source("tests/mavis/programs").join(format!("{name}.c"));
        let mut command = cc();
        command.arg("-o").arg(&file).arg(source);
        command.arg("-L").arg(library()).args(["-lmavis", "-ldl"]);
        if name == "ssl" {
            command.args(["-lssl", "-lcrypto"]);
        }
        try_tool(&mut command).map(|_| file)
    };
    let mut programs = PROGRAMS_BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    programs.entry(name.to_owned()).or_insert_with(build).clone()
}

/// What a program did.
struct Outcome {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Outcome {
    /// Panics unless the program exited with status 0.
    fn expect_success(&self, name: &str) {
        let Outcome { status, stdout, stderr } = self;
        assert!(status.success(), "{name}: {status}\n{stdout}{stderr}");
    }

    /// Panics unless stdout has these lines in this order; other lines may come between.
    fn expect_lines(&self, expected: &[&str]) {
        let mut lines = self.stdout.lines();
        for line in expected {
            let found = lines.any(|candidate| candidate == *line);
            assert!(found, "expected the line {line:?} in\n{}{}", self.stdout, self.stderr);
        }
    }
}

/// Runs a compiled program in a directory of its own.
fn run(name: &str, configure: impl FnOnce(&Path, &mut Command)) -> Outcome {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let program = program(name).unwrap_or_else(|message| panic!("{message}"));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = built().join(format!("{name}-{number}"));
    fs::create_dir_all(&directory).expect("the directory for files is writable");
    let file = |name: &str| directory.join(name);
    let create = |name: &str| File::create(file(name)).expect("a file can be created");
    // `crash` crashes on purpose, and valgrind hides the title that `program` sets.
    let suited = !["crash", "program"].contains(&name);
    let examined = env::var_os("TCPRELAY_TEST_VALGRIND").is_some() && suited;
    let mut command = if examined {
        let mut command = Command::new("valgrind");
        command.args(["-q", "--log-file=valgrind.%p", "--num-callers=20"]);
        // Its broker and workers are executed, so valgrind must follow them.
        if name == "service" {
            command.arg("--trace-children=yes");
        }
        command.arg(program);
        command
    } else if let Ok(emulator) = env::var("TCPRELAY_TEST_EMULATOR") {
        let mut words = emulator.split_whitespace();
        let mut command = Command::new(words.next().expect("an emulator"));
        command.args(words).arg(program);
        command
    } else {
        Command::new(program)
    };
    command
        .current_dir(&directory)
        .env("TEST_DIR", &directory)
        .env("MODULE_DIR", built())
        .env("LD_LIBRARY_PATH", library())
        .env("LD_PRELOAD", built().join("syslog.so"))
        .stdin(Stdio::null())
        .stdout(create("stdout"))
        .stderr(create("stderr"));
    configure(&directory, &mut command);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let ended = within(PATIENCE, || child.try_wait().expect("the program is a child"));
    let timed_out = ended.is_none();
    let status = ended.unwrap_or_else(|| {
        child.kill().expect("a child can be killed");
        child.wait().expect("the program is a child")
    });
    // These files need not be UTF-8.
    let text = |name: &str| {
        let bytes = fs::read(file(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let outcome = Outcome { status, stdout: text("stdout"), stderr: text("stderr") };
    assert!(!timed_out, "{name} takes too long\n{}{}", outcome.stdout, outcome.stderr);
    if examined {
        let found = findings(&directory);
        assert!(found.is_empty(), "{name}: valgrind has found\n{found}");
    }
    outcome
}

/// What valgrind reported, from its logs in this directory.
fn findings(directory: &Path) -> String {
    let mut found = String::new();
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let entry = entry.expect("a directory can be read");
        if !entry.file_name().to_string_lossy().starts_with("valgrind.") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).expect("the report is text");
        for paragraph in text.split("== \n") {
            let wrong = ["Invalid ", "uninitialised", "lost in", "overlap"];
            if wrong.iter().any(|word| paragraph.contains(word)) {
                found += paragraph;
            }
        }
    }
    found
}

/// Defines a test for each program of `tests/mavis/programs`.
macro_rules! programs {
    ($($test:ident $name:literal)*) => {
        const PROGRAMS: &[&str] = &[$($name),*];

        $(
            #[test]
            fn $test() {
                run($name, |_, _| ()).expect_success($name);
            }
        )*
    };
}

programs! {
    deferred_answers "async"
    attributes "av"
    chains_of_modules "chain"
    child_processes "child"
    raw_conditions "cond"
    red_black_trees "containers"
    crashes "crash"
    names_of_addresses "dns"
    errors_in_configurations "errors"
    event_loop "io"
    includes_and_aliases "include"
    lexer "lexer"
    messages "log"
    loops "loop"
    memory "memory"
    addresses_and_sockets "net"
    parser_helpers "parse"
    program_start "program"
    prefix_trees "radix"
    broker_messages "scm"
    scripts "script"
    small_functions "small"
    broker_internals "spawnd"
    tls "ssl"
    broker_and_workers "service"
    single_process "single"
    timers "timers"
    time_specifications "timespec"
    wire_format "wire"
}

#[test]
fn all_programs_are_run() {
    for entry in fs::read_dir(source("tests/mavis/programs")).expect("there are programs") {
        let path = entry.expect("a directory can be read").path();
        let name = path.file_stem().expect("a file has a name").to_string_lossy();
        let is_program = path.extension().is_some_and(|extension| extension == "c");
        let is_run = name == "driver" || PROGRAMS.contains(&&*name);
        assert!(!is_program || is_run, "{name} is not run");
    }
}

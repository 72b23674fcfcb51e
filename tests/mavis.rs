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

/// Runs the driver over `mavis module = …` lines, with the modules built here.
fn drive(modules: &str, options: &[&str], queries: &[String]) -> Outcome {
    drive_in(built(), modules, options, queries)
}

/// The same with modules from another directory.
fn drive_in(modules_in: &Path, modules: &str, options: &[&str], queries: &[String]) -> Outcome {
    run("driver", |directory, command| {
        let config = directory.join("driver.cfg");
        let modules = modules.replace("$WORK", &directory.display().to_string());
        let text = format!("id = test {{\nmavis path = {}\n{modules}\n}}\n", modules_in.display());
        fs::write(&config, text).expect("a configuration can be written");
        command.args(options).arg(config).arg("test").args(queries);
    })
}

/// A query about a host for each user.
fn queries(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| format!("{HOST}={user}")).collect()
}

#[test]
fn later_answers_reach_the_program() {
    for way in ["delay = 5", "delay = 1 buffer = yes"] {
        let modules = format!(
            "mavis module = echo {{ set REALM = here }}\n\
             mavis module slow = later {{ {way} user joe = ACK user bad = NAK }}"
        );
        let outcome = drive(&modules, &[], &queries(&["joe", "bad", "other"]));
        outcome.expect_success("driver");
        outcome.expect_lines(&["init 0", "send 1 1 none", "send 2 1 none", "send 3 1 none"]);
        outcome.expect_lines(&[
            "recv 1 0",
            "    USER = joe",
            "    RESULT = ACK",
            "    REALM = here",
        ]);
        outcome.expect_lines(&["recv 2 0", "    RESULT = NAK", "    IDENTITY_SOURCE = slow"]);
        outcome.expect_lines(&["recv 3 0", "    RESULT = NFD"]);
        outcome.expect_lines(&["pending 0", "dropped"]);
    }
}

#[test]
fn a_cancelled_query_is_not_answered() {
    let queries = [format!("!{HOST}=joe"), format!("{HOST}=kim")];
    let outcome = drive("mavis module = later { delay = 20 }", &[], &queries);
    outcome.expect_success("driver");
    outcome.expect_lines(&["send 1 1 none", "cancel 1 0", "recv 2 0", "pending 0", "dropped"]);
    assert!(!outcome.stdout.contains("recv 1"), "{}", outcome.stdout);
}

#[test]
fn without_an_event_loop_answers_come_at_once() {
    let outcome = drive("mavis module = later { delay = 2 }", &["-s"], &queries(&["joe"]));
    outcome.expect_success("driver");
    outcome.expect_lines(&["send 1 0", "    RESULT = ACK", "pending 0", "dropped"]);
}

/// The result of a query whose module misbehaves; the next query must be answered normally.
#[test]
fn misbehaviour_stays_with_its_query() {
    let cases: &[(&str, &[&str])] = &[
        ("silent", &["send 1 1 none", "send 2 0", "pending 1", "dropped"]),
        (
            "twice",
            &[
                "send 1 1 none",
                "send 2 0",
                "recv 1 0",
                "    RESULT = ACK",
                "recv 1 2 none",
                "pending 0",
            ],
        ),
        ("early", &["recv 1 0", "    RESULT = ACK", "send 1 1 none", "send 2 0", "pending 0"]),
        ("torn", &["send 1 1", "    USER = odd", "send 2 0", "pending 1", "dropped"]),
        ("unknown", &["send 1 77", "    RESULT = ACK", "send 2 0", "pending 0"]),
        ("negative", &["send 1 -1", "send 2 0", "pending 0"]),
        ("garbage", &["send 1 0", "    RESULT = MAYBE", "    TACTYPE = ", "send 2 0", "pending 0"]),
        ("huge", &["send 1 0", "    RESULT = ACK", "send 2 0", "pending 0"]),
        ("clear", &["send 1 0", "    RESULT = NFD", "send 2 0", "pending 0"]),
        ("steal", &["send 1 2 none", "send 2 0", "pending 0"]),
        (
            "print",
            &["this goes to stdout", "send 1 0", "    RESULT = ACK", "send 2 0", "pending 0"],
        ),
        ("leak", &["send 1 0", "    RESULT = ACK", "send 2 0", "pending 0", "dropped"]),
    ];
    for (how, lines) in cases {
        let modules = format!("mavis module = misbehave {{ mode = {how} user odd }}");
        let outcome = drive(&modules, &["-w", "300"], &queries(&["odd", "even"]));
        outcome.expect_success(how);
        outcome.expect_lines(lines);
        outcome.expect_lines(&["send 2 0", "    USER = even", "    RESULT = NFD"]);
    }
    let deaths = [("crash", Some(11), None), ("abort", Some(6), None), ("exit", None, Some(3))];
    for (how, signal, code) in deaths {
        let modules = format!("mavis module = misbehave {{ mode = {how} user odd }}");
        let outcome = drive(&modules, &[], &queries(&["even", "odd"]));
        assert_eq!((outcome.status.signal(), outcome.status.code()), (signal, code), "{how}");
        outcome.expect_lines(&["send 1 0", "    RESULT = NFD"]);
    }
}

/// A module of the C project that asks a script, between two modules of ours. The script also
/// prints lines that are no attributes; they must not be taken for TYPE.
#[test]
fn modules_of_the_c_project_are_loaded() {
    let Some(legacy) = env::var_os("TCPRELAY_TEST_LEGACY_MODULES") else {
        left_out("TCPRELAY_TEST_LEGACY_MODULES does not name a directory of C modules");
        return;
    };
    let script = built().join("backend.sh");
    let text = "#!/bin/sh\na= u=\nwhile IFS= read -r l; do case \"$l\" in\n\
                =) case $u in good) r='6 ACK' c=0;; bad) r='6 NAK' c=0;; *) r='17 unknown' c=16;; esac\n\
                printf '%s%s\\nasked about %s\\n=%d\\n' \"$a\" \"$r\" \"$u\" $c; a= u= ;;\n\
                *) case \"$l\" in '4 '*) u=${l#4 };; esac; a=\"$a$l\n\" ;;\nesac; done\n";
    fs::write(&script, text).expect("a script can be written");
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let ours = built().display();
    let modules = format!(
        "mavis path = {ours}\n\
         mavis module = log {{ }}\n\
         mavis module = echo {{ set REALM = here }}\n\
         mavis module = tee {{ path = \"$WORK/tee\" }}\n\
         mavis module script = external {{ exec = {} childs min = 1 childs max = 2 }}",
        script.display()
    );
    let query = |user: &str| format!("{HOST}={user};IPADDR=192.0.2.1");
    let queries = [query("good"), query("bad"), query("other")];
    for options in [&[][..], &["-s"]] {
        let outcome = drive_in(Path::new(&legacy), &modules, options, &queries);
        outcome.expect_success("driver");
        outcome.expect_lines(&["    USER = good", "    RESULT = ACK", "    REALM = here"]);
        outcome.expect_lines(&[
            "    USER = bad",
            "    RESULT = NAK",
            "    IDENTITY_SOURCE = script",
        ]);
        outcome.expect_lines(&["    USER = other", "    RESULT = NFD"]);
        outcome.expect_lines(&["pending 0", "dropped"]);
        for line in ["ACK: good [192.0.2.1]", "NAK: bad [192.0.2.1]", "NFD: other [192.0.2.1]"] {
            let line = format!("[syslog 70] TACPLUS {line}");
            assert!(outcome.stderr.contains(&line), "{line}: {}", outcome.stderr);
        }
    }
}

/// A row of `ffi/symbols.tsv`.
struct Symbol {
    name: String,
    is_data: bool,
    size: u64,
    is_own: bool,
    signature: String,
}

fn table() -> Vec<Symbol> {
    let text = fs::read_to_string(source("ffi/symbols.tsv")).expect("the table is in the source");
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, kind, size, tier, _, signature, ..] = fields[..] else {
            panic!("ffi/symbols.tsv: {line:?} lacks fields");
        };
        Symbol {
            name: name.to_owned(),
            is_data: kind != "T",
            size: size.parse().expect("a size"),
            is_own: tier == "own",
            signature: signature.to_owned(),
        }
    };
    text.lines().skip(1).map(row).collect()
}

/// The names in a symbol table, without versions, each with its kind: the last two columns of nm.
fn dynamic_symbols(file: &Path, option: &str) -> BTreeMap<String, String> {
    let text = tool(Command::new("nm").args(["-D", option]).arg(file));
    let entry = |line: &str| {
        let mut fields = line.split_whitespace().rev();
        let name = fields.next()?.split('@').next()?.to_owned();
        Some((name, fields.next()?.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

#[test]
fn exports_are_those_of_the_table() {
    let file = library().join("libmavis.so");
    let found = dynamic_symbols(&file, "--defined-only");
    let mut sizes = BTreeMap::new();
    for line in tool(Command::new("readelf").args(["--dyn-syms", "-W"]).arg(&file)).lines() {
        // Columns: number, value, size, type, binding, visibility, section, name.
        if let [_, _, size, kind, _, _, _, name, ..] =
            line.split_whitespace().collect::<Vec<_>>()[..]
        {
            let size = size.strip_prefix("0x").map_or_else(
                || size.parse().unwrap_or(0),
                |digits| u64::from_str_radix(digits, 16).unwrap_or(0),
            );
            let name = name.split('@').next().unwrap_or(name).to_owned();
            sizes.insert(name, (kind.to_owned(), size));
        }
    }
    let mut differences = String::new();
    let table: Vec<Symbol> = table().into_iter().filter(|s| !(s.is_own && is_original())).collect();
    for symbol in &table {
        let Symbol { name, is_data, size, .. } = symbol;
        let Some(kind) = found.get(name) else {
            writeln!(differences, "{name} is not exported").unwrap();
            continue;
        };
        let is_kind = if *is_data { "BDRV".contains(&**kind) } else { "TW".contains(&**kind) };
        if !is_kind {
            writeln!(differences, "{name} is of kind {kind}").unwrap();
        }
        let (kind, actual) = &sizes[name];
        if kind != if *is_data { "OBJECT" } else { "FUNC" } {
            writeln!(differences, "{name} is of type {kind}").unwrap();
        }
        if *is_data && actual != size {
            writeln!(differences, "{name} has {actual} bytes and not {size}").unwrap();
        }
    }
    for name in found.keys().filter(|name| !table.iter().any(|symbol| symbol.name == **name)) {
        writeln!(differences, "{name} is exported and not in the table").unwrap();
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn every_export_is_used_by_a_test() {
    let mut used = BTreeSet::new();
    for name in PROGRAMS {
        program(name).unwrap_or_else(|message| panic!("{message}"));
    }
    for entry in fs::read_dir(built()).expect("there are programs") {
        let path = entry.expect("a directory can be read").path();
        if path.is_file() && path.extension().is_none_or(|extension| extension == "so") {
            // A copy relocation puts data into the program itself, so it is defined there as well.
            used.extend(dynamic_symbols(&path, "-g").into_keys());
        }
    }
    let unused: Vec<String> = table()
        .into_iter()
        .filter(|symbol| !symbol.is_own && !used.contains(&symbol.name))
        .map(|symbol| symbol.name)
        .collect();
    assert!(unused.is_empty(), "no test uses {unused:?}");
}

/// The headers, by the names to include.
fn headers() -> Vec<String> {
    let mut names = Vec::new();
    for directory in ["mavis", "misc"] {
        let path = source("compat/include").join(directory);
        for entry in fs::read_dir(path).expect("there are headers") {
            let name = entry.expect("a directory can be read").file_name();
            names.push(format!("{directory}/{}", name.to_string_lossy()));
        }
    }
    names.sort();
    names
}

#[test]
fn each_header_compiles_alone() {
    let compilers: &[(&str, &[&str])] = &[
        ("cc", &["-x", "c", "-std=gnu11"]),
        ("cc", &["-x", "c", "-std=c99", "-D_POSIX_C_SOURCE=200809L"]),
        ("clang", &["-x", "c", "-std=gnu99"]),
        ("c++", &["-x", "c++", "-std=c++98"]),
        ("c++", &["-x", "c++", "-std=c++17"]),
        ("clang++", &["-x", "c++", "-std=c++11"]),
    ];
    let file = scratch().join("header.txt");
    for header in headers() {
        let text = format!("#define MAVIS_NAME \"x\"\n#include <{header}>\n#include <{header}>\n");
        fs::write(&file, text).expect("a source can be written");
        for (compiler, options) in compilers {
            if !has_tool(compiler) {
                continue;
            }
            let mut command = Command::new(compiler);
            command.args(*options).args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
            command.arg("-fsyntax-only").arg("-I").arg(source("compat/include"));
            tool(command.arg(&file));
        }
    }
}

#[test]
fn headers_declare_what_the_table_says() {
    // Declaring a function a second time fails to compile if the types differ.
    let mut text = String::new();
    for header in headers().iter().filter(|name| *name != "mavis/module.h") {
        writeln!(text, "#include <{header}>").unwrap();
    }
    text += "typedef struct ssl_st SSL;\n";
    for symbol in table().iter().filter(|symbol| !symbol.signature.starts_with('-')) {
        let storage = if symbol.is_data { "extern " } else { "" };
        writeln!(text, "{storage}{};", symbol.signature).unwrap();
    }
    // Taking each address proves that there was a first declaration.
    text += "void *all_of_them[] = {\n";
    for symbol in table() {
        writeln!(text, "(void *)&{},", symbol.name).unwrap();
    }
    text += "};\n";
    let file = scratch().join("declarations.txt");
    fs::write(&file, text).expect("a source can be written");
    tool(cc().args(["-x", "c", "-fsyntax-only"]).arg(file));

    let read = |name: &String| fs::read_to_string(source("compat/include").join(name));
    let all: String = headers().iter().map(|name| read(name).expect("a header")).collect();
    for symbol in table() {
        assert_eq!(declarations(&all, &symbol.name), 1, "declarations of {}", symbol.name);
    }
}

/// How many lines of a header declare this name. Declarations begin at the start of a line, and
/// what headers define is `static`.
fn declarations(header: &str, name: &str) -> usize {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let declares = |line: &str| {
        let is_declaration = line.starts_with(|c: char| c.is_ascii_alphabetic())
            && !line.starts_with("static")
            && !line.starts_with("MAVIS_");
        let mut places = line.match_indices(name);
        is_declaration
            && places.any(|(at, _)| {
                let after = line[at + name.len()..].chars().next();
                let before = line[..at].chars().next_back();
                !before.is_some_and(is_part) && after.is_some_and(|c| "([;)".contains(c))
            })
    };
    header.lines().filter(|line| declares(line)).count()
}

#[test]
fn token_header_is_made_from_the_table() {
    let script = source("tests/mavis/token_header.awk");
    let made = tool(Command::new("awk").arg("-f").arg(script).arg(source("ffi/tokens.tsv")));
    let header = fs::read_to_string(source("compat/include/mavis/token.h")).expect("a header");
    assert!(made == header, "compat/include/mavis/token.h is not what token_header.awk makes");
}

//! Compiles the modules of `tests/mavis/modules` against the public headers and the library under
//! test.

use super::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A file or directory of the source tree.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The C compiler, with the options for all C code of the tests: `cc`, or the command line in
/// TCPRELAY_TEST_CC.
pub fn cc() -> Command {
    let compiler = std::env::var("TCPRELAY_TEST_CC").unwrap_or_else(|_| "cc".to_owned());
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().expect("a compiler"));
    command.args(words);
    command.args(["-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror"]);
    // -Wclobbered warns of variables that longjmp may leave undefined; those that matter are
    // volatile.
    command.arg("-Wno-clobbered").arg("-I").arg(source("compat/include"));
    command
}

/// The directory of the library under test: cargo builds it there for tests, and adds the directory
/// to the library search path.
pub fn library() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_tcprelay"))
        .parent()
        .expect("a program has a directory")
        .join("deps")
}

/// Compiles all modules into `directory`, for `mavis path`. Each is renamed into place when
/// complete, because another run of the same tests may be using the old one.
pub fn build(directory: &Path, library: &Path) {
    for entry in fs::read_dir(source("tests/mavis/modules")).expect("there are modules") {
        let path = entry.expect("a directory can be read").path();
        if path.extension().is_none_or(|extension| extension != "c") {
            continue;
        }
        let name = path.file_stem().expect("a module has a name").to_string_lossy();
        let staged = directory.join(format!(".{name}.{}", std::process::id()));
        let mut command = cc();
        command.args(["-shared", "-fPIC", "-o"]).arg(&staged).arg(&path);
        run(command.arg("-L").arg(library).arg("-lmavis"));
        let module = directory.join(format!("libmavis_{name}.so"));
        fs::rename(staged, module).expect("a module can take its place");
    }
}

/// The directory of the compiled modules, for tests of this program.
pub fn modules() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let name = std::env::current_exe().expect("a test is a program");
        let name = name.file_name().expect("a program has a name").to_owned();
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("modules").join(name);
        fs::create_dir_all(&directory).expect("the directory for builds is writable");
        build(&directory, &library());
        directory
    })
}

//! Files: how long they may be, and where tests may let time pass.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a file; a longer one is about more than one thing.
const MOST_LINES: usize = 600;

/// Longer files, and why. An entry that is no longer needed is a failure too.
const LONG_FILES: &[(&str, &str)] =
    &[("tests/shims/selftest.c", "one program, whose checks run in order, for all emulated calls")];

/// The only file that may let time pass. The functions in it say what for.
const WAITS: &str = "tests/common/wait.rs";

/// The files of these folders that have one of these extensions, by their path below the root.
pub(crate) fn files(folders: &[&str], extensions: &[&str]) -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut left: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut found = BTreeMap::new();
    while let Some(folder) = left.pop() {
        let entries = fs::read_dir(&folder);
        for entry in entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a readable folder").path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() {
                left.push(path);
            } else if extension.is_some_and(|extension| extensions.contains(&extension)) {
                let text = fs::read_to_string(&path).expect("source is text");
                found.insert(path.strip_prefix(root).expect("below the root").to_owned(), text);
            }
        }
    }
    found
}

fn code() -> BTreeMap<PathBuf, String> {
    files(&["src", "ffi", "tests"], &["rs", "c", "h"])
}

/// The complaints about the length of files; empty if there are none.
fn too_long(files: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in files {
        let known = LONG_FILES.iter().any(|(file, _)| Path::new(file) == path);
        match (text.lines().count(), known) {
            (lines, false) if lines > MOST_LINES => {
                complaints.push(format!("{} has {lines} lines: split it", path.display()));
            }
            (lines, true) if lines <= MOST_LINES => {
                complaints.push(format!("{} is short: take it off the list", path.display()));
            }
            _ => {}
        }
    }
    for (file, _) in LONG_FILES.iter().filter(|(file, _)| !files.contains_key(Path::new(file))) {
        complaints.push(format!("there is no {file}: take it off the list"));
    }
    complaints
}

#[test]
fn files_are_short() {
    let complaints = too_long(&code());
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn a_long_file_is_found() {
    let mut planted = code();
    planted.insert("src/long.rs".into(), "\n".repeat(MOST_LINES));
    assert_eq!(too_long(&planted), Vec::<String>::new());
    planted.insert("src/long.rs".into(), "\n".repeat(MOST_LINES + 1));
    assert_eq!(too_long(&planted), ["src/long.rs has 601 lines: split it"]);
    planted.remove(Path::new("src/long.rs"));
    let (known, _) = LONG_FILES[0];
    planted.insert(known.into(), String::new());
    assert_eq!(too_long(&planted), [format!("{known} is short: take it off the list")]);
    planted.remove(Path::new(known));
    assert_eq!(too_long(&planted), [format!("there is no {known}: take it off the list")]);
}

/// The lines with a call of a function named `sleep`, whatever it is imported from.
fn sleeps(text: &str) -> usize {
    let named = |line: &str| {
        line.match_indices("sleep(").any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|before| before.is_alphanumeric() || "_\"".contains(before))
        })
    };
    text.lines().filter(|line| named(line)).count()
}

/// A test that waits for something has a deadline (`wait_for`); one that lets time pass says why
/// (`nothing_happens_for`, `outlast`, `stagger`, `pace`).
#[test]
fn tests_do_not_sleep() {
    let mut found = files(&["tests"], &["rs"]);
    found.retain(|_, text| sleeps(text) > 0);
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [Path::new(WAITS)]);
}

#[test]
fn a_sleep_is_found() {
    for call in ["std::thread::", "thread::", "", "libc::"] {
        assert_eq!(sleeps(&format!("    let _ = {call}{}(time);\n", "sleep")), 1);
    }
    assert_eq!(sleeps("fn clock_nanosleep(time: Time)\n"), 0);
}

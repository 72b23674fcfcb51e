//! Checks the architecture: which module directory ("room") may use which. Parses the source, and
//! fails on a dependency that the design does not allow, and on a cycle between modules of one
//! room. `walls/files.rs` has the rules for files.

#[path = "walls/files.rs"]
mod files;
#[path = "walls/paths.rs"]
mod paths;

use files::files;
use paths::{paths, Reference};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Each floor may use those below it. Rooms on one floor may not use each other, as they belong to
/// different processes. `snapshot`, the bytes of a configuration, is below `config`, their meaning.
const FLOORS: [&[&str]; 10] = [
    &["os"],
    &["event"],
    &["snapshot"],
    &["config"],
    &["mavis"],
    &["tls"],
    &["upstream"],
    &["channel"],
    &["broker", "worker", "monitor", "signer", "operator"],
    &["program"],
];

/// `library` is for C programs only: it may use `os`, and only `ffi` may use it.
const LIBRARY: &str = "library";
/// May use every room; no room may use it.
const FFI: &str = "ffi";

/// Known violations: the module, the room it uses, and why. An entry that is no longer needed is a
/// failure too, so this list can only shrink.
const WRONG_ARROWS: &[(&str, &str, &str)] =
    &[("mavis::attributes", "library", "digests and base64 of passwords are in library")];

/// Known cycles between modules of one room: the room, its modules, and why. Must match exactly.
const CIRCLES: &[(&str, &[&str], &str)] = &[(
    "os",
    &["common_data", "entry", "log", "process", "signals"],
    "programs are started and files opened with what the log keeps open, and both may complain",
)];

/// Pure modules: they decide and do nothing else. They name nothing of `event`, and of `os` only
/// the plain values listed here.
const PURE: &[&str] = &[
    "broker::policy",
    "broker::sticky",
    "channel::broker_side",
    "channel::clients",
    "channel::worker_side",
    "upstream::balance",
    "upstream::health",
    "upstream::names",
    "upstream::proxy",
];
const PLAIN_VALUES: &[&str] = &["address", "hash", "process::Pid", "secret::wipe"];

/// Parsing produces settings and a list of effects, and touches neither the system nor this
/// process. So `config` may name only these values, besides those above.
const PURE_ROOM: &str = "config";
const PLAIN_VALUES_OF_SETTINGS: &[&str] = &[
    "address",
    "log::Facility",
    "log::Format",
    "log::Severity",
    "process::exit",
    "reason",
    "secret::wipe",
    "socket::Keepalive",
    "socket::Kind",
    "socket::MOST_BACKLOG",
    "socket::MOST_USER_TIMEOUT",
    "socket::Protocol",
];
/// Pure modules may not reach the system through the standard library either.
const SYSTEM: &[&str] =
    &["std::env", "std::fs", "std::process", "std::thread", "std::time", "libc::", "ToSocketAddrs"];

fn may_use(from: &str, to: &str) -> bool {
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    match (floor(from), floor(to)) {
        _ if from == FFI => true,
        (Some(from), Some(to)) => to < from,
        (None, Some(0)) => from == LIBRARY,
        _ => false,
    }
}

/// What the source names: from each module, the paths.
struct House {
    uses: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
    modules: BTreeSet<Vec<String>>,
}

/// What each file names, by its path below the root. Read once for all tests.
type Sources = BTreeMap<PathBuf, Vec<Reference>>;

fn sources() -> &'static Sources {
    static SOURCES: OnceLock<Sources> = OnceLock::new();
    SOURCES.get_or_init(|| {
        files(&["src", "ffi"], &["rs"])
            .into_iter()
            .map(|(path, text)| {
                let named = paths(&text, &module_of(&path));
                (path, named)
            })
            .collect()
    })
}

/// The module of a file: `src/event/mod.rs` is `event`, `ffi/av.rs` is `ffi::av`.
fn module_of(file: &Path) -> Vec<String> {
    let file = file.strip_prefix("src").unwrap_or(file).with_extension("");
    let mut module: Vec<String> =
        file.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(module.last().map(|name| &**name), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

impl House {
    fn new(sources: &Sources) -> House {
        let mut house = House { uses: BTreeMap::new(), modules: BTreeSet::new() };
        for (path, named) in sources {
            let module = module_of(path);
            for Reference { from, to } in named.iter().cloned() {
                house.uses.entry(from).or_default().insert(to);
            }
            for length in 1..=module.len() {
                house.modules.insert(module[..length].to_vec());
            }
        }
        house
    }

    /// Whether this is a room: a directory with modules.
    fn is_room(&self, name: &str) -> bool {
        self.modules.contains(&vec![name.to_owned()])
    }

    /// Every dependency of a module on another room, as (module, room).
    fn arrows(&self) -> BTreeSet<(String, String)> {
        let mut arrows = BTreeSet::new();
        for (from, uses) in &self.uses {
            // The crate root only lists the rooms, and programs in `bin` are one line each.
            let Some(room) = from.first().filter(|room| *room != "bin") else {
                continue;
            };
            let others = uses.iter().filter_map(|to| to.first());
            for to in others.filter(|to| *to != room && self.is_room(to)) {
                arrows.insert((module_name(from), to.clone()));
            }
        }
        arrows
    }

    /// Dependencies that the design does not allow.
    fn wrong_arrows(&self) -> BTreeSet<(String, String)> {
        let mut arrows = self.arrows();
        arrows.retain(|(from, to)| !may_use(from.split("::").next().unwrap_or_default(), to));
        arrows
    }

    /// Names in pure modules that are not pure, as (module, path).
    fn impurities(&self) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for (from, uses) in &self.uses {
            let from = from.iter().filter(|part| *part != "tests");
            let name = module_name(&from.cloned().collect::<Vec<_>>());
            let values = match name.split("::").next() {
                Some(PURE_ROOM) => PLAIN_VALUES_OF_SETTINGS,
                _ if PURE.contains(&&*name) => PLAIN_VALUES,
                _ => continue,
            };
            for to in uses {
                let path = to.join("::");
                let plain = path
                    .strip_prefix("os::")
                    .is_some_and(|path| values.iter().any(|plain| path.starts_with(plain)));
                if ["os", "event"].contains(&&*to[0]) && !plain {
                    found.insert((name.clone(), path));
                }
            }
        }
        found
    }

    /// Cycles between modules of one room, as (room, modules).
    fn circles(&self) -> BTreeSet<(String, Vec<String>)> {
        let mut graphs: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        for (from, uses) in &self.uses {
            let [room, module, ..] = &from[..] else {
                // A room's mod.rs holds its modules together, and may know them all.
                continue;
            };
            if room == FFI {
                // `ffi` has a file for each C header, and those include each other.
                continue;
            }
            for to in uses {
                let known = to.len() > 1 && self.modules.contains(&to[..2]);
                if known && to[0] == *room && to[1] != *module {
                    let graph = graphs.entry(room).or_default();
                    graph.entry(module).or_default().insert(&to[1]);
                }
            }
        }
        let mut circles = BTreeSet::new();
        for (room, graph) in graphs {
            let reached: BTreeMap<&str, BTreeSet<&str>> =
                graph.keys().map(|&module| (module, reachable(&graph, module))).collect();
            let reaches = |from: &str, to: &str| {
                reached.get(from).is_some_and(|reached| reached.contains(to))
            };
            for &module in graph.keys().filter(|module| reaches(module, module)) {
                let members = reached[module].iter().filter(|other| reaches(other, module));
                let members = members.map(|&member| member.to_owned()).collect();
                circles.insert((room.to_owned(), members));
            }
        }
        circles
    }
}

/// The first two parts of a path: room and module.
fn module_name(module: &[String]) -> String {
    module[..module.len().min(2)].join("::")
}

fn reachable<'a>(
    graph: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    start: &'a str,
) -> BTreeSet<&'a str> {
    let (mut reached, mut left) = (BTreeSet::new(), vec![start]);
    while let Some(module) = left.pop() {
        for &next in graph.get(module).into_iter().flatten() {
            if reached.insert(next) {
                left.push(next);
            }
        }
    }
    reached
}

/// All complaints about a source tree; empty if there are none.
fn complaints(sources: &Sources) -> Vec<String> {
    let house = House::new(sources);
    let mut complaints = Vec::new();
    let wrong = house.wrong_arrows();
    for (from, to) in &wrong {
        if !WRONG_ARROWS.iter().any(|known| (known.0, known.1) == (from, to)) {
            complaints.push(format!("{from} uses {to}, which is not below it"));
        }
    }
    for (from, to, _) in WRONG_ARROWS {
        if !wrong.contains(&((*from).to_owned(), (*to).to_owned())) {
            complaints.push(format!("{from} does not use {to} any more: take it off the list"));
        }
    }
    for (module, path) in house.impurities() {
        complaints.push(format!("{module} names {path}, though it is to decide and nothing else"));
    }
    let circles = house.circles();
    let known: BTreeSet<(String, Vec<String>)> = CIRCLES
        .iter()
        .map(|(room, modules, _)| {
            ((*room).to_owned(), modules.iter().map(|&module| module.to_owned()).collect())
        })
        .collect();
    for (room, modules) in circles.difference(&known) {
        complaints.push(format!("modules of {room} use each other: {}", modules.join(", ")));
    }
    for (room, modules) in known.difference(&circles) {
        let modules = modules.join(", ");
        complaints.push(format!("not the circle of {room} any more, correct the list: {modules}"));
    }
    complaints
}

#[test]
fn dependencies_point_one_way() {
    let complaints = complaints(sources());
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The complaints that appear when these lines are appended to these files.
fn planted(plants: &[(&str, &str)]) -> Vec<String> {
    let mut planted = sources().clone();
    let before = complaints(&planted);
    for (file, lines) in plants {
        let file = PathBuf::from(file);
        let named = paths(lines, &module_of(&file));
        planted.entry(file).or_default().extend(named);
    }
    let mut found = complaints(&planted);
    found.retain(|complaint| !before.contains(complaint));
    found
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written() {
    for (file, line, expected) in [
        ("src/os/pipe.rs", "use crate::event::Loop;\n", "os::pipe uses event"),
        ("src/os/pipe.rs", "use crate::{os, event::{Loop}};\n", "os::pipe uses event"),
        ("src/tls/sizes.rs", "fn f(_: crate::upstream::X) {}\n", "tls::sizes uses upstream"),
        ("src/tls/sizes.rs", "use super::super::channel::X;\n", "tls::sizes uses channel"),
        (
            "src/tls/sizes.rs",
            "mod inner { use super::super::super::worker::X; }\n",
            "tls::sizes uses worker",
        ),
        ("src/broker/sticky.rs", "use crate::worker::X;\n", "broker::sticky uses worker"),
        ("src/program/own.rs", "use crate::ffi::X;\n", "program::own uses ffi"),
        ("src/tls/sizes.rs", "use crate::library::X;\n", "tls::sizes uses library"),
        ("src/channel/new.rs", "use crate::worker::X;\n", "channel::new uses worker"),
    ] {
        let found = planted(&[(file, line)]);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{line}: {found:?}");
    }
}

#[test]
fn what_is_no_path_is_no_arrow() {
    let lines = "// crate::event::Loop\n/* crate::event */\nconst A: &str = \"crate::event\";\n\
                 const B: &str = r#\"crate::\"event\"#;\nconst C: char = '\"';\n\
                 pub(crate) fn f<'a>(_: &'a str) {}\n";
    assert_eq!(planted(&[("src/os/pipe.rs", lines)]), Vec::<String>::new());
}

#[test]
fn a_circle_is_found() {
    let (there, back) = ("use super::second::X;\n", "use crate::channel::first::{self, X};\n");
    let (first, second) = ("src/channel/first.rs", "src/channel/second.rs");
    assert_eq!(planted(&[(first, there), (second, "")]), Vec::<String>::new());
    let found = planted(&[(first, there), (second, back)]);
    assert_eq!(found, ["modules of channel use each other: first, second"]);
}

#[test]
fn parsing_touches_nothing() {
    let found = planted(&[("src/config/common.rs", "use crate::os::{common_data, log};\n")]);
    assert_eq!(found.len(), 2, "{found:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pure = Path::new("src").join(PURE_ROOM);
    for path in sources().keys().filter(|path| path.starts_with(&pure)) {
        let path = root.join(path);
        let source = fs::read_to_string(&path).expect("source is text");
        for name in SYSTEM {
            assert!(!source.contains(name), "{} names {name}", path.display());
        }
    }
}

#[test]
fn what_decides_may_not_ask_the_system() {
    let found = planted(&[("src/broker/policy.rs", "use crate::os::{monotonic_clock};\n")]);
    let expected = "broker::policy names os::monotonic_clock";
    assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
}

//! The cases that are data: a configuration or a command line, an exit status, and the text on
//! standard error. Expands the table's abbreviations.

use crate::common::{ours, within, Directory, PATIENCE, TCPRELAY};
use crate::runner::{Case, Entry};
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// No functions: all cases of this module are data.
pub(crate) const CASES: &[Entry] = &[];

const BROKER: &str = "id = spawnd { listen = { port = 2222 } }\\n";
const WORKER: &str = "id = tcprelay { remote = { address = 127.0.0.1 port = 3001 } }\\n";
const REMOTE: &str = "remote = { address = 127.0.0.1 port = 3001 }\\n";

/// Expectations in free form: the exit statuses that are accepted, and texts that standard error
/// must contain.
const FREE: &[(&str, &[i32], &[&str])] = &[
    ("C026", &[0, 78], &[]),
    ("C028", &[0, 78], &[]),
    ("C055", &[0, 78], &[]),
    ("C076", &[78], &["t.cfg:LINE: ", "70000"]),
    ("C077", &[78], &["t.cfg:LINE: ", "nosuchsvc"]),
    ("C078", &[0, 78], &[]),
    ("C082", &[78], &["Expected an IP address or network in CIDR notation, but got 'foo'"]),
    ("C083", &[0, 78], &[]),
    ("C120", &[78], &["t.cfg:LINE: "]),
    ("C125", &[0, 78], &[]),
    ("C126", &[0, 78], &[]),
    ("C135", &[78], &["t.cfg:LINE: ", "port"]),
    ("C136", &[78], &["t.cfg:LINE: ", "address"]),
    ("C137", &[78], &["t.cfg:LINE: "]),
    ("C138", &[78], &["t.cfg:LINE: ", "70000"]),
    ("C139", &[78], &["t.cfg:LINE: ", "-1"]),
    ("C141", &[78], &["t.cfg:LINE: ", "80abc"]),
    ("C143", &[78], &["t.cfg:LINE: ", "nosuchsvc"]),
    ("C144", &[78], &["Expected an IP address, but got '300.0.0.1'"]),
    ("C154", &[78], &["t.cfg:LINE: ", "255.255.255.255"]),
    ("C167", &[0, 78], &[]),
    ("C169", &[78], &["remote"]),
    ("C194", &[0, 78], &["FOO"]),
    ("C196", &[0, 78], &["FOO"]),
    ("C228", &[78], &["t.cfg:LINE: "]),
    ("C229", &[78], &["t.cfg:LINE: "]),
    ("C253", &[78], &["127.0.0.1#x"]),
    ("C265", &[78], &["${FOO}"]),
    ("C267", &[78], &["'&&'"]),
    ("C269", &[78], &["'||'"]),
    ("C275", &[78], &["t.cfg:LINE: "]),
    ("C276", &[78], &["t.cfg:LINE: "]),
    ("C281", &[78], &["Line too long"]),
    ("C293", &[78], &["inc/self.cfg"]),
    ("C320", &[78], &["nosuch"]),
    ("C325", &[78], &["No configuration for id 'nosuch' found"]),
    ("C329", &[78], &["but got 'foo'"]),
    ("C331", &[78], &["but got 'foo'"]),
    ("C333", &[78], &["but got 'foo'"]),
    ("C339", &[0, 78], &[]),
    ("C342", &[0, 78], &[]),
    ("C343", &[78], &["99999999999"]),
    ("C361", &[78], &["File /usr/local/libexec/ftpd doesn't appear to be executable"]),
    ("C367", &[0, 78], &[]),
];

/// True for the cases of this module.
pub(crate) fn is_data(case: &Case) -> bool {
    matches!(case.area, "config" | "cli")
        && (case.setup.starts_with("tcprelay ") || case.setup.starts_with("command: tcprelay"))
        && case.expected.starts_with("exit ")
        && !case.expected.contains("syslog ERR line")
        || FREE.iter().any(|(id, ..)| *id == case.id)
}

/// The text of the configuration file of a case.
fn expand(case: &Case, text: &str, directory: &Path) -> Vec<u8> {
    let (bytes, text) = match text.strip_prefix("bytes: ") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut text = text.to_owned();
    // The table has long tokens abbreviated; only their length matters.
    if let Some(length) = match case.id {
        "C280" => Some(65534),
        "C281" => Some(65535),
        _ => None,
    } {
        text = format!("W{{ syslog ident = \"{}\"\\n<R> }}", "x".repeat(length));
    }
    for (head, before, after) in [
        ("M{ ", "id = spawnd {\\n", "\\n}\\n<T>"),
        ("L{ ", "id = spawnd {\\nlisten = { port = 2222\\n", "\\n}\\n}\\n<T>"),
        ("W{ ", "<S>id = tcprelay {\\n", "\\n}\\n"),
    ] {
        let inner = text.strip_prefix(head).and_then(|rest| rest.strip_suffix(" }"));
        if let Some(inner) = inner {
            text = format!("{before}{inner}{after}");
            break;
        }
    }
    let text = text
        .replace("<S>", BROKER)
        .replace("<T>", WORKER)
        .replace("<R>", REMOTE)
        .replace("$CONFDIR/", "$CONF")
        .replace("DIR/", &format!("{}/", directory.display()))
        .replace("$CONF", "$CONFDIR/")
        .replace("/PATH/tcprelay", TCPRELAY);
    unescape(&text, bytes)
}

fn unescape(text: &str, bytes: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (&letter, tail) = rest.split_first().expect("something after the backslash");
        rest = tail;
        match letter {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(0x0b),
            b'\\' => out.push(b'\\'),
            b'x' if bytes => {
                let digits = std::str::from_utf8(&rest[..2]).expect("two digits");
                out.push(u8::from_str_radix(digits, 16).expect("two digits"));
                rest = &rest[2..];
            }
            other => panic!("unknown escape {:?}", other as char),
        }
    }
    out
}

/// Splits a line into words as a shell does; quotes are understood only as an empty word.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(|word| word.replace("''", "")).collect()
}

/// Creates every file that the rows name.
fn fixtures(directory: &Directory) {
    let plain = |text: &str| text.replace("\\n", "\n");
    for folder in ["inc", "inc/d"] {
        fs::create_dir_all(directory.file(folder)).expect("a directory");
    }
    for (name, text) in [
        ("inc/top1.cfg", plain(BROKER)),
        ("inc/top2.cfg", plain(WORKER)),
        ("inc/a.cfg", plain(REMOTE)),
        ("inc/b.cfg", format!("{}foo\n", plain(REMOTE))),
        ("inc/addr.cfg", "address = 127.0.0.1\n".into()),
        ("inc/half.cfg", "id = tcprelay {\n".into()),
        ("inc/empty.cfg", String::new()),
        ("inc/self.cfg", "include = inc/self.cfg\n".into()),
        ("u.cfg", plain(BROKER) + &plain(WORKER)),
        ("t2.cfg", "id = spawnd { foo }\n".into()),
        ("t.cfg", plain(BROKER) + &plain(WORKER) + "id = foo { listen = { port = 1 } nosuch }\n"),
    ] {
        directory.write(name, text);
    }
}

/// Runs a case of this module.
pub(crate) fn run(case: &Case) {
    let directory = Directory::new();
    fixtures(&directory);
    let line = match case.setup.strip_prefix("command: ") {
        Some(line) => line,
        None => {
            let (line, text) = case.setup.split_once("; t.cfg:").expect("a configuration");
            let text = text.strip_prefix(' ').unwrap_or(text);
            directory.write("t.cfg", expand(case, text, directory.path()));
            line
        }
    };
    let line = line.replace("DIR/", &format!("{}/", directory.path().display()));
    let stderr = directory.file("stderr");
    let stdout = directory.file("stdout");
    let mut child = ours(TCPRELAY)
        .args(words(&line).iter().skip(1))
        .current_dir(directory.path())
        .env_remove("TCPRELAY_LOG_STDERR")
        .env_remove("FOO")
        .env_remove("NOSUCH")
        .stdin(Stdio::null())
        .stdout(fs::File::create(&stdout).expect("a file"))
        .stderr(fs::File::create(&stderr).expect("a file"))
        .spawn()
        .expect("the program under test");
    let Some(status) = within(PATIENCE, || child.try_wait().expect("waitpid")) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("does not end; expected: {}", case.expected);
    };
    let text = fs::read(&stderr).expect("the standard error");
    let text = String::from_utf8_lossy(&text).into_owned();
    let output = fs::read(&stdout).expect("the standard output");
    let shown = || format!("expected: {}; got: {status}, stderr:\n{text}", case.expected);
    assert!(output.is_empty(), "something on standard output; {}", shown());
    let Some(status) = status.code() else {
        panic!("{}", shown());
    };
    if let Err(why) = check(case, status, &text) {
        panic!("{why}; {}", shown());
    }
}

fn check(case: &Case, status: i32, text: &str) -> Result<(), String> {
    let lines = without_line_numbers(text);
    let require = |wanted: &str| {
        let wanted = without_line_numbers(wanted);
        if lines.contains(&wanted) {
            Ok(())
        } else {
            Err(format!("no {wanted:?}"))
        }
    };
    if let Some((_, statuses, texts)) = FREE.iter().find(|(id, ..)| *id == case.id) {
        if !statuses.contains(&status) {
            return Err(format!("exit {status}"));
        }
        if matches!(case.id, "C026" | "C028") {
            return if status == 0 { Ok(()) } else { require("DTLSv1.3") };
        }
        return texts.iter().try_for_each(|text| require(text));
    }
    let rest = case.expected.strip_prefix("exit ").ok_or("no exit status in the table")?;
    let (number, rest) = rest.split_once(';').unwrap_or((rest, ""));
    let number = number.split_whitespace().next().unwrap_or_default();
    let wanted: i32 = number.parse().map_err(|_| "no exit status in the table")?;
    if status != wanted {
        return Err(format!("exit {status}"));
    }
    let rest = rest.trim();
    if let Some(wanted) = rest.strip_prefix("stderr contains: ") {
        if let Some((name, _)) = wanted.split_once(" version ") {
            return version(text, name);
        }
        return require(wanted);
    }
    if let Some(wanted) = rest.strip_prefix("stderr has PID: FILE:LINE: Expected ..., but got ") {
        let tail = format!(", but got {wanted}");
        let fits = |line: &str| {
            let Some((head, line)) = line.split_once(": ") else {
                return false;
            };
            head.parse::<u32>().is_ok()
                && line.starts_with("t.cfg:LINE: Expected ")
                && line.ends_with(&tail)
        };
        let last = "Detected fatal configuration error. Exiting.";
        if !lines.lines().any(fits) {
            return Err("no such line".into());
        }
        return require(last);
    }
    if rest == "usage text on stderr" {
        return require("Usage: tcprelay [ <Options> ] <configuration file> [ <id> ]");
    }
    // A successful check prints nothing.
    if wanted == 0 && !text.is_empty() {
        return Err("stderr is not empty".into());
    }
    if wanted != 0 && !rest.is_empty() {
        return Err("the expectation is not understood".into());
    }
    Ok(())
}

/// The table has the C program's version; ours only has the same form.
pub(crate) fn version(text: &str, name: &str) -> Result<(), String> {
    let head = format!("{name} version {}", env!("CARGO_PKG_VERSION"));
    let line = text.lines().find_map(|line| line.strip_prefix(&head));
    let tail = line.ok_or("no version line")?;
    if cfg!(feature = "curl") && !tail.starts_with("/CURL ") {
        return Err("no CURL in the version".into());
    }
    Ok(())
}

/// Removes line numbers, which are not compared.
fn without_line_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(".cfg:") {
        let (head, tail) = rest.split_at(at + ".cfg:".len());
        out.push_str(head);
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        if digits > 0 {
            out.push_str("LINE");
        }
        rest = &tail[digits..];
    }
    out + rest
}

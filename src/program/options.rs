//! The command line, in the manner of getopt(3): letters may be bundled, and options may follow
//! arguments.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// The options of a broker or worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-P`
    pub parse_only: bool,
    /// `-v`
    pub version: bool,
    /// `-d`
    pub debug: i64,
    /// `-D`
    pub debug_to_stderr: bool,
    /// `-b` or `-f`, whichever came last.
    pub background: Option<bool>,
    /// `-1`
    pub single_process: bool,
    /// `-i`
    pub worker_id: Option<String>,
    /// `-I`
    pub broker_id: Option<String>,
    /// `-p`
    pub pid_file: Option<String>,
    /// The configuration source, and the id of the section.
    pub arguments: Vec<String>,
}

/// The option letters of a broker; a colon means that the option takes an argument.
pub const BROKER: &str = "vPd:i:p:bf1I:D";
/// The option letters of a worker.
pub const WORKER: &str = "vPd:D";

/// Why a program does nothing but answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `-h` or `--help`, which the C program does not know.
    Help,
    /// `--version`.
    Version,
    /// The command line is wrong: getopt's complaint, if it has one.
    Usage(String),
}

/// Reads `arguments` (without argv\[0]).
pub fn parse(name: &str, letters: &str, arguments: &[OsString]) -> Result<Options, Stop> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let text = String::from_utf8_lossy(argument.as_bytes()).into_owned();
        if text == "--" {
            options.arguments.extend(rest.by_ref().map(|a| a.to_string_lossy().into_owned()));
            break;
        }
        match &*text {
            "-h" | "--help" => return Err(Stop::Help),
            "--version" => return Err(Stop::Version),
            _ => {}
        }
        let Some(bundle) = text.strip_prefix('-').filter(|bundle| !bundle.is_empty()) else {
            options.arguments.push(text);
            continue;
        };
        let mut bundle = bundle.chars();
        while let Some(letter) = bundle.next() {
            let known = letters.find(letter).filter(|_| letter != ':');
            let Some(at) = known else {
                return Err(Stop::Usage(format!("{name}: invalid option -- '{letter}'")));
            };
            let mut value = String::new();
            if letters[at + 1..].starts_with(':') {
                value = bundle.as_str().to_owned();
                bundle = "".chars();
                if value.is_empty() {
                    value = rest
                        .next()
                        .map(|argument| argument.to_string_lossy().into_owned())
                        .ok_or_else(|| {
                            let text = format!("{name}: option requires an argument");
                            Stop::Usage(format!("{text} -- '{letter}'"))
                        })?;
                }
            }
            options.set(letter, value);
        }
    }
    let minimum = usize::from(!options.version);
    if !(minimum..=2).contains(&options.arguments.len()) {
        return Err(Stop::Usage(String::new()));
    }
    Ok(options)
}

impl Options {
    fn set(&mut self, letter: char, value: String) {
        match letter {
            'P' => self.parse_only = true,
            'v' => self.version = true,
            'd' => self.debug = leading_integer(&value),
            'D' => self.debug_to_stderr = true,
            'b' => self.background = Some(true),
            'f' => self.background = Some(false),
            '1' => self.single_process = true,
            'i' => self.worker_id = Some(value),
            'I' => self.broker_id = Some(value),
            'p' => self.pid_file = Some(value),
            _ => {}
        }
    }
}

/// Like atoi(3): the number at the beginning of the text, or 0.
fn leading_integer(text: &str) -> i64 {
    let text = text.trim_start();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let value = digits[..end].parse().unwrap_or(0);
    if text.starts_with('-') {
        -value
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(arguments: &[&str]) -> Result<Options, Stop> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        parse("x", BROKER, &arguments)
    }

    #[test]
    fn options_may_be_bundled_and_follow_the_arguments() {
        let options = broker(&["file", "-bp", "pid", "-d1", "id", "-D"]).expect("valid");
        assert_eq!(options.arguments, ["file", "id"]);
        assert_eq!(options.background, Some(true));
        assert_eq!(options.pid_file.as_deref(), Some("pid"));
        assert_eq!(options.debug, 1);
        assert!(options.debug_to_stderr);
        assert_eq!(broker(&["-b", "-f", "x"]).map(|o| o.background), Ok(Some(false)));
        assert_eq!(broker(&["-d", "-1", "x"]).map(|o| o.debug), Ok(-1));
    }

    #[test]
    fn complaints_are_those_of_getopt() {
        let usage = |text: &str| Err(Stop::Usage(text.into()));
        assert_eq!(broker(&["-Z", "f"]), usage("x: invalid option -- 'Z'"));
        assert_eq!(broker(&["--helpless"]), usage("x: invalid option -- '-'"));
        assert_eq!(broker(&["-bh"]), usage("x: invalid option -- 'h'"));
        assert_eq!(broker(&["-d"]), usage("x: option requires an argument -- 'd'"));
        assert_eq!(broker(&[]), usage(""));
        assert_eq!(broker(&["a", "b", "c"]), usage(""));
        assert!(broker(&["-v"]).is_ok());
    }

    #[test]
    fn questions_are_answered_wherever_they_stand() {
        for arguments in [&["-h"][..], &["--help"], &["-f", "--help"], &["file", "-h", "-Z"]] {
            assert_eq!(broker(arguments), Err(Stop::Help));
        }
        assert_eq!(broker(&["--version"]), Err(Stop::Version));
        // Here they are a file's name, and the argument of an option.
        assert_eq!(broker(&["--", "-h"]).map(|o| o.arguments), Ok(vec!["-h".to_owned()]));
        let pid_file = broker(&["-p", "-h", "file"]).map(|o| o.pid_file);
        assert_eq!(pid_file, Ok(Some("-h".to_owned())));
    }
}

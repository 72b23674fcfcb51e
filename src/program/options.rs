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

/// Reads `arguments` (without argv\[0]). The error is getopt's complaint, or empty if only the
/// usage is to be shown.
pub fn parse(name: &str, letters: &str, arguments: &[OsString]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let text = String::from_utf8_lossy(argument.as_bytes()).into_owned();
        if text == "--" {
            options.arguments.extend(rest.by_ref().map(|a| a.to_string_lossy().into_owned()));
            break;
        }
        let Some(bundle) = text.strip_prefix('-').filter(|bundle| !bundle.is_empty()) else {
            options.arguments.push(text);
            continue;
        };
        let mut bundle = bundle.chars();
        while let Some(letter) = bundle.next() {
            let known = letters.find(letter).filter(|_| letter != ':');
            let Some(at) = known else {
                return Err(format!("{name}: invalid option -- '{letter}'"));
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
                            format!("{name}: option requires an argument -- '{letter}'")
                        })?;
                }
            }
            options.set(letter, value);
        }
    }
    let minimum = usize::from(!options.version);
    if !(minimum..=2).contains(&options.arguments.len()) {
        return Err(String::new());
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

    fn broker(arguments: &[&str]) -> Result<Options, String> {
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
        assert_eq!(broker(&["-Z", "f"]), Err("x: invalid option -- 'Z'".into()));
        assert_eq!(broker(&["--help"]), Err("x: invalid option -- '-'".into()));
        assert_eq!(broker(&["-d"]), Err("x: option requires an argument -- 'd'".into()));
        assert_eq!(broker(&[]), Err(String::new()));
        assert_eq!(broker(&["a", "b", "c"]), Err(String::new()));
        assert!(broker(&["-v"]).is_ok());
    }
}

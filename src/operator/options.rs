//! The command line.

use crate::upstream::wish::Lasting;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where the relay listens, unless the configuration says otherwise.
#[cfg(target_os = "linux")]
const SOCKET: &str = "/run/tcprelay/control";
#[cfg(not(target_os = "linux"))]
const SOCKET: &str = "/var/run/tcprelay/control";
/// The environment variable that names another place.
const VARIABLE: &str = "TCPRELAY_CONTROL";

/// A command, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// The control socket.
    pub(super) socket: PathBuf,
    pub(super) form: Form,
    pub(super) command: Command,
}

/// How answers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Text,
    /// `--json`: as they are.
    Json,
}

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Show(View),
    /// A change of the remotes that a word stands for.
    Change {
        remotes: Vec<String>,
        change: Change,
        lasting: Lasting,
    },
    /// These sessions.
    Sessions(Sessions),
    /// Ends sessions.
    Kill(Vec<String>),
    /// A live view, so often at most, renewed after so many seconds.
    Top {
        rounds: Option<u64>,
        delay: u64,
    },
    Reload,
    Stop(Patience),
    /// Wait until former workers are gone, but no longer than this many seconds.
    Wait(Option<u64>),
}

/// How long a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as what it has begun.
    UntilDone,
    /// It only begins it.
    None,
}

/// A part of the overview, or all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    All,
    Remotes,
    Listeners,
    Workers,
    Errors,
}

/// Which sessions, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sessions {
    pub(super) remote: Option<String>,
    pub(super) client: Option<String>,
    pub(super) sort: Option<String>,
    pub(super) top: Option<u64>,
}

/// What is changed about a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Drain,
    Disable,
    Enable,
    /// `None`: the configured weight.
    Weight(Option<u32>),
}

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Run(Options),
    Help,
    Version,
    /// It is wrong, for this reason.
    Wrong(String),
}

/// The commands, with their arguments, and what they do.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("show", "", "shows all of the following but the errors, with totals"),
    ("remotes", "", "shows the remotes: which are up, and why not"),
    (
        "sessions",
        "[--remote REMOTE] [--client TEXT] [--sort age|bytes|idle] [--top N]",
        "shows the sessions",
    ),
    ("kill", "SESSION...", "ends sessions, by the ids that 'sessions' shows"),
    ("top", "[--delay SECONDS] [--rounds N]", "shows remotes and busy sessions again and again"),
    ("listeners", "", "shows the listeners"),
    ("workers", "", "shows the processes"),
    ("errors", "", "shows the last errors, the newest first"),
    (
        "drain",
        "REMOTE... [--until-reload]",
        "gives a remote no new sessions; those that it has go on",
    ),
    (
        "disable",
        "REMOTE... [--until-reload]",
        "gives a remote no sessions, and ends those that it has",
    ),
    ("enable", "REMOTE...", "takes that back"),
    ("weight", "REMOTE NUMBER|default [--until-reload]", "changes the weight of a remote"),
    ("reload", "", "reads the configuration again, and tells how that went"),
    ("stop", "[--no-wait]", "ends the service, as SIGTERM does, and waits until it has ended"),
    ("wait", "[--timeout SECONDS]", "waits until the workers of former configurations are gone"),
];

/// What `--help` shows.
pub(super) fn help() -> String {
    let mut text =
        "Usage: tcprelayctl [ -s SOCKET ] [ --json ] COMMAND ...\n\nCommands:\n".to_owned();
    for (name, arguments, does) in COMMANDS {
        let call = format!("{name} {arguments}");
        text += &match call.len() {
            0..=30 => format!("  {call:30}  {does}\n"),
            _ => format!("  {call}\n  {:30}  {does}\n", ""),
        };
    }
    text += "\nREMOTE is an address, with or without its port, a host name, or a tag.\n";
    text += &format!(
        "\nOptions:\n  \
         -s, --socket SOCKET             the control socket; {SOCKET}\n  \
         {:30}  unless {VARIABLE} names another one\n  \
         -j, --json                      show answers as JSON\n  \
         -h, --help                      show this\n  \
         -V, --version                   show the version\n\n\
         The manual is tcprelayctl(8).\n",
        ""
    );
    text
}

/// The arguments that were not looked at yet.
struct Arguments {
    /// What belongs to the command itself.
    words: std::vec::IntoIter<String>,
    /// Options with their values.
    options: Vec<(String, Option<String>)>,
}

impl Arguments {
    fn next(&mut self, what: &str) -> Result<String, String> {
        self.words.next().ok_or_else(|| format!("{what} is missing"))
    }

    /// The value of an option that has one.
    fn value(&mut self, name: &str) -> Option<String> {
        let place = self.options.iter().position(|(option, _)| option == name)?;
        self.options.remove(place).1
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.value(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| format!("--{name} {text}: this is no number"))
    }

    /// All words, of which there must be one at least.
    fn all(&mut self, what: &str) -> Result<Vec<String>, String> {
        let first = self.next(what)?;
        Ok(std::iter::once(first).chain(self.words.by_ref()).collect())
    }

    /// True if an option without a value was given.
    fn has(&mut self, name: &str) -> bool {
        let place = self.options.iter().position(|(option, _)| option == name);
        place.map(|place| self.options.remove(place)).is_some()
    }

    fn change(&mut self, remotes: Vec<String>, change: Change) -> Command {
        let lasting = match self.has("until-reload") {
            true => Lasting::UntilReload,
            false => Lasting::Always,
        };
        Command::Change { remotes, change, lasting }
    }

    /// Refuses what is left over.
    fn end(mut self) -> Result<(), String> {
        if let Some(word) = self.words.next() {
            return Err(format!("'{word}' is one argument too many"));
        }
        match self.options.first() {
            Some((name, _)) => Err(format!("the command has no option --{name}")),
            None => Ok(()),
        }
    }
}

/// Options of commands that have a value.
const WITH_VALUE: &[&str] = &["client", "delay", "remote", "rounds", "sort", "timeout", "top"];
/// Those that have none.
const PLAIN: &[&str] = &["no-wait", "until-reload"];

/// Reads the arguments, without argv\[0]. Options may stand anywhere.
pub(super) fn parse(arguments: &[OsString]) -> Parsed {
    match try_parse(arguments) {
        Ok(parsed) => parsed,
        Err(complaint) => Parsed::Wrong(complaint),
    }
}

fn try_parse(arguments: &[OsString]) -> Result<Parsed, String> {
    let mut socket = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let mut form = Form::Text;
    let (mut words, mut options) = (Vec::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy().into_owned();
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (&*text, None),
        };
        let mut value = || {
            let value = match &attached {
                Some(value) => Some(value.into()),
                None => rest.next().cloned(),
            };
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        match name {
            "-h" | "--help" => return Ok(Parsed::Help),
            "-V" | "--version" => return Ok(Parsed::Version),
            "-j" | "--json" => form = Form::Json,
            "-s" | "--socket" => socket = Some(value()?),
            "--" => words.extend(rest.by_ref().map(|word| word.to_string_lossy().into_owned())),
            _ => match name.strip_prefix("--") {
                Some(option) if WITH_VALUE.contains(&option) => {
                    let value = value()?.to_string_lossy().into_owned();
                    options.push((option.to_owned(), Some(value)));
                }
                Some(option) if PLAIN.contains(&option) => options.push((option.to_owned(), None)),
                _ if text.starts_with('-') => return Err(format!("unknown option {text}")),
                _ => words.push(text),
            },
        }
    }
    let mut arguments = Arguments { words: words.into_iter(), options };
    let name = arguments.next("the command")?;
    let command = match &*name {
        "show" => Command::Show(View::All),
        "remotes" => Command::Show(View::Remotes),
        "listeners" => Command::Show(View::Listeners),
        "workers" => Command::Show(View::Workers),
        "errors" => Command::Show(View::Errors),
        "sessions" => Command::Sessions(Sessions {
            remote: arguments.value("remote"),
            client: arguments.value("client"),
            sort: arguments.value("sort"),
            top: arguments.number("top")?,
        }),
        "kill" => Command::Kill(arguments.all("SESSION")?),
        "top" => Command::Top {
            rounds: arguments.number("rounds")?,
            delay: arguments.number("delay")?.unwrap_or(2).max(1),
        },
        "drain" | "disable" => {
            let change = if name == "drain" { Change::Drain } else { Change::Disable };
            let remotes = arguments.all("REMOTE")?;
            arguments.change(remotes, change)
        }
        "enable" => {
            let (remotes, change) = (arguments.all("REMOTE")?, Change::Enable);
            Command::Change { remotes, change, lasting: Lasting::Always }
        }
        "weight" => {
            let remotes = vec![arguments.next("REMOTE")?];
            let weight = match &*arguments.next("the weight")? {
                "default" => None,
                text => match text.parse() {
                    Ok(weight @ 1..) => Some(weight),
                    _ => {
                        return Err(format!(
                            "weight {text}: neither a positive number nor 'default'"
                        ))
                    }
                },
            };
            arguments.change(remotes, Change::Weight(weight))
        }
        "reload" => Command::Reload,
        "stop" => Command::Stop(match arguments.has("no-wait") {
            true => Patience::None,
            false => Patience::UntilDone,
        }),
        "wait" => Command::Wait(arguments.number("timeout")?),
        _ => {
            let known: Vec<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
            return Err(format!("unknown command '{name}', known are: {}", known.join(", ")));
        }
    };
    arguments.end()?;
    let socket = PathBuf::from(socket.unwrap_or_else(|| SOCKET.into()));
    Ok(Parsed::Run(Options { socket, form, command }))
}

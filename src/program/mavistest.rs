//! mavistest: sends queries through a chain of modules and shows the results.

// Token constants carry the names of the C enumeration.
#![allow(non_upper_case_globals)]

use super::report::{publish_name, Report};
use super::section;
use super::system::Live;
use crate::config::environment::directory;
use crate::config::token::*;
use crate::config::{self, common, ConfigError, Parser};
use crate::mavis::attributes::{self, value, Attributes};
use crate::mavis::chain::{self, Query, Verdict, API_VERSION, TOKEN_VERSION};
use crate::mavis::search::{self, Modules};
use crate::os::malloc::Owned;
use crate::os::module::Chain;
use crate::os::process::{self, exit};
use crate::os::{common_data, log};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::Instant;

/// The exit status for a wrong command line, as in the C program.
const WRONG: i32 = 255;

#[derive(Default)]
struct Options {
    parse_only: bool,
    debug: i64,
    loops: u32,
    /// `-t`: shows only how long all queries took.
    timed: bool,
    /// `-a ATTRIBUTE -v VALUE`
    attributes: Vec<(usize, Vec<u8>)>,
    arguments: Vec<OsString>,
}

/// The main function; returns the exit status.
pub(super) fn main(arguments: &[OsString]) -> i32 {
    let name = arguments.first().map_or("mavistest".into(), |name| name.to_string_lossy());
    let rest = arguments.get(1..).unwrap_or(&[]);
    // An option's value may read the same, so only the first argument is a question.
    match rest.first().map(|first| first.as_bytes()) {
        Some(b"-h" | b"--help") => return super::answer(&usage(&name)),
        Some(b"--version") => {
            return super::answer(&format!("{name} version {}\n", super::version()));
        }
        _ => {}
    }
    let Some(options) = parse(rest, &name) else {
        log::stderr(&usage(&name));
        return WRONG;
    };
    match run(&options) {
        Ok(()) => 0,
        Err(status) => status,
    }
}

fn usage(name: &str) -> String {
    format!(
        "Usage: {name} [ -P ] [ -t ] [ -d <level> ] [ -l <loops> ] [ -a <attribute> -v <value> ] ...\n\
         \x20      <configuration> <id> <type> <user> [ <password> [ <new password> ] ]\n\n\
         -P                parse configuration, then quit\n\
         -t                show how long all queries took, and nothing else\n\
         -d <level>        set debugging level\n\
         -l <loops>        number of queries to send, one after the other\n\
         -a <attribute>    index or name of an attribute ...\n\
         -v <value>        ... and its value\n\
         -h, --help        show this text, then quit\n\
         --version         show version, then quit\n\n\
         The type is FTP or TACPLUS. The manual is mavistest(1).\n"
    )
}

/// Reads the command line; `None` if it is wrong.
fn parse(arguments: &[OsString], name: &str) -> Option<Options> {
    let mut options = Options { loops: 1, ..Options::default() };
    let mut attribute = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        let (Some(&letter), true) = (bytes.get(1), bytes.first() == Some(&b'-')) else {
            options.arguments.push(argument.clone());
            continue;
        };
        if bytes == b"--" {
            options.arguments.extend(rest.by_ref().cloned());
            break;
        }
        let mut value = || match &bytes[2..] {
            [] => rest.next().map(|value| value.as_bytes().to_vec()),
            attached => Some(attached.to_vec()),
        };
        let number = |value: Option<Vec<u8>>| -> Option<i64> {
            String::from_utf8(value?).ok()?.trim().parse().ok()
        };
        match letter {
            b'P' => options.parse_only = true,
            b't' => options.timed = true,
            b'd' => options.debug = number(value())?,
            // A negative number of queries means none.
            b'l' => options.loops = u32::try_from(number(value())?).unwrap_or(0),
            b'a' => {
                let text = value()?;
                attribute = match number(Some(text.clone())) {
                    Some(index) => usize::try_from(index).ok().filter(|&i| i < attributes::COUNT),
                    None => attributes::by_name(&text),
                };
                if attribute.is_none() {
                    let text = String::from_utf8_lossy(&text);
                    log::stderr(&format!("{name}: '{text}' is no attribute\n"));
                    return None;
                }
            }
            b'v' => options.attributes.push((attribute?, value()?)),
            _ => {
                let letter = char::from(letter);
                log::stderr(&format!("{name}: invalid option -- '{letter}'\n"));
                return None;
            }
        }
    }
    (options.arguments.len() >= 2).then_some(options)
}

fn run(options: &Options) -> Result<(), i32> {
    let terminal = process::stderr_is_terminal();
    let debug = common::known_debug_bits(options.debug);
    common_data::set_debug(debug);
    common_data::set_debug_terminal(terminal.into());
    common_data::set_parse_only(options.parse_only.into());
    let report = Report { parse_only: options.parse_only, terminal, ..Report::default() };
    let text = |index: usize| options.arguments[index].to_string_lossy().into_owned();
    let name = text(0);
    let system = Rc::new(Live::direct(report));
    publish_name(&name, &directory(&name, &*system));
    let mut chain = section::open(&name, &system)
        .and_then(|source| {
            let reading = config::read(source, &text(1), report.rules(), system.clone(), modules);
            system.settle(reading)
        })
        .map_err(|error| {
            report.failure(&error);
            error.exit_status()
        })?
        .0;
    if options.parse_only {
        return Ok(());
    }
    chain::check_version(API_VERSION, TOKEN_VERSION);
    let Some(head) = chain.head() else {
        log::message("Fatal: No modules configured");
        log::stderr("Fatal: No modules configured\n");
        return Err(exit::USAGE);
    };
    chain.start();
    let start = Instant::now();
    for number in (0..options.loops).rev() {
        let mut query = Some(Owned::new(query(options, number)?));
        if !options.timed {
            show("Input", &query);
        }
        if chain::send(Some(head), &mut query) == Verdict::FINAL && !options.timed {
            show("Output", &query);
        }
    }
    if options.timed {
        log::stderr(&format!("{} seconds\n", start.elapsed().as_secs()));
    }
    chain.end();
    Ok(())
}

fn show(what: &str, query: &Query) {
    if let Some(attributes) = query {
        log::stderr(&format!("\n{what} "));
        log::stderr_bytes(&attributes.dump());
    }
}

/// Reads from the section what mavistest needs: modules, and what all sections share. The rest is
/// for the program whose configuration this is.
fn modules(parser: &mut Parser<'_>) -> Result<Chain, ConfigError> {
    let mut found = Modules::new(std::ptr::null_mut());
    let mut depth = 0;
    loop {
        match parser.code() {
            S_eof => return Err(parser.expected(&[S_closebra])),
            S_closebra if depth == 0 => return Ok(found.chain),
            S_closebra => depth -= 1,
            S_openbra => depth += 1,
            // The word `mavis` may also be a value, or begin a directive of the program.
            S_mavis if depth == 0 && matches!(parser.peek()?, S_module | S_path) => {
                search::parse(parser, &mut found)?;
                continue;
            }
            _ if depth == 0 && common::parse_shared(parser)? => continue,
            _ => {}
        }
        parser.advance()?;
    }
}

/// Builds the query from the command line.
fn query(options: &Options, number: u32) -> Result<Attributes, i32> {
    let mut query = Attributes::default();
    for (attribute, value) in &options.attributes {
        query.set(*attribute, value);
    }
    let (pid, now) = (process::id(), crate::os::wall_clock());
    query.set(attributes::TIMESTAMP, format!("mavistest-{pid}-{now}-{number}").as_bytes());
    let words: Vec<&[u8]> = options.arguments[2..].iter().map(|word| word.as_bytes()).collect();
    match words[..] {
        [kind, user, password] if kind.eq_ignore_ascii_case(value::FTP) => {
            query.set(attributes::TYPE, value::FTP);
            let at = memchr::memchr(b'@', user);
            query.set(attributes::USER, &user[..at.unwrap_or(user.len())]);
            if let Some(at) = at {
                query.set(attributes::VHOST, &user[at + 1..]);
            }
            query.set(attributes::PASSWORD, password);
            query.set(attributes::IPADDR, b"0.0.0.0");
        }
        [kind, user, ref passwords @ ..]
            if kind.eq_ignore_ascii_case(value::TACPLUS) && passwords.len() < 3 =>
        {
            query.set(attributes::TYPE, value::TACPLUS);
            query.set(attributes::USER, user);
            let kinds: [&[u8]; 3] = [b"INFO", b"AUTH", b"CHPW"];
            // A type given with `-a` takes precedence.
            if query.get(attributes::TACTYPE).is_none() {
                query.set(attributes::TACTYPE, kinds[passwords.len()]);
            }
            let slots = [attributes::PASSWORD, attributes::PASSWORD_NEW];
            for (slot, password) in slots.into_iter().zip(passwords) {
                query.set(slot, password);
            }
        }
        _ => {
            log::stderr(
                "mavistest: the type is FTP with a user and a password, or TACPLUS with a ",
            );
            log::stderr("user and at most two passwords\n");
            return Err(exit::USAGE);
        }
    }
    Ok(query)
}

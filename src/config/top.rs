//! The top level of a source: sections, and the directives outside them.

use super::effect::Effect;
use super::rules::Rules;
use super::source::Source;
use super::system::System;
use super::token::*;
use super::{common, ConfigError, Parser, Position};
use std::io;
use std::rc::Rc;

/// Why [`read`] failed.
#[derive(Debug)]
pub enum ReadError {
    /// The source could not be read.
    Open {
        /// Its name.
        name: String,
        /// The reason.
        error: io::Error,
    },
    /// The source has no section of that name.
    NoSection {
        /// The end of the source.
        position: Position,
        /// The section's name.
        section: String,
    },
    /// The mistake that ended the reading.
    Syntax(ConfigError),
    /// There are mistakes, and all have been reported.
    Reported,
}

impl From<ConfigError> for ReadError {
    fn from(error: ConfigError) -> ReadError {
        ReadError::Syntax(error)
    }
}

impl ReadError {
    /// The exit status for this error (sysexits.h).
    pub fn exit_status(&self) -> i32 {
        use crate::os::process::exit;
        match self {
            ReadError::Open { .. } => exit::NO_INPUT,
            _ => exit::CONFIGURATION,
        }
    }
}

/// The result of [`read`].
#[derive(Debug)]
pub struct Reading<T> {
    /// The section's settings and those of the common directives, or the error.
    pub result: Result<(T, common::Common), ReadError>,
    /// The effects recorded up to the end of reading, also after an error.
    pub effects: Vec<Effect>,
}

/// Reads `source`, finds the first section called `section`, and lets `parse` read the text in its
/// braces. Skips sections of other names, and reads nothing after the selected one. With `-P`,
/// reads on after a mistake, to report others as well.
pub fn read<T>(
    source: Source,
    section: &str,
    rules: Rules,
    system: Rc<dyn System>,
    parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ConfigError>,
) -> Reading<T> {
    let mut parser = Parser::new(source, rules, system);
    if rules.parse_only {
        parser.report_mistakes();
    }
    let result = read_with(&mut parser, section, parse);
    Reading { result, effects: parser.take_effects() }
}

fn read_with<T>(
    parser: &mut Parser<'_>,
    section: &str,
    parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ConfigError>,
) -> Result<(T, common::Common), ReadError> {
    parser.start()?;
    match find_section(parser, section) {
        // A mistake may have made it skip the section: do not report that as well.
        Err(ReadError::NoSection { .. }) if parser.has_reported() => {
            return Err(ReadError::Reported)
        }
        found => found?,
    }
    let result = parse(parser)?;
    parser.expect(S_closebra)?;
    match parser.has_reported() {
        true => Err(ReadError::Reported),
        false => Ok((result, std::mem::take(&mut parser.common))),
    }
}

/// Reads up to the first token in the braces of the first section called `section`.
pub fn find_section(parser: &mut Parser<'_>, section: &str) -> Result<(), ReadError> {
    loop {
        match parser.code() {
            S_eof => {
                let position = parser.position();
                return Err(ReadError::NoSection { position, section: section.to_owned() });
            }
            S_id => {
                parser.advance()?;
                parser.accept(S_equal)?;
                if parser.text() != section.as_bytes() {
                    skip_section(parser)?;
                    continue;
                }
                parser.advance()?;
                return Ok(parser.expect(S_openbra)?);
            }
            _ => parser.attempt(|parser| match common::parse_top(parser)? {
                true => Ok(()),
                false => Err(parser.expected(&common::TOP_LEVEL)),
            })?,
        }
    }
}

/// Skips `NAME { … }`, counting braces.
fn skip_section(parser: &mut Parser<'_>) -> Result<(), ConfigError> {
    parser.set_quiet(true);
    parser.advance()?;
    parser.expect(S_openbra)?;
    let mut depth = 1;
    loop {
        match parser.code() {
            S_eof => return Err(parser.error("EOF unexpected")),
            S_openbra => depth += 1,
            S_closebra => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            // The token after the brace is read as usual again.
            parser.set_quiet(false);
        }
        parser.advance()?;
        if depth == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::relay;
    use crate::config::relay::names::{Place, Question};
    use crate::config::system::Nowhere;
    use std::net::{Ipv4Addr, SocketAddr};

    fn relay_section(text: &str) -> Reading<relay::Section> {
        let source = Source::new("t.cfg", text.as_bytes().to_vec());
        read(source, "x", Rules::default(), Rc::new(Nowhere), |parser| {
            relay::parse(parser, &mut relay::skip_modules)
        })
    }

    #[test]
    fn later_text_sees_what_setenv_has_said_and_the_process_does_not() {
        let reading = relay_section(
            "setenv A_PORT = 1234\nsetenv GONE = 1\nunsetenv = GONE\n\
             id = x { remote = { address = host port = \"${A_PORT}\" tag = \"${GONE}\" } }\n",
        );
        let (section, _) = reading.result.expect("a section");
        let found = |port| vec![Place::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))];
        let mut look_up = |question: &Question<'_>| Ok(Some(found(question.port)));
        let relay = section.resolve(&mut look_up).expect("an address");
        assert_eq!(relay.remotes[0].address.port(), 1234);
        assert_eq!(relay.remotes[0].tags, ["${GONE}"]);
        let [Effect::SetVariable(name, value), Effect::SetVariable(..), Effect::UnsetVariable(gone)] =
            &reading.effects[..]
        else {
            panic!("{:?}", reading.effects);
        };
        assert_eq!((&**name, &**value, &**gone), ("A_PORT", "1234", "GONE"));
    }

    #[test]
    fn effects_come_in_order_also_before_a_mistake() {
        let reading = relay_section(
            "syslog ident = one\nsyslog default = no\ninclude = missing\n\
             syslog ident = two\ndebug = PARSE\nnonsense\n",
        );
        assert!(matches!(reading.result, Err(ReadError::Syntax(_))));
        let mut effects = reading.effects.iter();
        assert!(matches!(effects.next(), Some(Effect::Ident(name)) if name == "one"));
        // The failed include is reported before `syslog default` takes effect.
        assert!(matches!(effects.next(), Some(Effect::Message(..))));
        assert!(matches!(effects.next(), Some(Effect::SyslogDefault(false))));
        assert!(matches!(effects.next(), Some(Effect::Ident(name)) if name == "two"));
        assert!(matches!(effects.next(), Some(Effect::Debug(1))));
        assert!(effects.next().is_some() && effects.all(|one| matches!(one, Effect::Trace(_))));
    }

    #[test]
    fn blocks_of_modules_are_skipped_whatever_is_in_their_expressions() {
        let reading = relay_section(
            "id = x {\n mavis path = /there\n mavis module some = external {\n exec = /bin/x\n \
             script in = { if ($USER =~ /^\\{\"'a{2}/) skip if ($USER !~ /}/ ) { continue } }\n }\n \
             mavis module = other { a = { b } }\n authorization = mavis\n \
             remote = { address = 192.0.2.1 port = 1 }\n}\n",
        );
        let (section, _) = reading.result.expect("a section");
        let relay = section.resolve(&mut |_| unreachable!("no name")).expect("an address");
        assert_eq!(relay.remotes.len(), 1);
        assert!(relay.authorization.is_some());
    }
}

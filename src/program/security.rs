//! What TLS needs at the start of a process: files that are read, and checked.

use crate::config::relay::Relay;
use crate::config::report::Report;
use crate::config::source::Source;
use crate::os::process::{self, exit};
use crate::os::secret::{wipe, Secret};
use crate::os::{self, log, tls as library};
use crate::spawnd::broker::Secrets;
use crate::tls::context::{self, Contexts};
use crate::tls::material::Material;
use crate::tls::tickets::{self, Ratchet};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// Why a process cannot start, and the exit status that goes with it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) text: String,
    pub(super) status: i32,
}

impl From<context::Error> for Refusal {
    fn from(error: context::Error) -> Refusal {
        let status = if error.configuration { exit::CONFIGURATION } else { exit::UNAVAILABLE };
        Refusal { text: error.text, status }
    }
}

/// Reads the files that a section names and that are not known yet. Those of listeners only if
/// there are any with TLS.
fn read(settings: &Relay, material: &mut Material, listener: bool) -> Result<(), Refusal> {
    for path in context::files(settings, listener) {
        material
            .read(path)
            .map_err(|error| context::Error::unreadable(path, &settings.tls, &error))?;
    }
    Ok(())
}

/// Makes the contexts of a process that relays. `tickets`: those of the broker, if it has told.
pub(super) fn contexts(
    settings: &Relay,
    material: &mut Material,
    tickets: Option<Ratchet>,
    listener: bool,
    strict: bool,
) -> Result<Contexts, Refusal> {
    read(settings, material, listener)?;
    let tickets = match tickets {
        Some(tickets) => tickets,
        None => {
            let mut tickets = fresh()?;
            tickets.set_period(settings.tls.session_timeout.into());
            tickets
        }
    };
    Ok(library::wiping(|| Contexts::load(settings, material, tickets, listener, strict))?)
}

/// What workers will be told, with the keys of session tickets that a former image has left in a
/// pipe, or fresh ones.
pub(super) fn secrets(former: Option<OwnedFd>) -> Result<Secrets, Refusal> {
    let mut data = [0; tickets::ENCODED];
    let former = former.and_then(|pipe| File::from(pipe).read_exact(&mut data).ok());
    let tickets = match former {
        Some(()) => Ratchet::decode(&data),
        None => fresh()?,
    };
    wipe(&mut data);
    Ok(Secrets { material: Material::default(), tickets, reread: None })
}

fn fresh() -> Result<Ratchet, Refusal> {
    // Another period may be set later.
    Ratchet::random(os::wall_clock(), 7200).map_err(|errors| Refusal {
        text: format!("RAND_priv_bytes: {errors}"),
        status: exit::OS_ERROR,
    })
}

/// What [`check`] has found.
pub(super) struct Checked {
    pub(super) material: Material,
    pub(super) session_timeout: u32,
}

/// Reads a relay's section and the files for its TLS, and makes sure that they can be used. A
/// child does that: neither do the section's directives act on this process, nor do keys stay in
/// its memory other than as they are to be passed on. `None` if the section cannot be read.
pub(super) fn check(
    source: &Source,
    section: &str,
    listener: bool,
) -> Result<Option<Checked>, Refusal> {
    let failed = |error: std::io::Error| Refusal {
        text: format!("check of TLS files: {}", os::reason(&error)),
        status: exit::OS_ERROR,
    };
    let answer = process::ask_child(|| match check_here(source, section, listener) {
        Ok(None) => Secret::copy(&[NOTHING]),
        Ok(Some((material, timeout))) => {
            let encoded = material.encode(&Ratchet::new([0; 32], 0, 1))?;
            let mut answer = Secret::zeroed(5 + encoded.len())?;
            answer[0] = CHECKED;
            answer[1..5].copy_from_slice(&timeout.to_ne_bytes());
            answer[5..].copy_from_slice(&encoded);
            Ok(answer)
        }
        Err(refusal) => {
            let mut answer = vec![REFUSED];
            answer.extend_from_slice(&refusal.status.to_ne_bytes());
            answer.extend_from_slice(refusal.text.as_bytes());
            Secret::copy(&answer)
        }
    });
    let answer = match answer {
        // A module has ended the child, for a mistake in its block: the worker will say so.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        answer => answer.map_err(failed)?,
    };
    let number = || answer.get(1..5).and_then(|bytes| bytes.try_into().ok());
    match (answer.first(), number()) {
        (Some(&CHECKED), Some(timeout)) => {
            let decoded = Material::decode(&answer[5..]);
            Ok(decoded.map(|(material, _)| Checked {
                material,
                session_timeout: u32::from_ne_bytes(timeout),
            }))
        }
        (Some(&REFUSED), Some(status)) => Err(Refusal {
            text: String::from_utf8_lossy(&answer[5..]).into_owned(),
            status: i32::from_ne_bytes(status),
        }),
        _ => Ok(None),
    }
}

/// First bytes of the child's answer.
const NOTHING: u8 = 0;
const CHECKED: u8 = 1;
const REFUSED: u8 = 2;

fn check_here(
    source: &Source,
    section: &str,
    listener: bool,
) -> Result<Option<(Material, u32)>, Refusal> {
    // Modules have their own ways to say something.
    log::mute();
    let quiet = Report { quiet: true, ..Report::default() };
    let name = &source.name;
    let source = Source::new(name, source.text.clone());
    let mut events = super::early_loop()
        .map_err(|status| Refusal { text: "the event loop cannot be made".to_owned(), status })?;
    let read = super::section::read_source(source, section, &quiet, &mut events);
    let Ok((settings, ..)) = read else {
        return Ok(None);
    };
    let mut material = Material::default();
    contexts(&settings, &mut material, None, listener, true).map_err(|refusal| {
        // Otherwise the message names a file.
        let place = format!("{name}: id = {section}: ");
        let place = if refusal.status == exit::CONFIGURATION { &place } else { "" };
        Refusal { text: format!("{place}{}", refusal.text), ..refusal }
    })?;
    Ok(Some((material, settings.tls.session_timeout)))
}

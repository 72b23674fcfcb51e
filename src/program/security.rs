//! What TLS needs at the start of a process: files that are read, and checked.

use super::own::{Listeners, OwnRemote};
use crate::broker::Secrets;
use crate::config::relay::Relay;
use crate::config::report::Report;
use crate::config::source::Source;
use crate::config::tls::{Expired, Kind};
use crate::os::process::{self, exit};
use crate::os::secret::Secret;
use crate::os::{self, log, tls as library};
use crate::snapshot::material::Material;
use crate::snapshot::texts::{self as snapshot, Snapshot};
use crate::tls::context::{self, Contexts};
use crate::tls::error::Error;
use crate::tls::tickets::Ratchet;
use crate::tls::validity::{self, Finding, Subject};

/// Why a process cannot start, and the exit status that goes with it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) text: String,
    pub(super) status: i32,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let status = if error.configuration { exit::CONFIGURATION } else { exit::UNAVAILABLE };
        Refusal { text: error.text, status }
    }
}

/// Reads the files that a section names and that are not known yet. Those of listeners only if
/// there are any with TLS.
fn read(settings: &Relay, material: &mut Material, listener: bool) -> Result<(), Refusal> {
    for (path, kind) in context::files(settings, listener) {
        let read = match kind {
            Kind::File => Material::read_file,
            Kind::FileOrDirectory => Material::read,
        };
        read(material, path).map_err(|error| Error::unreadable(path, settings, &error))?;
    }
    Ok(())
}

/// Makes the contexts of a process that relays. `tickets`: those of the broker, if it has told.
pub(super) fn contexts(
    settings: &Relay,
    material: &mut Material,
    tickets: Option<Ratchet>,
    listener: bool,
) -> Result<Contexts, Refusal> {
    read(settings, material, listener)?;
    let tickets = match tickets.filter(|tickets| !listener || !tickets.is_unset()) {
        Some(tickets) => tickets,
        None if !listener => Ratchet::unset(),
        None => {
            let mut tickets = fresh()?;
            tickets.set_period(settings.tls.session_timeout.into());
            tickets
        }
    };
    Ok(library::wiping(|| Contexts::load(settings, material, tickets, listener))?)
}

/// What workers will be told, with the keys of session tickets that a former image has left, or
/// fresh ones. Without a `listener` that has TLS nothing is asked of OpenSSL, which may be unable.
pub(super) fn secrets(former: Option<Ratchet>, listener: bool) -> Result<Secrets, Refusal> {
    let tickets = match former.filter(|tickets| !tickets.is_unset()) {
        Some(tickets) => tickets,
        None if !listener => Ratchet::unset(),
        None => fresh()?,
    };
    Ok(Secrets { material: Material::default(), tickets })
}

fn fresh() -> Result<Ratchet, Refusal> {
    // Another period may be set later.
    Ratchet::random(os::wall_clock(), 7200).map_err(|errors| Refusal {
        text: format!("RAND_priv_bytes: {errors}"),
        status: exit::OS_ERROR,
    })
}

/// What a configuration is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A service that is to begin, or `-P`.
    Start,
    /// One that is running: it goes on with certificates that have expired meanwhile.
    Reload,
}

/// What [`check`] has found.
pub(super) struct Checked {
    pub(super) material: Material,
    pub(super) session_timeout: u32,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
    /// Remotes that are listeners.
    pub(super) own: Vec<OwnRemote>,
}

/// Looks at the dates of everything that TLS uses. Returns what is to be said of it.
pub(super) fn examine(
    settings: &Relay,
    material: &Material,
    listener: bool,
    purpose: Purpose,
) -> Result<Vec<String>, Refusal> {
    let mut warnings = Vec::new();
    for Finding { text, subject } in validity::examine(settings, material, listener)? {
        let refused = match (settings.tls.expired, purpose) {
            (Expired::Refuse, _) => subject != Subject::Other,
            (Expired::Warn, Purpose::Start) => subject == Subject::DefaultCertificate,
            (Expired::Warn, Purpose::Reload) => false,
        };
        if refused {
            return Err(Refusal { text, status: exit::UNAVAILABLE });
        }
        warnings.push(format!("WARNING: {text}"));
    }
    Ok(warnings)
}

/// Reads a relay's section and the files for its TLS, and makes sure that they can be used. A
/// child does that: neither do the section's directives act on this process, nor do keys stay in
/// its memory other than as they are to be passed on. `None` if the section cannot be read. The texts
/// that it has read are known here then.
pub(super) fn check(
    source: &Source,
    section: &str,
    listener: bool,
    listeners: &Listeners,
    purpose: Purpose,
) -> Result<Option<Checked>, Refusal> {
    let check = || check_here(source, section, listener, listeners, purpose);
    let failed = |error: std::io::Error| Refusal {
        text: format!("check of TLS files: {}", os::reason(&error)),
        status: exit::OS_ERROR,
    };
    let answer = process::ask_child(|| match check() {
        Ok(None) => Secret::copy(&[NOTHING]),
        Ok(Some(Checked { material, session_timeout, warnings, own })) => {
            let encoded = Ratchet::new([0; 32], 0, 1).encode_with(&material)?;
            let own = own.iter().map(|own| format!("{}\t{}", own.name, own.text));
            let own = own.collect::<Vec<_>>().join("\n");
            let warnings = warnings.join("\n");
            let texts = snapshot::current().unwrap_or_default().encode();
            let fields = [warnings.as_bytes(), own.as_bytes(), &texts, &encoded];
            let length: usize = fields.iter().map(|field| 8 + field.len()).sum();
            let mut answer = Secret::zeroed(5 + length)?;
            answer[0] = CHECKED;
            answer[1..5].copy_from_slice(&session_timeout.to_ne_bytes());
            let mut at = 5;
            for field in fields {
                answer[at..at + 8].copy_from_slice(&(field.len() as u64).to_ne_bytes());
                answer[at + 8..at + 8 + field.len()].copy_from_slice(field);
                at += 8 + field.len();
            }
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
    let number = |at: usize| answer.get(at..)?.first_chunk().copied();
    match (answer.first(), number(1)) {
        (Some(&CHECKED), Some(timeout)) => Ok(checked(&answer[5..], u32::from_ne_bytes(timeout))),
        (Some(&REFUSED), Some(status)) => Err(Refusal {
            text: String::from_utf8_lossy(&answer[5..]).into_owned(),
            status: i32::from_ne_bytes(status),
        }),
        _ => Ok(None),
    }
}

/// Reads what the child has found: warnings, own remotes, texts and material, each after its length.
fn checked(mut answer: &[u8], session_timeout: u32) -> Option<Checked> {
    let mut field = || {
        let (length, rest) = answer.split_first_chunk()?;
        let length = usize::try_from(u64::from_ne_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        answer = rest;
        Some(field)
    };
    let warnings = String::from_utf8_lossy(field()?).lines().map(str::to_owned).collect();
    let own = String::from_utf8_lossy(field()?);
    let own = own.lines().filter_map(|line| line.split_once('\t'));
    let own = own.map(|(name, text)| OwnRemote { name: name.into(), text: text.into() }).collect();
    snapshot::enter(Snapshot::decode(field()?)?);
    let (material, _) = Ratchet::decode_with(field()?)?;
    Some(Checked { material, session_timeout, warnings, own })
}

/// First bytes of the child's answer.
const NOTHING: u8 = 0;
const CHECKED: u8 = 1;
const REFUSED: u8 = 2;

fn check_here(
    source: &Source,
    section: &str,
    listener: bool,
    listeners: &Listeners,
    purpose: Purpose,
) -> Result<Option<Checked>, Refusal> {
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
    contexts(&settings, &mut material, None, listener).map_err(|refusal| {
        // Otherwise the message names a file.
        let place = format!("{name}: id = {section}: ");
        let place = if refusal.status == exit::CONFIGURATION { &place } else { "" };
        Refusal { text: format!("{place}{}", refusal.text), ..refusal }
    })?;
    let warnings = examine(&settings, &material, listener, purpose)?;
    let (own, session_timeout) = (listeners.among(&settings), settings.tls.session_timeout);
    Ok(Some(Checked { material, session_timeout, warnings, own }))
}

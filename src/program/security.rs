//! What TLS needs at the start of a process: files that are read, and checked.

use super::own::{Listeners, OwnRemote};
use super::section;
use super::system::Live;
use crate::broker::Secrets;
use crate::config::relay::Relay;
use crate::config::source::Source;
use crate::config::tls::{Expired, Kind};
use crate::os::process::exit;
use crate::os::{self, tls as library};
use crate::snapshot::material::Material;
use crate::tls::context::{self, Contexts};
use crate::tls::error::Error;
use crate::tls::tickets::Ratchet;
use crate::tls::validity::{self, Finding, Subject};
use std::rc::Rc;

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

/// As [`contexts`], with what the broker has read: no file is.
pub(super) fn contexts_of_broker(
    settings: &Relay,
    material: &Material,
    tickets: Ratchet,
    listener: bool,
) -> Result<Contexts, Refusal> {
    for (path, _) in context::files(settings, listener) {
        if material.get(path).is_none() {
            let error = std::io::Error::other("not among the files that the broker has read");
            return Err(Error::unreadable(path, settings, &error).into());
        }
    }
    Ok(library::wiping(|| Contexts::load(settings, material, tickets, listener))?)
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
    Ok(Secrets { material: Rc::default(), tickets })
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
    pub(super) material: Rc<Material>,
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

/// Reads a relay's section and the files for its TLS, and makes sure that they can be used. `None` if
/// the section cannot be read. Its keys are wiped here when they were tried, and stay only as they are
/// to be passed on.
pub(super) fn check(
    source: &Source,
    section: &str,
    system: &Rc<Live>,
    listeners: &Listeners,
    tls: bool,
    purpose: Purpose,
) -> Result<Option<Checked>, Refusal> {
    let name = &source.name;
    let source = Source::new(name, source.text.clone());
    let Some(settings) = section::examine(source, section, system) else {
        return Ok(None);
    };
    let mut material = Material::default();
    let made = contexts(&settings, &mut material, None, tls).map_err(|refusal| {
        // Otherwise the message names a file.
        let place = format!("{name}: id = {section}: ");
        let place = if refusal.status == exit::CONFIGURATION { &place } else { "" };
        Refusal { text: format!("{place}{}", refusal.text), ..refusal }
    })?;
    library::wiping(|| drop(made));
    let warnings = examine(&settings, &material, tls, purpose)?;
    let (own, session_timeout) = (listeners.among(&settings), settings.tls.session_timeout);
    Ok(Some(Checked { material: Rc::new(material), session_timeout, warnings, own }))
}

//! What TLS needs at the start of a process: reads the files, and checks them.

use super::own::{self, Listeners, OwnRemote};
use super::report::Report;
use super::section;
use super::service::Service;
use super::system::Live;
use crate::broker::{self, Secrets};
use crate::config::broker::Broker;
use crate::config::relay::{LocalAddress, Relay};
use crate::config::source::Source;
use crate::config::tls::{Expired, Kind};
use crate::os::process::{exit, Rights};
use crate::os::{self, log, tls as library};
use crate::snapshot::material::Material;
use crate::tls::context::{self, Contexts, Ends};
use crate::tls::error::Error;
use crate::tls::keys;
use crate::tls::tickets::Ratchet;
use crate::tls::validity::{self, Finding, Subject};
use std::rc::Rc;

/// Why a process cannot start, and its exit status.
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

/// Where a service has TLS.
pub(super) fn ends_of(config: &Broker) -> Ends {
    if config.has_tls_listeners() {
        Ends::Both
    } else {
        Ends::Remotes
    }
}

/// Reads the files that a section names, unless they are known already. Those for listeners are
/// read only if there are listeners with TLS.
fn read(settings: &Relay, material: &mut Material, ends: Ends) -> Result<(), Refusal> {
    for (path, kind) in context::files(settings, ends) {
        let read = match kind {
            Kind::File => Material::read_file,
            Kind::FileOrDirectory => Material::read,
        };
        read(material, path).map_err(|error| Error::unreadable(path, settings, &error))?;
    }
    Ok(())
}

/// As [`contexts`], from what the broker has read: no file is read here.
pub(super) fn contexts_of_broker(
    settings: &Relay,
    material: &Material,
    tickets: Ratchet,
    ends: Ends,
) -> Result<Contexts, Refusal> {
    for (path, _) in context::files(settings, ends) {
        if material.get(path).is_none() {
            let error = std::io::Error::other("not among the files that the broker has read");
            return Err(Error::unreadable(path, settings, &error).into());
        }
    }
    Ok(library::wiping(|| Contexts::load(settings, material, tickets, ends))?)
}

/// Makes the TLS contexts of a process that relays. `tickets` are the broker's, if it has sent any.
pub(super) fn contexts(
    settings: &Relay,
    material: &mut Material,
    tickets: Option<Ratchet>,
    ends: Ends,
) -> Result<Contexts, Refusal> {
    read(settings, material, ends)?;
    let tickets = match tickets.filter(|tickets| ends == Ends::Remotes || !tickets.is_unset()) {
        Some(tickets) => tickets,
        None if ends == Ends::Remotes => Ratchet::unset(),
        None => {
            let mut tickets = fresh()?;
            tickets.set_period(settings.tls.session_timeout.into());
            tickets
        }
    };
    Ok(library::wiping(|| Contexts::load(settings, material, tickets, ends))?)
}

/// The secrets for workers, with the keys of session tickets that the former image left, or fresh
/// ones. Without listeners that have TLS, OpenSSL is not asked for random keys, as it may be
/// unable to give any.
pub(super) fn secrets(former: Option<Ratchet>, ends: Ends) -> Result<Secrets, Refusal> {
    let tickets = match former.filter(|tickets| !tickets.is_unset()) {
        Some(tickets) => tickets,
        None if ends == Ends::Remotes => Ratchet::unset(),
        None => fresh()?,
    };
    Ok(Secrets { material: Rc::default(), tickets, monitored: false })
}

fn fresh() -> Result<Ratchet, Refusal> {
    // The period is set later, if another one is configured.
    Ratchet::random(os::wall_clock(), 7200).map_err(|errors| Refusal {
        text: format!("RAND_priv_bytes: {errors}"),
        status: exit::OS_ERROR,
    })
}

/// Why a configuration is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A service is about to start, or `-P`.
    Start,
    /// A service is running: it goes on with certificates that have expired meanwhile.
    Reload,
}

/// Who may hold the private keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A process of their own, if the configuration wants that.
    Signer,
    /// This process, which is broker and worker at the same time.
    Single,
}

/// What [`check`] has found.
pub(super) struct Checked {
    pub(super) material: Rc<Material>,
    pub(super) session_timeout: u32,
    /// The section has something for a monitor to do.
    pub(super) monitored: bool,
    /// What the section needs of root's rights.
    pub(super) rights: Rights,
    /// Warnings for the user.
    pub(super) warnings: Vec<String>,
    /// Remotes that are listeners of this relay.
    pub(super) own: Vec<OwnRemote>,
}

/// Checks the dates of everything that TLS uses. Returns the warnings.
pub(super) fn examine(
    settings: &Relay,
    material: &Material,
    ends: Ends,
    purpose: Purpose,
) -> Result<Vec<String>, Refusal> {
    let mut warnings = Vec::new();
    for Finding { text, subject } in validity::examine(settings, material, ends)? {
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

/// Reads a relay's section and its files for TLS, and makes sure that they can be used. `None` if
/// the section cannot be read. Keys that were parsed for this are wiped; only the contents of the
/// files stay, to be passed on.
pub(super) fn check(
    source: &Source,
    section: &str,
    system: &Rc<Live>,
    listeners: &Listeners,
    config: &Broker,
    purpose: Purpose,
    holder: Holder,
) -> Result<Option<Checked>, Refusal> {
    let name = &source.name;
    let source = Source::new(name, source.text.clone());
    let Some(settings) = section::examine(source, section, system) else {
        return Ok(None);
    };
    let (mut material, ends) = (Material::default(), ends_of(config));
    let made = contexts(&settings, &mut material, None, ends).map_err(|refusal| {
        // Other messages name a file.
        let place = format!("{name}: id = {section}: ");
        let place = if refusal.status == exit::CONFIGURATION { &place } else { "" };
        Refusal { text: format!("{place}{}", refusal.text), ..refusal }
    })?;
    library::wiping(|| drop(made));
    let mut warnings = examine(&settings, &material, ends, purpose)?;
    warnings.extend(settings.routes.unmatched(&config.listeners));
    if keys::are_separate(&settings)? && holder == Holder::Signer {
        library::wiping(|| keys::set_apart(&settings, &mut material, ends))?;
    }
    let (own, session_timeout) = (listeners.among(&settings), settings.tls.session_timeout);
    let (material, monitored) = (Rc::new(material), settings.is_monitored());
    let rights = match settings.local {
        LocalAddress::Client => Rights::ForeignAddresses,
        LocalAddress::System | LocalAddress::Own(_) => Rights::None,
    };
    Ok(Some(Checked { material, session_timeout, monitored, rights, warnings, own }))
}

/// What a broker knows for its workers.
pub(super) struct ForWorkers {
    pub(super) secrets: Secrets,
    /// `tls session timeout`.
    pub(super) session_timeout: u32,
    /// What they may do as another user.
    pub(super) rights: Rights,
}

/// Finds out what a broker knows for its workers.
///
/// Reads and checks what the relay's section needs for TLS: this process may read files that
/// workers may not, and a broken file is found before anything is started. Other programs' workers
/// are left alone, and mistakes in the section are left to the worker to report. `former` is what
/// the former image has left, `text` the configuration; remotes must not be among `listeners`.
pub(super) fn for_workers(
    service: &Service<'_>,
    listeners: &Listeners,
    purpose: Purpose,
    former: Option<(Ratchet, Option<broker::Checked>)>,
    text: &[u8],
    system: &Rc<Live>,
) -> Result<ForWorkers, Refusal> {
    let Service { options, config, .. } = service;
    let (tickets, checked) = former.unzip();
    let secrets = secrets(tickets, ends_of(config))?;
    let mut known = ForWorkers { secrets, session_timeout: 0, rights: Rights::None };
    if !service.has_own_workers() || options.version {
        return Ok(known);
    }
    if let Some(checked) = checked.flatten() {
        let broker::Checked { material, session_timeout, monitored, rights } = checked;
        known.learn(material, session_timeout, monitored, rights);
        return Ok(known);
    }
    let source = match config.spawn.config.as_ref().filter(|_| !service.single) {
        Some(other) => match section::open(other, system) {
            Ok(source) => source,
            Err(_) => return Ok(known),
        },
        None => Source::new(service.source(), text.to_vec()),
    };
    // Relative names in the section start in the workers' directory, written as the system will
    // report it there.
    let directory = config.spawn.directory.as_ref().filter(|_| !service.single);
    system.reader.set_directory(directory.and_then(|directory| directory.canonicalize().ok()));
    let holder = if service.single { Holder::Single } else { Holder::Signer };
    let section = service.relay_section();
    if let Some(checked) = check(&source, section, system, listeners, config, purpose, holder)? {
        system.reader.complete();
        for text in &checked.warnings {
            system.report.message(log::Severity::WARNING, text);
        }
        own_remotes(&checked.own, options.parse_only, &system.report)?;
        let Checked { material, session_timeout, monitored, rights, .. } = checked;
        known.learn(material, session_timeout, monitored, rights);
    }
    Ok(known)
}

impl ForWorkers {
    fn learn(&mut self, material: Rc<Material>, timeout: u32, monitored: bool, rights: Rights) {
        self.secrets.material = material;
        self.secrets.monitored = monitored;
        self.secrets.tickets.set_period(timeout.into());
        self.session_timeout = timeout;
        self.rights = rights;
    }
}

/// A remote that is a listener of this relay is a mistake, and a check refuses it. But a service
/// that works in part is better than none, so it starts without that remote.
fn own_remotes(own: &[OwnRemote], check: bool, report: &Report) -> Result<(), Refusal> {
    if let (true, Some((last, others))) = (check, own.split_last()) {
        for remote in others {
            report.message(log::Severity::ERROR, &remote.text);
        }
        return Err(Refusal { text: last.text.clone(), status: exit::CONFIGURATION });
    }
    for remote in own {
        report.message(log::Severity::ERROR, &format!("{}; it is not used", remote.text));
    }
    own::tell(own);
    Ok(())
}

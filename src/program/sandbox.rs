//! Whether a worker is confined, and what is logged if it is not.

use crate::config::common::Common;
use crate::config::relay::{LocalAddress, Relay};
use crate::mavis::search::Modules;
use crate::os::address::Address;
use crate::os::sandbox::{self, Confinement, Needs, Network};
use crate::os::{self, log, scope};
use std::path::{Path, PathBuf};

/// What decides about the sandbox of a worker.
pub(super) struct Sandbox {
    /// The directive `sandbox`, if it is set.
    wanted: Option<bool>,
    /// Something that may need more than a sandbox allows.
    obstacle: Option<String>,
    /// UNIX sockets of remotes.
    sockets: Vec<PathBuf>,
    modules: bool,
    names: bool,
    kernel_tls: bool,
    transparent: bool,
    accepts: bool,
    core_directory: Option<PathBuf>,
}

impl Sandbox {
    /// Collects what the sandbox needs to know, before settings and modules are moved elsewhere.
    pub(super) fn of(settings: &Relay, common: &Common, modules: &Modules) -> Sandbox {
        let mut sandbox = Sandbox::of_monitor(settings, common);
        sandbox.accepts = false;
        sandbox.modules = !modules.is_empty();
        sandbox.names = false;
        if let Some(name) = &modules.unconfined {
            let text = format!("the module '{name}' may start programs or write files");
            sandbox.obstacle = Some(text);
        }
        sandbox
    }

    /// As [`of`](Self::of), for a process without modules.
    pub(super) fn of_monitor(settings: &Relay, common: &Common) -> Sandbox {
        // gcore and debug-cmd are run when the process crashes.
        let gcore = common.core_directory.as_ref().and(common.core_command.as_ref());
        let obstacle = match (gcore, &common.debug_command) {
            (Some(_), _) => Some("gcore starts a program".to_owned()),
            (None, Some(_)) => Some("debug-cmd starts a program".to_owned()),
            (None, None) => None,
        };
        let sockets = settings.remotes.iter().filter_map(|remote| match &remote.address {
            Address::Unix(path) => Some(path.clone()),
            Address::Ip(_) => None,
        });
        Sandbox {
            wanted: settings.sandbox,
            obstacle,
            sockets: sockets.collect(),
            modules: false,
            names: !settings.names.is_empty() || settings.tls.fetches_ocsp(),
            kernel_tls: settings.tls.kernel,
            transparent: settings.local == LocalAddress::Client,
            accepts: true,
            core_directory: common.core_directory.clone(),
        }
    }

    /// Confines the process if the configuration wants that. If it does not say, something that may
    /// need more than a sandbox allows prevents it. A worker that cannot be confined goes on
    /// without.
    pub(super) fn enter(&self) {
        match (self.wanted, &self.obstacle) {
            (Some(false), _) => return,
            (None, Some(obstacle)) => {
                return log::message(&format!("no sandbox: {obstacle}"));
            }
            _ => {}
        }
        scope::remember();
        let sockets: Vec<&Path> = self.sockets.iter().map(PathBuf::as_path).collect();
        let needs = Needs {
            sockets: &sockets,
            network: Network::Any,
            log_streams: log::takes_streams(),
            modules: self.modules,
            names: self.names,
            kernel_tls: self.kernel_tls,
            transparent: self.transparent,
            accepts: self.accepts,
            core_directory: self.core_directory.as_deref(),
        };
        match sandbox::enter(&needs) {
            Ok(Confinement::Whole) => {}
            Ok(Confinement::None) if self.wanted.is_none() => {}
            Ok(Confinement::None) => log::message("no sandbox: this system has none"),
            Ok(Confinement::WithoutThreads(count)) => log::message(&format!(
                "sandbox: {count} threads of modules keep capabilities and files, as they block signals"
            )),
            Err(error) => log::message(&format!("no sandbox: {}", os::reason(&error))),
        }
    }
}

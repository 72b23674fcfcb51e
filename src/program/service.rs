//! What a broker is asked to be, by its command line and its section together.

use super::options::Options;
use super::Process;
use crate::broker::worker_process::arguments;
use crate::broker::Servers;
use crate::config::broker::Broker as Config;
use crate::config::common::known_debug_bits;
use crate::os::process::{Identity, Program, Rights};
use crate::os::signals::LOG_SIGNAL;
use std::ffi::OsString;
use std::path::PathBuf;

/// A broker as it was asked for.
pub(super) struct Service<'a> {
    pub(super) process: &'a Process,
    pub(super) options: &'a Options,
    pub(super) config: Config,
    /// The relay is to run in this process.
    pub(super) single: bool,
}

impl<'a> Service<'a> {
    /// The file overrides the command line, as in the C program.
    pub(super) fn new(process: &'a Process, options: &'a Options, config: Config) -> Service<'a> {
        let single = config.single_process.unwrap_or(options.single_process);
        Service { process, options, config, single }
    }

    /// The configuration source, as the command line names it.
    pub(super) fn source(&self) -> &'a String {
        &self.options.arguments[0]
    }

    /// True if the workers run this program, or are this very process.
    pub(super) fn has_own_workers(&self) -> bool {
        !self.process.is_foreign() && (self.config.spawn.program.is_none() || self.single)
    }

    /// The configured name of the relay's section; `None` if workers use their own name.
    pub(super) fn relay_id(&self) -> Option<&String> {
        let positional = self.options.arguments.get(1);
        let positional = positional.filter(|_| self.single && self.options.single_process);
        self.options.worker_id.as_ref().or(positional).or(self.config.spawn.id.as_ref())
    }

    /// The name of the relay's section.
    pub(super) fn relay_section(&self) -> &str {
        self.relay_id().unwrap_or(&self.process.name)
    }

    /// Where workers read their configuration from.
    pub(super) fn worker_source(&self) -> OsString {
        let source = self.config.spawn.config.as_ref().unwrap_or(self.source());
        match &self.config.spawn.directory {
            // Workers start in another directory.
            Some(_) if !source.contains("://") => {
                std::path::absolute(source).unwrap_or_else(|_| PathBuf::from(source)).into()
            }
            _ => source.into(),
        }
    }

    /// The program that workers execute; always this one in single-process mode. A relative path is
    /// made absolute if workers start in another directory.
    fn worker_path(&self) -> PathBuf {
        let configured = self.config.spawn.program.clone().filter(|_| !self.single);
        let path = configured.unwrap_or_else(|| self.process.executable());
        match &self.config.spawn.directory {
            Some(_) => std::path::absolute(&path).unwrap_or(path),
            None => path,
        }
    }

    /// How to execute workers: PATH \[-d LEVEL] \[-D] SOURCE \[ID].
    pub(super) fn worker_program(&self, source: OsString) -> Program {
        let spawn = &self.config.spawn;
        let debug = known_debug_bits(self.options.debug);
        let id = self.relay_id().map(OsString::from);
        let arguments = arguments(debug, self.options.debug_to_stderr, Some(source), id);
        Program {
            path: self.worker_path(),
            arguments,
            identity: Identity { uid: spawn.ids.uid, gid: spawn.ids.gid, ..Identity::default() },
            directory: spawn.directory.clone(),
            environment: None,
            group: false,
            held: self.has_own_workers().then_some(LOG_SIGNAL),
        }
    }

    /// Who serves the connections, unless this process does, and what they may do as another user.
    pub(super) fn servers(&self, source: OsString, rights: Rights) -> Servers {
        let mut program = self.worker_program(source);
        program.identity.rights = rights;
        match self.has_own_workers() {
            true => Servers::Own(program),
            false => Servers::Foreign(program),
        }
    }
}

//! Finding modules: `mavis path` and `mavis module`.

use crate::config::token::*;
use crate::config::{ConfigError, Parser};
use crate::os::module::{self, Chain, Head};
use crate::os::{log, names, process};
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The folders of `mavis path`, in their order.
static PATHS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// The C project's modules that break when a query is cancelled: `external` if the query is still
/// in its queue, `external-mt` at the next exit of its child; `remote` does not pass the
/// cancellation on to the next module.
const CANNOT_CANCEL: [&str; 3] = ["external", "external-mt", "remote"];
/// The C project's modules that, once started, only open sockets, and files for reading.
const CONFINED: [&str; 8] = ["auth", "cache", "groups", "limit", "log", "null", "remote", "userdb"];

/// How many modules have been requested so far; numbers them.
static MODULES: AtomicU32 = AtomicU32::new(0);

/// `mavis path = DIRECTORY`, with the token `path` current.
pub fn parse_path(parser: &mut Parser<'_>) -> Result<(), ConfigError> {
    let directory = names::expand_system_type(&parser.assigned()?.text);
    PATHS.lock().unwrap_or_else(PoisonError::into_inner).push(directory);
    Ok(())
}

/// The paths to try for the module called `name`, in order.
fn candidates(name: &str) -> Vec<PathBuf> {
    if name.starts_with('/') {
        return vec![names::expand_system_type(name).into()];
    }
    let file = format!("libmavis_{name}.so");
    let mut folders: Vec<PathBuf> =
        PATHS.lock().unwrap_or_else(PoisonError::into_inner).iter().map(PathBuf::from).collect();
    folders.push(names::expand_system_type(module::DIRECTORY).into());
    // PREFIX/sbin/tcprelay has its modules in PREFIX/lib/mavis.
    let prefix = process::executable().ok();
    if let Some(prefix) = prefix.as_deref().and_then(|path| path.parent()?.parent()) {
        folders.push(prefix.join("lib/mavis"));
    }
    folders.into_iter().map(|folder| folder.join(&file)).collect()
}

/// A module that was loaded.
pub struct Loaded {
    /// Its identifier, by which it recognises its own block.
    pub id: String,
    /// The name of its file, without `libmavis_` and the suffix.
    pub name: String,
}

/// `mavis module [IDENTITY] = NAME {`, with the token `module` current. Appends the module to
/// `chain`, and ends on the first token of its block. The inner error means that there is no such
/// module; then the current token is still its name.
pub fn load(
    parser: &mut Parser<'_>,
    chain: &mut Option<Head>,
    io: *mut c_void,
) -> Result<Result<Loaded, String>, ConfigError> {
    let id = MODULES.fetch_add(1, Ordering::Relaxed).to_string();
    parser.advance()?;
    let mut identity = None;
    if parser.code() != S_equal {
        identity = Some(parser.text().to_vec());
        parser.advance()?;
    }
    parser.expect(S_equal)?;
    let name = parser.text_lossy();
    let mut reasons = Vec::new();
    let loaded = candidates(&name).into_iter().find_map(|path| {
        match Head::load(*chain, io, &path, Some(&id)) {
            Ok(head) => Some((head, path)),
            Err(error) => {
                // Report a file that exists but cannot be loaded.
                reasons.extend(path.exists().then_some(error));
                None
            }
        }
    });
    let Some((head, path)) = loaded else {
        for reason in reasons {
            parser.message(log::Severity::ERROR, reason);
        }
        return Ok(Err(format!("FATAL: module '{name}' not found.")));
    };
    *chain = Some(head);
    head.name_last(identity.as_deref());
    parser.advance()?;
    parser.expect(S_openbra)?;
    // The real file name, whatever the module is called here and whatever link leads to it.
    let file = std::fs::canonicalize(&path).unwrap_or(path);
    let stem =
        file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let name = stem.strip_prefix("libmavis_").unwrap_or(&stem).to_owned();
    Ok(Ok(Loaded { id, name }))
}

/// The modules of a configuration.
#[derive(Debug)]
pub struct Modules {
    /// The chain, if there are any.
    pub chain: Chain,
    /// All of them can cancel a query.
    pub cancel: bool,
    /// The first module that may need more than a sandbox allows, if there is one.
    pub unconfined: Option<String>,
    /// The loop's context, for modules that answer later; if it is null, modules block until they
    /// have the answer.
    io: *mut c_void,
}

impl Modules {
    /// A configuration without modules so far.
    pub fn new(io: *mut c_void) -> Modules {
        Modules { chain: Chain::default(), cancel: true, unconfined: None, io }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.chain.head().is_none()
    }
}

/// `mavis module …` or `mavis path …`, with the token `mavis` current. True for a module.
pub fn parse(parser: &mut Parser<'_>, modules: &mut Modules) -> Result<bool, ConfigError> {
    parser.advance()?;
    match parser.code() {
        S_path => parse_path(parser).map(|()| false),
        S_module => {
            let mut head = modules.chain.head();
            let loaded = load(parser, &mut head, modules.io)?;
            modules.chain.set(head);
            let Loaded { id, name } = loaded.map_err(|text| parser.error(text))?;
            modules.cancel &= !CANNOT_CANCEL.contains(&&*name);
            if modules.unconfined.is_none() && !CONFINED.contains(&&*name) {
                modules.unconfined = Some(name);
            }
            let position = parser.position();
            let result = head.map_or(1, |head| parser.lend(|reader| head.parse(reader, &id)));
            if result != 0 {
                let message = "the module refuses its configuration".to_owned();
                return Err(ConfigError { position, message });
            }
            parser.expect(S_closebra)?;
            Ok(true)
        }
        _ => Err(parser.expected(&[S_module, S_path])),
    }
}

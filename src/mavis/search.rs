//! Finding modules: `mavis path` and `mavis module`.

use crate::config::token::*;
use crate::config::{ConfigError, Parser};
use crate::os::module::{self, Head};
use crate::os::{log, names, process};
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The folders of `mavis path`, in their order.
static PATHS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// How many modules were asked for.
static MODULES: AtomicU32 = AtomicU32::new(0);

/// `mavis path = DIRECTORY`, with the token `path` current.
pub fn parse_path(parser: &mut Parser<'_>) -> Result<(), ConfigError> {
    let directory = names::expand_system_type(&parser.assigned()?.text);
    PATHS.lock().unwrap_or_else(PoisonError::into_inner).push(directory);
    Ok(())
}

/// Where the module called `name` may be, in the order of the search.
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

/// `mavis module [IDENTITY] = NAME {`, with the token `module` current. Appends the module to
/// `chain`, and ends on the first token of its block. Returns the module's identifier, by which it
/// knows that the block is its own; the inner error says that there is no such module, and the
/// token is still its name.
pub fn load(
    parser: &mut Parser<'_>,
    chain: &mut Option<Head>,
    io: *mut c_void,
) -> Result<Result<String, String>, ConfigError> {
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
        // A file that is there and cannot be loaded is worth a word.
        match Head::load(*chain, io, &path, &id) {
            Ok(head) => Some(head),
            Err(error) => {
                reasons.extend(path.exists().then_some(error));
                None
            }
        }
    });
    let Some(head) = loaded else {
        for reason in reasons {
            parser.report().message(log::Severity::ERROR, &reason);
        }
        return Ok(Err(format!("FATAL: module '{name}' not found.")));
    };
    *chain = Some(head);
    head.name_last(identity.as_deref());
    parser.advance()?;
    parser.expect(S_openbra)?;
    Ok(Ok(id))
}

/// `mavis module …` or `mavis path …`, with the token `mavis` current.
pub fn parse(
    parser: &mut Parser<'_>,
    chain: &mut Option<Head>,
    io: *mut c_void,
) -> Result<(), ConfigError> {
    parser.advance()?;
    match parser.code() {
        S_path => parse_path(parser),
        S_module => {
            let id = load(parser, chain, io)?.map_err(|text| parser.error(text))?;
            let position = parser.position();
            let result = chain.map_or(1, |head| parser.lend(|reader| head.parse(reader, &id)));
            if result != 0 {
                let message = "the module refuses its configuration".to_owned();
                return Err(ConfigError { position, message });
            }
            parser.expect(S_closebra)
        }
        _ => Err(parser.expected(&[S_module, S_path])),
    }
}

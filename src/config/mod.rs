//! The configuration language: sources, lexer, and the grammar of each section.
//!
//! Parsing has no side effects: a parser reads one source, looks for one section, and returns the
//! settings and a list of everything else that the text asks for ([`effect::Effect`]), which
//! `program` applies. Questions that only the system can answer go to a [`system::System`], which
//! the caller supplies. Every error names the file, the line and the word at fault.
//!
//! The exception is MAVIS modules: they parse their own blocks in C, with side effects.
//! [`relay::Modules`] says which processes let them.

#![forbid(unsafe_code)]
// Token constants carry the names of the C enumeration.
#![allow(non_upper_case_globals)]

pub mod acl;
pub mod balance;
pub mod broker;
pub mod check;
pub mod clients;
pub mod common;
mod control;
pub mod effect;
pub mod endpoint;
pub mod environment;
mod error;
mod lexer;
pub mod listen;
pub mod network;
mod parser;
mod programs;
pub mod relay;
pub mod route;
pub mod rules;
pub mod source;
mod sym;
pub mod system;
pub mod tls;
pub mod token;
mod top;
mod values;

pub use environment::{Environment, DIRECTORY_VARIABLE};
pub use error::{ConfigError, Position};
pub use parser::Parser;
pub use sym::{JumpBuffer, Sym};
pub use top::{find_section, read, ReadError, Reading};
pub use values::Ids;

use std::sync::{Mutex, PoisonError};

static ABANDON: Mutex<Option<fn()>> = Mutex::new(None);

/// Registers what the process does before it exits because a module found a mistake in its block of
/// the configuration. It has to exit: an error cannot return through the module's C code.
pub fn on_abandon(action: fn()) {
    *ABANDON.lock().unwrap_or_else(PoisonError::into_inner) = Some(action);
}

/// Runs the action registered with [`on_abandon`].
pub(crate) fn abandon() {
    let action = *ABANDON.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(action) = action {
        action();
    }
}

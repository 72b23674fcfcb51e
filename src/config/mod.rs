//! The configuration language: sources, lexer, and the grammar of each section.
//!
//! Pure: a parser reads one source, looks for one section, and gives back settings, and a list of what
//! the text does besides ([`effect::Effect`]), which `program` applies. What only the system knows is
//! asked of a [`system::System`] that comes with the source. Every error names the file, the line and
//! the word concerned.
//!
//! MAVIS modules parse their own blocks, with effects of their own: where is said in
//! [`relay::Modules`].

#![forbid(unsafe_code)]
// Token constants carry the names of the C enumeration.
#![allow(non_upper_case_globals)]

pub mod broker;
pub mod common;
pub mod effect;
pub mod environment;
mod error;
mod lexer;
pub mod listen;
pub mod network;
mod parser;
mod programs;
pub mod relay;
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

/// What a process does before it ends when a module finds a mistake in its block of the
/// configuration: there is no way back through the module's code.
pub fn on_abandon(action: fn()) {
    *ABANDON.lock().unwrap_or_else(PoisonError::into_inner) = Some(action);
}

/// Does it.
pub(crate) fn abandon() {
    let action = *ABANDON.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(action) = action {
        action();
    }
}

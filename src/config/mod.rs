//! The configuration language: sources, lexer, and the grammar of each section.
//!
//! What comes out is plain data, with no descriptor or process behind it. A parser reads one source, looks for one section,
//! and gives back plain data; every error names the file, the line and the word concerned.

#![forbid(unsafe_code)]
// Token constants carry the names of the C enumeration.
#![allow(non_upper_case_globals)]

pub mod broker;
pub mod common;
mod error;
mod lexer;
pub mod listen;
pub mod network;
pub mod relay;
pub mod report;
pub mod source;
mod sym;
pub mod tls;
pub mod token;
mod top;
mod values;

pub use error::{ConfigError, Position};
pub use lexer::{Parser, DIRECTORY_VARIABLE};
pub use sym::Sym;
pub use top::{read, ReadError};

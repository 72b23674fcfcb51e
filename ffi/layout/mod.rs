//! Layouts of C: what C code and this library both look into, and how a value gets from one into the
//! other. Only `ffi` uses them.
//!
//! Some layouts are elsewhere, as they are what the library itself works with: the lexer's state
//! (`struct sym`, `config::Sym`), pairs of a query (`av_ctx`, `mavis::attributes`), and a loaded
//! module (`mavis_ctx`, `os::module`).

pub mod alias;
pub mod common_data;
pub mod condition;
pub mod rbtree;
pub mod sockaddr;
pub mod spawnd_data;
pub mod spawnd_settings;
pub mod timespec;

//! C layouts: the structs that both C code and this library access, and conversions to and from
//! Rust types. Only `ffi` uses them.
//!
//! Some C layouts are elsewhere, because the library itself works with them: the lexer's state
//! (`struct sym`, `config::Sym`), the pairs of a query (`av_ctx`, `mavis::attributes`), and a
//! loaded module (`mavis_ctx`, `os::module`).

pub mod alias;
pub mod common_data;
pub mod condition;
pub mod rbtree;
pub mod sockaddr;
pub mod spawnd_data;
pub mod spawnd_settings;
pub mod timespec;

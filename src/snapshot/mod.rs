//! The bytes that a configuration consists of, read once: its texts, and the files for TLS.

#![forbid(unsafe_code)]

pub mod material;
pub mod texts;

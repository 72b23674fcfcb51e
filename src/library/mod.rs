//! Utilities that libmavis offers to C programs and modules, and that tcprelay itself does not
//! need.
//!
//! Checksums, encodings, containers and text formats, whose results other programs see on the wire,
//! in files or in their own memory. Everything here is pure: functions of their arguments, without
//! system calls or global state. The exported functions are in `ffi`.
#![forbid(unsafe_code)]

pub mod base64;
pub mod blowfish;
mod blowfish_tables;
pub mod crc32;
pub mod cron;
pub mod escape;
pub mod groups;
pub mod md;
pub mod md5crypt;
pub mod network;
pub mod ostype;
pub mod pool;
pub mod radix;
pub mod rbtree;
pub mod timespec;
pub mod tokenize;
pub mod trace;
pub mod utf;

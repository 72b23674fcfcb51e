//! The C ABI of libmavis.so: entry points, and no logic.
//!
//! One file per C header, as `symbols.tsv` lists them; the structs that both C and Rust access are
//! in `layout`. An entry point (`entry.rs`) checks its arguments and converts them to Rust types,
//! calls the code in `src` that tcprelay itself uses, and converts the result back. A null pointer
//! or a number out of range gets the answer that the C interface defines, and is never
//! dereferenced. No panic unwinds into C.
//!
//! Functions that take variable arguments or may leave by longjmp are defined in C
//! (`compat/shims.c`), and `trampolines.rs` exports them. Nothing in `src` uses this module.

mod entry;
mod interface;
pub mod layout;
mod memory;
mod processors;
mod trampolines;

pub mod av_send;
pub mod base64;
pub mod blowfish;
pub mod crc32;
pub mod data;
pub mod debug;
pub mod groups;
pub mod internal;
pub mod io_child;
pub mod io_dns_revmap;
pub mod io_sched;
pub mod log;
pub mod mavis;
pub mod md5crypt;
pub mod memops;
pub mod mymd4;
pub mod mymd5;
pub mod net;
pub mod ostype;
pub mod pid_write;
pub mod radix;
pub mod rb;
pub mod rbtree;
pub mod scm;
pub mod set_proctitle;
pub mod setproctitle;
pub mod sig_segv;
pub mod spawnd_headers;
pub mod tokenize;
pub mod utf;

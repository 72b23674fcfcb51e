//! The bytes of a configuration: its texts and its TLS files. Each is read once, so that exactly
//! what was checked runs, even if the files change meanwhile.
//!
//! The broker reads all of it, with its own rights, before it starts the first worker. For a
//! reload, a child of the broker reads it and passes it back. The broker's own workers get the
//! texts ([`texts`]) in an unnamed file that they inherit, and the TLS files ([`material`]) over
//! the channel. The next image of the broker gets both. A process that inherits a complete snapshot
//! reads no other texts ([`reader::Reader::of_worker`], [`reader::Reader::of_image`]).
//!
//! Not part of it: files that MAVIS modules and other programs' workers read themselves, and the
//! system's certificate authorities.

#![forbid(unsafe_code)]

mod fetch;
pub mod material;
pub mod reader;
pub mod texts;

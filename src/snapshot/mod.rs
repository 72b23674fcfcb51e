//! The bytes that a configuration consists of: its texts, and the files for TLS. Each is read once, and
//! what was checked is what runs, whatever becomes of the files meanwhile.
//!
//! The broker reads all of it, with its own rights, before the first worker is started; for a reload
//! a child of it does, and passes on what it has read. From there the texts ([`texts`]) go to own
//! workers in a file without a name, which they inherit, and files for TLS ([`material`]) over the
//! channel. Both go to the next image of the broker. Who inherits them has no other
//! ([`reader::Reader::of_worker`], [`reader::Reader::of_image`]).
//!
//! Not a part of it: what modules and worker programs of others read, who do that themselves, and the
//! system's own authorities.

#![forbid(unsafe_code)]

mod fetch;
pub mod material;
pub mod reader;
pub mod texts;

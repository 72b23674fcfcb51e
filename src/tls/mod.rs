//! TLS without I/O: bytes from the wire go in, plain bytes and bytes for the wire come out.
//!
//! OpenSSL does the handshake. After it, the records of the usual cipher suites are handled by
//! [`records`] with OpenSSL's ciphers, and the library's connection object (some 15 KiB) is freed;
//! other suites stay with the library. [`stream`] is what the relay uses, [`context`] holds
//! certificates and settings.

#![forbid(unsafe_code)]

pub mod client;
pub mod context;
pub mod detect;
pub mod error;
pub mod hello;
mod identity;
pub mod keys;
pub mod ocsp;
pub mod policy;
pub mod records;
pub mod server;
mod sizes;
pub mod stream;
pub mod summary;
mod tally;
#[cfg(test)]
mod tests;
pub mod tickets;
mod trust;
pub mod validity;

use crate::os::secret::wipe;

/// A growing buffer. It keeps its memory, and does not clear what will be overwritten.
#[derive(Debug, Default)]
pub struct Buffer {
    data: Vec<u8>,
    length: usize,
}

impl Buffer {
    /// The bytes in it.
    pub fn filled(&self) -> &[u8] {
        &self.data[..self.length]
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// True if nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Room for at least `length` more bytes, with whatever was there before.
    pub fn spare(&mut self, length: usize) -> &mut [u8] {
        if self.data.len() - self.length < length {
            self.grow(length);
        }
        &mut self.data[self.length..]
    }

    /// Moves to larger memory, and leaves no copy behind.
    #[cold]
    fn grow(&mut self, length: usize) {
        let mut data = vec![0; self.length + length];
        data[..self.length].copy_from_slice(self.filled());
        wipe(&mut std::mem::replace(&mut self.data, data));
    }

    /// Empties it, and overwrites what was there.
    pub fn wipe(&mut self) {
        self.length = 0;
        wipe(&mut self.data);
    }

    /// Counts bytes of [`spare`](Self::spare) as filled.
    pub fn advance(&mut self, length: usize) {
        debug_assert!(length <= self.data.len() - self.length);
        self.length += length;
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.spare(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}

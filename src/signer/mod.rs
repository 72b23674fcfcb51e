//! The process with the private keys (`tls keys = separate`). It signs what handshakes of workers
//! need, and nothing else: no file, no network, no certificate. A worker that was taken over can
//! have it sign as long as it lives, but never learns a key.
//!
//! [`keys`] decides what is signed; [`process`] is the process, with a stream to each worker.

#![forbid(unsafe_code)]

pub mod keys;
pub mod process;

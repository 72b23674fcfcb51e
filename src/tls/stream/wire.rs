//! The wire, as OpenSSL sees it: bytes that have arrived, and bytes to be sent.

use crate::tls::tally::Tally;
use crate::tls::Buffer;
use std::io::{self, Read, Write};

/// Between OpenSSL and the wire: bytes that have arrived, and bytes to be sent.
#[derive(Debug, Default)]
pub(super) struct Wire {
    input: Vec<u8>,
    taken: usize,
    output: Vec<u8>,
    /// Records that the library has read.
    pub(super) received: Tally,
    /// Records that the library has written.
    pub(super) sent: Tally,
}

impl Wire {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.taken == self.input.len() {
            self.input.clear();
            self.taken = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.input[self.taken..]
    }

    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.rest().to_vec();
        (self.input, self.taken) = (Vec::new(), 0);
        rest
    }

    /// Moves the output to `out`, and keeps no memory for it.
    pub(super) fn deliver(&mut self, out: &mut Buffer) {
        out.extend(&std::mem::take(&mut self.output));
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.rest().len().min(buffer.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..count].copy_from_slice(&self.input[self.taken..][..count]);
        self.received.pass(&buffer[..count]);
        self.taken += count;
        if self.taken == self.input.len() {
            // An idle end holds no memory.
            (self.input, self.taken) = (Vec::new(), 0);
        }
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.sent.pass(data);
        self.output.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! What name servers know, and what they do when they are asked.

use super::Kernel;
use std::net::Ipv4Addr;

/// What becomes of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// The addresses, or that there are none.
    #[default]
    Answer,
    /// The server has failed.
    Failure,
    /// None.
    Silence,
}

/// All that name servers know: the addresses of one host.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub host: String,
    pub addresses: Vec<Ipv4Addr>,
    /// In seconds.
    pub lifetime: i32,
    pub reply: Reply,
}

/// How long the resolver waits for an answer, in microseconds.
const PATIENCE: u64 = 8_000_000;

impl Kernel {
    /// When the answer to a question that is asked now arrives, or the wait for it is over.
    pub fn answers_at(&mut self) -> u64 {
        let longest = *self.random.pick(&[1000, 100_000, 2_000_000]);
        match self.names.reply {
            Reply::Silence => self.now + PATIENCE,
            _ => self.now + self.random.below(longest) as u64,
        }
    }
}

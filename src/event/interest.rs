//! What a descriptor is watched for.

bitflags::bitflags! {
    /// What a descriptor is watched for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Interest: u8 {
        /// Data, a connection to accept, or end of file.
        const READ = 1;
        /// Room to write, or the end of a connect attempt.
        const WRITE = 2;
        /// A reset of a connection that is neither read nor written at the moment. Only some
        /// mechanisms report it (epoll, poll, event ports, /dev/poll); with the others, the next
        /// read or write finds it.
        const HANGUP = 4;
        /// Room in a channel that never signals room: reported as writable every 20 ms for as long
        /// as it is wanted.
        const ROOM = 16;
    }
}

/// Added to the interest that a backend was told last: report none of it for now, but keep it
/// registered with the system where possible. Resuming then needs no memory.
pub(super) const PAUSED: Interest = Interest::from_bits_retain(8);

impl Interest {
    /// The interest that is to be reported: none while paused.
    pub(super) fn reported(self) -> Interest {
        if self.contains(PAUSED) {
            Interest::empty()
        } else {
            self
        }
    }
}

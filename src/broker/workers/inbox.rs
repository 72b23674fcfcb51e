//! The inbox: the broker's copy of a worker's end of the channel.
//!
//! A datagram is received by either the broker or the worker, never by both. So a connection that
//! the broker takes back is its own, whatever the worker does at that moment, and connections that
//! a worker leaves unread when it ends are not lost.

use crate::broker::connection::Connection;
use crate::channel::protocol::{datagram, FromBroker, UDP_HEADER, UDP_LIMIT};
use crate::os::{self, channel, log, Channel, Socket};
use std::collections::VecDeque;
use std::io;

/// What the broker has found in a channel.
#[derive(Debug)]
pub(super) enum Found {
    /// Connections, and how many the worker was counted for. Descriptors may get lost when the
    /// system is out of memory.
    Connections(Vec<Connection>, usize),
    /// A message without connections.
    Other,
    /// A stream to the process with the private keys, which is closed now.
    Signer,
    /// The reopened log file.
    Log,
    /// The worker has given its end a name, so that others can send to it: messages there need not
    /// be the broker's.
    Public,
    Nothing,
}

/// Takes one message out of a channel.
pub(super) fn find(inbox: &Channel) -> io::Result<Found> {
    if !inbox.is_private()? {
        return Ok(Found::Public);
    }
    // Descriptors for which there is no room are lost, so make sure that there is room.
    let room = (0..channel::DESCRIPTORS)
        .map(|_| inbox.try_clone())
        .collect::<io::Result<Vec<Channel>>>()?;
    drop(room);
    let mut data = [0; UDP_HEADER + UDP_LIMIT];
    let mut sockets = Vec::new();
    let keep = |fd| sockets.push(Socket::from(fd));
    let length = match inbox.receive_with(&mut data, keep) {
        Ok(length) => length.min(data.len()),
        Err(error) if os::would_block(&error) => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    // Check again: the worker may have got a name, and this message from another process, a moment
    // ago. A name cannot be removed, so this check is final. If the system cannot tell, keep what
    // was received.
    if matches!(inbox.is_private(), Ok(false)) {
        sockets.iter().for_each(Socket::do_not_linger);
        return Ok(Found::Public);
    }
    let (accept, given, payload) = match FromBroker::decode(&data[..length]) {
        Ok(FromBroker::Accept(accept)) => (accept, 1, None),
        Ok(FromBroker::Connections(accept, count)) => (accept, count as usize, None),
        Ok(FromBroker::Datagram) => match datagram(&data[..length]) {
            Some((accept, payload)) => (accept, 1, Some(payload.to_vec())),
            None => return Ok(Found::Other),
        },
        Ok(FromBroker::Signer) => return Ok(Found::Signer),
        Ok(FromBroker::Log) => return Ok(Found::Log),
        _ => return Ok(Found::Other),
    };
    let parked = |socket| Connection {
        socket,
        listener: None,
        accept,
        datagram: payload.clone(),
        seat: None,
    };
    let found: Vec<Connection> = sockets.into_iter().map(parked).collect();
    if found.len() < given {
        log::braked(log::Kind::Channel, || {
            "scm_recv_msg: a connection came back without its descriptor".to_owned()
        });
    }
    Ok(Found::Connections(found, given))
}

/// The inboxes of workers that are gone.
#[derive(Default)]
pub(super) struct Orphans {
    /// Each with the number of connections that were taken out.
    inboxes: VecDeque<(Channel, usize)>,
}

impl Orphans {
    /// True if any inbox is left to be read.
    pub(super) fn are_there(&self) -> bool {
        !self.inboxes.is_empty()
    }

    /// A worker is gone.
    pub(super) fn add(&mut self, inbox: Option<Channel>) {
        self.inboxes.extend(inbox.map(|inbox| (inbox, 0)));
    }

    /// The next connections left unread by a worker that is gone.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<Connection>>> {
        while let Some((inbox, taken)) = self.inboxes.front_mut() {
            match find(inbox)? {
                Found::Connections(found, _) => {
                    *taken += found.len();
                    return Ok(Some(found));
                }
                Found::Other | Found::Signer | Found::Log => {}
                Found::Nothing | Found::Public => {
                    if *taken > 0 {
                        let taken = *taken;
                        log::braked(log::Kind::Worker, || {
                            format!(
                                "connections that a child had left unread went to others: {taken}"
                            )
                        });
                    }
                    self.inboxes.pop_front();
                }
            }
        }
        Ok(None)
    }

    /// All connections that can still be read.
    pub(super) fn drain(&mut self) -> Vec<Connection> {
        let mut all = Vec::new();
        while let Some((inbox, _)) = self.inboxes.pop_front() {
            while let Ok(found) = find(&inbox) {
                match found {
                    Found::Connections(found, _) => all.extend(found),
                    Found::Other | Found::Signer | Found::Log => {}
                    Found::Nothing | Found::Public => break,
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::socket::Addressed;
    use std::os::fd::{AsFd, OwnedFd};

    #[test]
    fn a_channel_that_others_may_write_to_is_not_read() {
        use crate::os::address::Address;
        let (ours, theirs) = channel::pair().expect("a channel");
        let path = std::env::temp_dir().join(format!("tcprelay-watch-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Socket::from(OwnedFd::from(theirs.try_clone().expect("a copy")))
            .bind(&Address::Unix(path.clone()))
            .expect("to bind");
        std::fs::remove_file(&path).expect("to remove the name");
        ours.send(&FromBroker::may_die(), None).expect("to send");
        assert!(matches!(find(&theirs), Ok(Found::Public)));
    }

    #[test]
    fn what_is_found_in_a_channel_is_what_was_sent() {
        use crate::channel::protocol::Accept;
        let (ours, theirs) = channel::pair().expect("a channel");
        let accept = Accept { protocol: 6, flags: 1, ..Accept::default() };
        let fds: Vec<_> = (0..3).map(|_| channel::pair().expect("descriptors").0).collect();
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let batch = accept.encode_connections(3);
        ours.send_with(&batch, &borrowed).expect("to send");
        ours.send(&FromBroker::may_die(), None).expect("to send");
        let udp = Accept { protocol: 0, ..accept };
        let message = udp.encode_datagram(b"data");
        ours.send(&message, Some(borrowed[0])).expect("to send");
        let Ok(Found::Connections(found, 3)) = find(&theirs) else { panic!("connections") };
        assert!(found.len() == 3 && found.iter().all(|parked| parked.accept == accept));
        assert!(matches!(find(&theirs), Ok(Found::Other)));
        let Ok(Found::Connections(found, 1)) = find(&theirs) else { panic!("a datagram") };
        assert_eq!(found[0].datagram.as_deref(), Some(b"data".as_slice()));
        assert_eq!(found[0].accept, udp);
        assert!(matches!(find(&theirs), Ok(Found::Nothing)));
    }
}

//! The channel: a pair of UNIX datagram sockets that pass descriptors.

use super::{Id, Kernel, Kind, Result};
use std::collections::VecDeque;

/// A descriptor that travels with a message.
pub enum Passed {
    Simulated(Id),
    /// A descriptor of the real kernel; we own it until it is received.
    Real(i32),
}

pub struct Message {
    pub data: Vec<u8>,
    pub passed: Vec<Passed>,
}

pub struct Datagram {
    pub peer: Option<Id>,
    pub queue: VecDeque<Message>,
    pub limit: usize,
    pub reads_shut: bool,
    /// A sender got EAGAIN because this queue was full.
    pub wanted: bool,
}

/// Bytes that one message takes in a send buffer, as TIOCOUTQ reports.
pub const MESSAGE: usize = 768;

impl Kernel {
    pub fn new_pair(&mut self) -> Result<[i32; 2]> {
        if self.out_of_descriptors() {
            return Err(libc::EMFILE);
        }
        let limit = *self.random.pick(&[1, 2, 10, 11]);
        let new = |peer| {
            let queue = VecDeque::new();
            Kind::Datagram(Datagram { peer, queue, limit, reads_shut: false, wanted: false })
        };
        let first = self.add(new(None));
        let second = self.add(new(Some(first)));
        if let Some(socket) = self.datagram(first) {
            socket.peer = Some(second);
        }
        self.running().last_pair = Some(second);
        Ok([self.install(first), self.install(second)])
    }

    pub fn datagram(&mut self, id: Id) -> Option<&mut Datagram> {
        match self.objects.get_mut(&id).map(|object| &mut object.kind) {
            Some(Kind::Datagram(socket)) => Some(socket),
            _ => None,
        }
    }

    /// Sends a message. Owns `passed`, and releases it if the message cannot be sent.
    pub fn send_message(&mut self, fd: i32, data: &[u8], passed: Vec<Passed>) -> Result<usize> {
        let id = self.object(fd)?;
        let result = self.try_send(id, data, passed);
        if let Err((errno, passed)) = result {
            self.drop_passed(passed);
            return Err(errno);
        }
        self.progress += 1;
        Ok(data.len())
    }

    fn try_send(
        &mut self,
        id: Id,
        data: &[u8],
        passed: Vec<Passed>,
    ) -> std::result::Result<(), (i32, Vec<Passed>)> {
        if self.random.once_in(self.faults.no_memory) {
            return Err((*self.random.pick(&[libc::ENOBUFS, libc::ENOMEM]), passed));
        }
        let peer = match self.datagram(id) {
            Some(socket) => socket.peer,
            None => return Err((libc::ENOTSOCK, passed)),
        };
        let Some(socket) = peer.and_then(|peer| self.datagram(peer)) else {
            return Err((libc::ECONNREFUSED, passed));
        };
        if socket.reads_shut {
            return Err((libc::EPIPE, passed));
        }
        if socket.queue.len() >= socket.limit {
            socket.wanted = true;
            return Err((libc::EAGAIN, passed));
        }
        socket.queue.push_back(Message { data: data.to_vec(), passed });
        let kind = data.first().copied().unwrap_or(0);
        self.note(|| format!("message of type {kind} from #{id}"));
        if let Some(peer) = peer {
            self.notify(peer);
        }
        Ok(())
    }

    /// Receives a message and its descriptors; some of them may get lost, as with EMFILE.
    pub fn receive_message(&mut self, fd: i32) -> Result<(Vec<u8>, Vec<i32>)> {
        let id = self.object(fd)?;
        let socket = self.datagram(id).ok_or(libc::ENOTSOCK)?;
        let Some(message) = socket.queue.pop_front() else {
            // Even if the peer has closed: datagram sockets have no end of file.
            return Err(libc::EAGAIN);
        };
        let (wanted, peer) = (std::mem::take(&mut socket.wanted), socket.peer);
        if let (true, Some(peer)) = (wanted, peer) {
            self.notify(peer);
        }
        let mut fds = Vec::new();
        for passed in message.passed {
            let lost = self.random.once_in(self.faults.lost_descriptor) || self.is_full();
            match passed {
                Passed::Simulated(object) => {
                    if !lost {
                        fds.push(self.install(object));
                        self.passed.push((self.current, object));
                    }
                    self.release(object);
                }
                Passed::Real(fd) => fds.push(fd),
            }
        }
        self.progress += 1;
        Ok((message.data, fds))
    }

    fn drop_passed(&mut self, passed: Vec<Passed>) {
        for passed in passed {
            match passed {
                Passed::Simulated(object) => self.release(object),
                Passed::Real(fd) => crate::system::close_real(fd),
            }
        }
    }

    pub fn end_datagram(&mut self, id: Id) {
        let Some(object) = self.objects.remove(&id) else {
            return;
        };
        if let Kind::Datagram(socket) = object.kind {
            for message in socket.queue {
                self.drop_passed(message.passed);
            }
            if let Some(peer) = socket.peer {
                self.notify(peer);
            }
        }
    }

    /// Bytes sent here that the peer has not read.
    pub fn unread(&mut self, id: Id) -> usize {
        let peer = self.datagram(id).and_then(|socket| socket.peer);
        peer.and_then(|peer| self.datagram(peer)).map_or(0, |peer| peer.queue.len() * MESSAGE)
    }
}

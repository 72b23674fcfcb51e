//! TCP as a socket shows it: queues at both ends with a network in between, half-closes, resets,
//! urgent data, and listeners with backlogs.

use super::{take, Errno, Id, Kernel, Kind, Process, Result};
use std::collections::VecDeque;
use std::net::SocketAddrV4;

/// How far a connect attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// connect(2) was not called.
    Fresh,
    /// Waiting for the other side's answer.
    Connecting,
    /// Connected, now or in the past.
    Done,
}

pub struct Stream {
    pub local: SocketAddrV4,
    pub remote: Option<SocketAddrV4>,
    pub state: Waiting,
    pub peer: Option<Id>,
    /// Sent, not yet arrived at the peer.
    pub outgoing: VecDeque<u8>,
    pub room: usize,
    /// Arrived, not yet read.
    pub incoming: VecDeque<u8>,
    pub window: usize,
    /// The sending side is shut down; `fin_sent`: and the FIN has arrived at the peer.
    pub shut: bool,
    pub fin_sent: bool,
    /// The peer's FIN has arrived.
    pub ended: bool,
    /// shutdown(SHUT_RD) was called.
    pub reads_shut: bool,
    pub error: Option<Errno>,
    pub broken: bool,
    /// The last descriptor was closed.
    pub closed: bool,
    pub reset_on_close: bool,
    pub urgent_inline: bool,
    /// A write found too little room.
    pub no_space: bool,
    /// Where urgent data ends, counted from the next byte to send (`mark_out`) or to read
    /// (`mark_in`).
    pub mark_out: Option<usize>,
    pub mark_in: Option<usize>,
    /// Belongs to a client or remote of the simulation, not to a process.
    pub actor: bool,
    /// The process that made the connection, be it this end or the other one; 0 for a client.
    pub maker: Process,
}

impl Stream {
    pub fn new(local: SocketAddrV4, room: usize, window: usize) -> Stream {
        Stream {
            local,
            remote: None,
            state: Waiting::Fresh,
            peer: None,
            outgoing: VecDeque::new(),
            room,
            incoming: VecDeque::new(),
            window,
            shut: false,
            fin_sent: false,
            ended: false,
            reads_shut: false,
            error: None,
            broken: false,
            closed: false,
            reset_on_close: false,
            urgent_inline: false,
            no_space: false,
            mark_out: None,
            mark_in: None,
            actor: false,
            maker: 0,
        }
    }

    /// How many bytes can be written.
    fn space(&self) -> usize {
        self.room.saturating_sub(self.outgoing.len())
    }

    pub fn is_writable(&self) -> bool {
        self.broken || self.shut || self.state == Waiting::Done && self.space() * 3 >= self.room
    }

    pub fn is_readable(&self) -> bool {
        self.broken || self.error.is_some() || self.ended || !self.incoming.is_empty()
    }

    pub fn is_hung_up(&self) -> bool {
        self.broken || self.ended && self.shut || self.state == Waiting::Fresh
    }
}

pub struct Listener {
    pub address: SocketAddrV4,
    pub backlog: usize,
    /// Established connections that were not accepted yet.
    pub queue: VecDeque<Id>,
    /// Belongs to a remote of the simulation, not to a process.
    pub actor: bool,
    /// SO_OOBINLINE, which accepted connections inherit.
    pub urgent_inline: bool,
}

impl Kernel {
    pub fn stream(&mut self, id: Id) -> Option<&mut Stream> {
        match self.objects.get_mut(&id).map(|object| &mut object.kind) {
            Some(Kind::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    pub fn stream_of(&mut self, fd: i32) -> Result<Id> {
        let id = self.object(fd)?;
        self.stream(id).map(|_| id).ok_or(libc::ENOTSOCK)
    }

    /// A socket with random buffer sizes.
    pub fn new_stream(&mut self) -> Id {
        let sizes = [300, 2000, 4096, 16_384, 100_000, 400_000];
        let (room, window) = (*self.random.pick(&sizes), *self.random.pick(&sizes));
        let none = SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);
        self.add(Kind::Stream(Stream::new(none, room, window)))
    }

    /// connect(2); [`answer`](Self::answer) completes it later.
    pub fn connect(&mut self, id: Id, to: SocketAddrV4) -> Result<()> {
        let port = self.take_port();
        let stream = self.stream(id).ok_or(libc::ENOTSOCK)?;
        if stream.state != Waiting::Fresh {
            return Err(libc::EISCONN);
        }
        if stream.local.port() == 0 {
            stream.local = SocketAddrV4::new(*stream.local.ip(), port);
        }
        if stream.local.ip().is_unspecified() {
            stream.local = SocketAddrV4::new([10, 0, 0, 1].into(), stream.local.port());
        }
        stream.remote = Some(to);
        stream.state = Waiting::Connecting;
        Err(libc::EINPROGRESS)
    }

    /// The answer to a connect attempt arrives: connected or refused. False if the backlog is full,
    /// so that the attempt stays pending.
    pub fn answer(&mut self, id: Id) -> bool {
        let Some(stream) = self.stream(id).filter(|stream| stream.state == Waiting::Connecting)
        else {
            return false;
        };
        let (to, from, maker) = (stream.remote, stream.local, stream.maker);
        let listener = to.and_then(|to| self.listening.get(&to)).copied();
        let Some(Kind::Listener(place)) =
            listener.and_then(|id| self.objects.get_mut(&id)).map(|object| &mut object.kind)
        else {
            self.break_stream(id, libc::ECONNREFUSED);
            return true;
        };
        if place.queue.len() > place.backlog {
            return false;
        }
        let (address, actor, inline) = (place.address, place.actor, place.urgent_inline);
        let accepted = self.new_stream();
        if let Some(stream) = self.stream(accepted) {
            stream.local = address;
            stream.remote = Some(from);
            stream.state = Waiting::Done;
            stream.peer = Some(id);
            stream.actor = actor;
            stream.urgent_inline = inline;
            stream.maker = maker;
        }
        if let Some(stream) = self.stream(id) {
            stream.state = Waiting::Done;
            stream.peer = Some(accepted);
        }
        if let (Some(listener), Some(object)) =
            (listener, listener.and_then(|id| self.objects.get_mut(&id)))
        {
            if let Kind::Listener(place) = &mut object.kind {
                place.queue.push_back(accepted);
            }
            self.notify(listener);
        }
        self.made.insert(accepted, id);
        self.note(|| format!("connected #{id} to #{accepted}"));
        self.notify(id);
        true
    }

    /// Breaks a connection at once; the next call that reports errors returns `error`, once.
    pub fn break_stream(&mut self, id: Id, error: Errno) {
        let Some(stream) = self.stream(id) else {
            return;
        };
        if stream.broken {
            return;
        }
        stream.broken = true;
        stream.state = Waiting::Done;
        stream.error = Some(error);
        stream.outgoing.clear();
        stream.peer = None;
        let closed = stream.closed;
        self.note(|| format!("broken #{id}: {error}"));
        if closed {
            self.objects.remove(&id);
        } else {
            self.notify(id);
        }
    }

    /// Resets a connection: breaks the peer's end, and drops what was in flight.
    pub fn reset(&mut self, id: Id) {
        let Some(stream) = self.stream(id) else {
            return;
        };
        let peer = stream.peer.take();
        stream.outgoing.clear();
        stream.broken = true;
        self.note(|| format!("reset #{id}"));
        if let Some(peer) = peer {
            // The peer can still read what has arrived.
            self.break_stream(peer, libc::ECONNRESET);
        }
    }

    /// Closes a socket, after its last descriptor.
    pub fn end_stream(&mut self, id: Id) {
        let Some(stream) = self.stream(id) else {
            return;
        };
        stream.closed = true;
        let resets = stream.reset_on_close || !stream.incoming.is_empty();
        let over = stream.broken || stream.state != Waiting::Done;
        if over {
            self.objects.remove(&id);
        } else if resets {
            self.reset(id);
            self.objects.remove(&id);
        } else {
            stream.shut = true;
            self.deliver_end(id);
        }
    }

    pub fn end_listener(&mut self, id: Id) {
        let Some(object) = self.objects.remove(&id) else {
            return;
        };
        if let Kind::Listener(listener) = object.kind {
            self.listening.retain(|_, other| *other != id);
            for waiting in listener.queue {
                self.reset(waiting);
                self.objects.remove(&waiting);
            }
        }
    }

    pub fn listen(&mut self, address: SocketAddrV4, backlog: usize, actor: bool) -> Result<Id> {
        if self.listening.contains_key(&address) {
            return Err(libc::EADDRINUSE);
        }
        let queue = VecDeque::new();
        let urgent_inline = actor;
        let id =
            self.add(Kind::Listener(Listener { address, backlog, queue, actor, urgent_inline }));
        self.listening.insert(address, id);
        Ok(id)
    }

    /// Takes the next connection from a listener's queue.
    pub fn accept(&mut self, id: Id) -> Option<Id> {
        match self.objects.get_mut(&id).map(|object| &mut object.kind) {
            Some(Kind::Listener(listener)) => listener.queue.pop_front(),
            _ => None,
        }
    }

    /// recv(2), with or without MSG_PEEK. Stops in front of the urgent mark.
    pub fn receive(&mut self, id: Id, buffer: &mut [u8], peek: bool) -> Result<usize> {
        let stream = self.stream(id).ok_or(libc::ENOTSOCK)?;
        let mark = match stream.mark_in {
            Some(0) if !peek => {
                // At the mark: this read goes past it.
                stream.mark_in = None;
                usize::MAX
            }
            Some(0) | None => usize::MAX,
            Some(mark) => mark,
        };
        if !stream.incoming.is_empty() {
            if peek {
                for (slot, byte) in buffer.iter_mut().zip(&stream.incoming) {
                    *slot = *byte;
                }
                return Ok(buffer.len().min(stream.incoming.len()));
            }
            let most = buffer.len().min(mark);
            let count = take(&mut stream.incoming, &mut buffer[..most]);
            if let Some(mark) = &mut stream.mark_in {
                *mark -= count;
            }
            self.progress += 1;
            return Ok(count);
        }
        if let Some(error) = stream.error.take() {
            self.progress += 1;
            return Err(error);
        }
        if stream.ended || stream.broken || stream.reads_shut {
            return Ok(0);
        }
        if stream.state != Waiting::Done {
            return Err(libc::ENOTCONN);
        }
        Err(libc::EAGAIN)
    }

    /// send(2), as far as there is room.
    pub fn send(&mut self, id: Id, data: &[u8], urgent: bool) -> Result<usize> {
        let stream = self.stream(id).ok_or(libc::ENOTSOCK)?;
        if let Some(error) = stream.error.take() {
            return Err(error);
        }
        if stream.broken || stream.shut {
            return Err(libc::EPIPE);
        }
        if stream.state != Waiting::Done {
            return Err(libc::EAGAIN);
        }
        let count = data.len().min(stream.space());
        stream.no_space |= count < data.len();
        if count == 0 && !data.is_empty() {
            return Err(libc::EAGAIN);
        }
        stream.outgoing.extend(&data[..count]);
        if urgent && count == data.len() {
            stream.mark_out = Some(stream.outgoing.len() - 1);
        }
        self.progress += 1;
        Ok(count)
    }

    pub fn shut_writing(&mut self, id: Id) -> Result<()> {
        let stream = self.stream(id).ok_or(libc::ENOTSOCK)?;
        if stream.broken || stream.state != Waiting::Done {
            return Err(libc::ENOTCONN);
        }
        stream.shut = true;
        self.deliver_end(id);
        Ok(())
    }

    /// Delivers up to `most` bytes to the peer, and the FIN after the last one. False if nothing
    /// moved.
    pub fn deliver(&mut self, id: Id, most: usize) -> bool {
        let Some(stream) = self.stream(id) else {
            return false;
        };
        let Some(peer) = stream.peer else {
            return false;
        };
        let window =
            self.stream(peer).map_or(0, |peer| peer.window.saturating_sub(peer.incoming.len()));
        let lost = self.stream(peer).is_none_or(|peer| peer.closed);
        let Some(stream) = self.stream(id) else {
            return false;
        };
        if stream.outgoing.is_empty() {
            return self.deliver_end(id);
        }
        if lost {
            // The peer has closed, so the answer is a reset.
            self.break_stream(id, libc::ECONNRESET);
            self.objects.remove(&peer);
            return true;
        }
        let count = stream.outgoing.len().min(most).min(window);
        if count == 0 {
            return false;
        }
        let mut data: Vec<u8> = stream.outgoing.drain(..count).collect();
        let mark = stream.mark_out;
        stream.mark_out = mark.and_then(|mark| mark.checked_sub(count));
        let arrived = mark.filter(|&mark| mark < count);
        let wakes = stream.no_space && stream.space() * 3 >= stream.room;
        stream.no_space &= !wakes;
        if let Some(peer) = self.stream(peer) {
            if let Some(mark) = arrived {
                peer.mark_in = Some(peer.incoming.len() + mark);
                if !peer.urgent_inline {
                    // Out of line, the urgent byte is not part of the stream.
                    data.remove(mark);
                }
            }
            peer.incoming.extend(data);
        }
        self.note(|| format!("{count} bytes of #{id} have arrived at #{peer}"));
        self.notify(peer);
        if wakes {
            self.notify(id);
        }
        self.deliver_end(id);
        true
    }

    /// Delivers the FIN, once no data is left before it.
    fn deliver_end(&mut self, id: Id) -> bool {
        let Some(stream) = self.stream(id) else {
            return false;
        };
        if !stream.shut || !stream.outgoing.is_empty() || stream.fin_sent {
            return false;
        }
        stream.fin_sent = true;
        let (peer, closed) = (stream.peer, stream.closed);
        let other = peer.and_then(|peer| self.stream(peer));
        let other_closed = other.map(|peer| {
            peer.ended = true;
            peer.closed && peer.fin_sent
        });
        self.note(|| format!("end of #{id} has arrived"));
        match (peer, other_closed) {
            (Some(peer), Some(true)) => {
                self.objects.remove(&peer);
            }
            (Some(peer), _) => self.notify(peer),
            _ => {}
        }
        if closed && other_closed != Some(false) {
            self.objects.remove(&id);
        }
        true
    }

    /// The connections that processes have made to a remote and not closed, with the process.
    pub fn uses(&self, address: SocketAddrV4) -> Vec<Process> {
        let streams = self.objects.values().filter(|object| object.references > 0);
        let made = streams.filter_map(|object| match &object.kind {
            Kind::Stream(stream) if !stream.actor && stream.remote == Some(address) => {
                Some(stream.maker)
            }
            _ => None,
        });
        made.filter(|&maker| maker > 0).collect()
    }

    /// When a process got each of its connections with clients, and how many it has made itself.
    pub fn held(&self, process: Process) -> (Vec<u64>, usize) {
        let (mut clients, mut own) = (Vec::new(), 0);
        for entry in self.descriptors.values().filter(|entry| entry.process == process) {
            match self.objects.get(&entry.object).map(|object| &object.kind) {
                Some(Kind::Stream(stream)) if stream.maker == 0 => clients.push(entry.since),
                Some(Kind::Stream(_)) => own += 1,
                _ => {}
            }
        }
        (clients, own)
    }

    /// Streams with data in flight or a pending connect attempt.
    pub fn in_transit(&self) -> Vec<Id> {
        let moves = |kind: &Kind| match kind {
            Kind::Stream(stream) => {
                stream.state == Waiting::Connecting
                    || !stream.outgoing.is_empty() && stream.peer.is_some()
            }
            _ => false,
        };
        self.objects.iter().filter(|(_, o)| moves(&o.kind)).map(|(&id, _)| id).collect()
    }
}

//! TCP, as a socket shows it: queues on both sides with the network in between, half-closes, resets,
//! urgent data, listeners with their backlogs.

use super::{take, Errno, Id, Kernel, Kind, Result};
use std::collections::VecDeque;
use std::net::SocketAddrV4;

/// How far connecting has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Not asked for.
    Fresh,
    /// The other side has not answered.
    Connecting,
    /// Connected, or it has been.
    Done,
}

pub struct Stream {
    pub local: SocketAddrV4,
    pub remote: Option<SocketAddrV4>,
    pub state: Waiting,
    pub peer: Option<Id>,
    /// What has been sent, and has not arrived.
    pub outgoing: VecDeque<u8>,
    pub room: usize,
    /// What has arrived, and has not been read.
    pub incoming: VecDeque<u8>,
    pub window: usize,
    /// The end was sent, and has left.
    pub shut: bool,
    pub fin_sent: bool,
    /// The other side's end has arrived.
    pub ended: bool,
    /// Nothing is read any more.
    pub reads_shut: bool,
    pub error: Option<Errno>,
    pub broken: bool,
    /// Nobody has a descriptor of it.
    pub closed: bool,
    pub reset_on_close: bool,
    pub urgent_inline: bool,
    /// A write found no room.
    pub no_space: bool,
    /// Where urgent data ends, counted from the next byte to send or read.
    pub mark_out: Option<usize>,
    pub mark_in: Option<usize>,
    /// Someone speaks for it who is in no process.
    pub actor: bool,
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
        }
    }

    /// How much can be written.
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
    /// Connections that stand, and were not accepted.
    pub queue: VecDeque<Id>,
    /// Nobody's process: a remote of the simulation.
    pub actor: bool,
    /// Of the connections that are accepted here.
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

    /// A socket, with buffers of any size.
    pub fn new_stream(&mut self) -> Id {
        let sizes = [300, 2000, 4096, 16_384, 100_000, 400_000];
        let (room, window) = (*self.random.pick(&sizes), *self.random.pick(&sizes));
        let none = SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);
        self.add(Kind::Stream(Stream::new(none, room, window)))
    }

    /// connect(2), which has an answer later. Fails at once if nobody listens there, at times.
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

    /// The answer to a connection attempt arrives. False if there is none yet.
    pub fn answer(&mut self, id: Id) -> bool {
        let Some(stream) = self.stream(id).filter(|stream| stream.state == Waiting::Connecting)
        else {
            return false;
        };
        let (to, from) = (stream.remote, stream.local);
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
        self.note(|| format!("connected #{id} to #{accepted}"));
        self.notify(id);
        true
    }

    /// A connection is over at once: `error` is what is told, once.
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

    /// Tells the other end that this one has gone, and forgets what was on its way.
    pub fn reset(&mut self, id: Id) {
        let Some(stream) = self.stream(id) else {
            return;
        };
        let peer = stream.peer.take();
        stream.outgoing.clear();
        stream.broken = true;
        self.note(|| format!("reset #{id}"));
        if let Some(peer) = peer {
            // What had arrived can still be read.
            self.break_stream(peer, libc::ECONNRESET);
        }
    }

    /// The last descriptor is closed.
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

    /// The next connection of a listener.
    pub fn accept(&mut self, id: Id) -> Option<Id> {
        match self.objects.get_mut(&id).map(|object| &mut object.kind) {
            Some(Kind::Listener(listener)) => listener.queue.pop_front(),
            _ => None,
        }
    }

    /// recv(2) without the copy: how many bytes may be taken.
    pub fn receive(&mut self, id: Id, buffer: &mut [u8], peek: bool) -> Result<usize> {
        let stream = self.stream(id).ok_or(libc::ENOTSOCK)?;
        let mark = match stream.mark_in {
            Some(0) if !peek => {
                // Reading goes on behind the mark.
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

    /// The network takes some bytes over; true if there were any, or the end.
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
            // There is nobody to read it: the answer is a reset.
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
                    // It is not a part of the stream then.
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

    /// The end of what is sent arrives, if nothing is before it.
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

    /// Streams from which something could be delivered, or that wait for an answer.
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

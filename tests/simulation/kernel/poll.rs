//! Readiness: poll(2) and epoll(7), with edges as on Linux. An event on an object puts its entries
//! on the ready list. A wait checks each entry there, and takes it off if it is not ready after
//! all, or if it is edge-triggered and was reported.

use super::{Id, Kernel, Kind, Result};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Item {
    object: Id,
    events: u32,
    data: u64,
    pending: bool,
    disabled: bool,
}

#[derive(Default)]
pub struct Epoll {
    items: BTreeMap<(i32, Id), Item>,
}

impl Epoll {
    pub fn forget(&mut self, fd: i32, object: Id) {
        self.items.remove(&(fd, object));
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub events: u32,
    pub data: u64,
}

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const PRIORITY: u32 = libc::EPOLLPRI as u32;
const ERROR: u32 = libc::EPOLLERR as u32;
const HANGUP: u32 = libc::EPOLLHUP as u32;
const ENDED: u32 = libc::EPOLLRDHUP as u32;
const EDGE: u32 = libc::EPOLLET as u32;
const ONCE: u32 = libc::EPOLLONESHOT as u32;

impl Kernel {
    /// The events an object is ready for, as EPOLL bits.
    pub fn readiness(&mut self, id: Id) -> u32 {
        let mut bits = 0;
        let mut set = |bit: u32, on: bool| bits |= if on { bit } else { 0 };
        match self.objects.get(&id).map(|object| &object.kind) {
            Some(Kind::Stream(stream)) => {
                set(IN, stream.is_readable());
                set(OUT, stream.is_writable());
                set(PRIORITY, stream.mark_in.is_some());
                set(ERROR, stream.error.is_some());
                set(HANGUP, stream.is_hung_up());
                set(ENDED, stream.ended || stream.broken);
            }
            Some(Kind::Listener(listener)) => set(IN, !listener.queue.is_empty()),
            Some(Kind::Datagram(socket)) => {
                set(IN, !socket.queue.is_empty() || socket.reads_shut);
                let peer = socket.peer.and_then(|peer| self.objects.get(&peer));
                let room = match peer.map(|object| &object.kind) {
                    Some(Kind::Datagram(peer)) => peer.queue.len() < peer.limit,
                    _ => true,
                };
                set(OUT, room);
            }
            Some(Kind::PipeEnd { pipe, reads: true }) => {
                if let Some(Kind::Pipe(pipe)) = self.objects.get(pipe).map(|object| &object.kind) {
                    set(IN, !pipe.data.is_empty());
                    set(HANGUP, pipe.writers == 0);
                }
            }
            Some(Kind::PipeEnd { .. } | Kind::Log) => set(OUT, true),
            Some(Kind::Pipe(_) | Kind::Epoll(_)) | None => {}
        }
        bits
    }

    /// Puts the entries that watch an object on the ready list: its state has changed.
    pub fn notify(&mut self, id: Id) {
        let watchers = self.objects.get(&id).map(|object| object.watchers.clone());
        for (epoll, fd) in watchers.unwrap_or_default() {
            if let Some(Kind::Epoll(epoll)) = self.objects.get_mut(&epoll).map(|o| &mut o.kind) {
                if let Some(item) = epoll.items.get_mut(&(fd, id)) {
                    item.pending = true;
                }
            }
        }
    }

    pub fn new_epoll(&mut self) -> i32 {
        let id = self.add(Kind::Epoll(Epoll::default()));
        self.running().epoll = Some(id);
        self.install(id)
    }

    pub fn epoll_control(
        &mut self,
        epoll: i32,
        operation: i32,
        fd: i32,
        event: Event,
    ) -> Result<()> {
        let result = self.try_epoll_control(epoll, operation, fd, event);
        self.note(|| format!("epoll_ctl {operation} {fd} {:#x}: {result:?}", event.events));
        result
    }

    fn try_epoll_control(
        &mut self,
        epoll: i32,
        operation: i32,
        fd: i32,
        event: Event,
    ) -> Result<()> {
        let epoll_id = self.object(epoll)?;
        let id = match self.object(fd) {
            Err(error) if !self.is_dead() => {
                self.violated(format!("epoll_ctl of {fd}, which is not open"));
                return Err(error);
            }
            found => found?,
        };
        let adds = operation == libc::EPOLL_CTL_ADD;
        let watched = self.objects.get(&id).is_some_and(|o| o.watchers.contains(&(epoll_id, fd)));
        if adds && !watched && self.random.once_in(self.faults.epoll_no_memory) {
            return Err(*self.random.pick(&[libc::ENOMEM, libc::ENOSPC]));
        }
        let Some(Kind::Epoll(set)) = self.objects.get_mut(&epoll_id).map(|o| &mut o.kind) else {
            return Err(libc::EINVAL);
        };
        let key = (fd, id);
        let known = set.items.contains_key(&key);
        match operation {
            _ if adds && known => return Err(libc::EEXIST),
            _ if !adds && !known => return Err(libc::ENOENT),
            libc::EPOLL_CTL_DEL => {
                set.items.remove(&key);
                if let Some(object) = self.objects.get_mut(&id) {
                    object.watchers.retain(|&watcher| watcher != (epoll_id, fd));
                }
            }
            _ => {
                let Event { events, data } = event;
                let item = Item { object: id, events, data, pending: true, disabled: false };
                set.items.insert(key, item);
                if let Some(object) = self.objects.get_mut(&id).filter(|_| adds) {
                    object.watchers.push((epoll_id, fd));
                }
            }
        }
        Ok(())
    }

    /// Returns what is ready, in any order.
    pub fn epoll_wait(&mut self, epoll: i32, most: usize, timeout: i32) -> Result<Vec<Event>> {
        let id = self.object(epoll)?;
        let wakes = u64::try_from(timeout).ok().map(|timeout| self.now + timeout * 1000);
        self.running().wakes = wakes;
        self.running().again = true;
        let signalled = self.has_signal(self.current);
        if !signalled && self.random.once_in(self.faults.interrupted * 4) {
            return Err(libc::EINTR);
        }
        let ready = self.look(id, true);
        let mut ready: Vec<Event> = ready.into_iter().map(|(_, event)| event).collect();
        self.random.shuffle(&mut ready);
        ready.truncate(most);
        let count = ready.len();
        self.running().again = count > 0;
        if count > 0 {
            self.note(|| format!("wait {timeout} ms: {count} ready"));
        }
        Ok(ready)
    }

    /// Whether a wait by this process would find anything.
    pub fn has_events(&mut self, process: super::Process) -> bool {
        let epoll = self.processes.get(&process).and_then(|process| process.epoll);
        epoll.is_some_and(|epoll| !self.look(epoll, false).is_empty())
    }

    /// How many descriptors a process watches for room to write.
    pub fn watched_for_room(&self, process: super::Process) -> usize {
        let epoll = self.processes.get(&process).and_then(|process| process.epoll);
        match epoll.and_then(|epoll| self.objects.get(&epoll)).map(|object| &object.kind) {
            Some(Kind::Epoll(set)) => {
                let active = set.items.values().filter(|item| !item.disabled);
                active.filter(|item| item.events & OUT != 0).count()
            }
            _ => 0,
        }
    }

    fn look(&mut self, epoll: Id, takes: bool) -> Vec<((i32, Id), Event)> {
        let Some(Kind::Epoll(set)) = self.objects.get(&epoll).map(|object| &object.kind) else {
            return Vec::new();
        };
        let items: Vec<((i32, Id), Item)> =
            set.items.iter().filter(|(_, item)| item.pending).map(|(k, v)| (*k, *v)).collect();
        let mut ready = Vec::new();
        for (key, item) in items {
            let mut bits = self.readiness(item.object) & (item.events | ERROR | HANGUP);
            if bits == 0 && takes && self.random.once_in(self.faults.spurious) {
                bits = item.events & IN;
            }
            let tells = bits != 0 && !item.disabled;
            if tells {
                ready.push((key, Event { events: bits, data: item.data }));
            }
            if takes && (!tells || item.events & EDGE != 0) {
                let set = self.objects.get_mut(&epoll).map(|object| &mut object.kind);
                if let Some(Kind::Epoll(set)) = set {
                    if let Some(item) = set.items.get_mut(&key) {
                        item.pending = false;
                        item.disabled |= tells && item.events & ONCE != 0;
                    }
                }
            }
        }
        ready
    }
}

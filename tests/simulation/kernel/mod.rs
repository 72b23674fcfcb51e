//! A kernel in memory: descriptors, sockets, the channel's datagrams, pipes, epoll, processes and a
//! clock, all in one thread and driven by a seeded random generator. It does what Linux documents,
//! and nothing more convenient: an edge is reported once, a short read means that the queue is
//! empty, a reset overtakes what is in flight. Other outcomes that a call may have are injected at
//! random ([`Faults`]).

mod datagram;
mod names;
mod poll;
mod stream;

use crate::random::Random;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;

pub use datagram::{Datagram, Passed};
pub use names::{Names, Reply};
pub use poll::{Epoll, Event};
pub use stream::{Listener, Stream, Waiting};

/// Identifies an object. Several descriptors may refer to one.
pub type Id = u64;
/// Identifies a simulated process. Clients and remotes belong to none.
pub type Process = u32;
pub type Errno = i32;
pub type Result<T> = std::result::Result<T, Errno>;

/// The first simulated descriptor; lower numbers belong to the real kernel.
pub const FIRST: i32 = 1000;
/// The time of day, in seconds since 1970, at which simulations begin.
pub const EPOCH: i64 = 1_700_000_000;

/// How often each fault is injected: once in this many calls, 0 for never.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub interrupted: usize,
    pub no_memory: usize,
    pub no_descriptors: usize,
    pub no_ports: usize,
    pub spurious: usize,
    pub lost_descriptor: usize,
    pub epoll_no_memory: usize,
    pub splice_no_memory: usize,
}

pub struct Pipe {
    pub data: VecDeque<u8>,
    pub readers: usize,
    pub writers: usize,
}

pub enum Kind {
    Stream(Stream),
    Listener(Listener),
    Datagram(Datagram),
    /// A socket connected to the log daemon.
    Log,
    PipeEnd {
        pipe: Id,
        reads: bool,
    },
    Pipe(Pipe),
    Epoll(Epoll),
}

pub struct Object {
    /// Counts descriptors, and those in flight in the channel.
    pub references: usize,
    pub nonblocking: bool,
    pub kind: Kind,
    /// The epoll objects that watch this one, each with the descriptor it was added by.
    pub watchers: Vec<(Id, i32)>,
}

#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub object: Id,
    pub process: Process,
    /// Stays open when the process executes another image.
    pub stays: bool,
    /// When it was made.
    pub since: u64,
}

/// The kernel's state for a process.
#[derive(Default)]
pub struct Running {
    pub handlers: BTreeMap<i32, usize>,
    /// The first pipe that the process made: its signal handlers write there.
    pub signal_pipe: Option<Id>,
    /// When its last wait times out; `None`: never.
    pub wakes: Option<u64>,
    /// Its last wait found events, so it runs again without waiting.
    pub again: bool,
    pub epoll: Option<Id>,
    pub dead: bool,
    pub parent: Process,
    /// The signal it wants when its parent dies.
    pub parent_signal: Option<i32>,
    /// How many descriptors it may have, and until when.
    pub descriptors: Option<(usize, u64)>,
    /// The socketpair it made last, unless it has made a pipe after that.
    last_pair: Option<Id>,
    /// The writing ends of the pipes that it has made since it forked.
    pipes: Vec<Id>,
    /// It has executed another image, to which this was handed over.
    pub next_image: Option<String>,
}

/// What the simulation must do for a process.
pub enum Request {
    /// Start the child of a fork, a worker with this object as standard input.
    Spawned {
        child: Process,
        stdin: Id,
    },
    /// Start a child that checks the configuration, and writes what it has read into this pipe.
    Check {
        child: Process,
        report: Option<Id>,
    },
    Signal {
        process: Process,
        number: i32,
    },
}

pub struct Kernel {
    /// In microseconds.
    pub now: u64,
    pub random: Random,
    pub faults: Faults,
    pub objects: BTreeMap<Id, Object>,
    pub descriptors: BTreeMap<i32, Descriptor>,
    pub processes: BTreeMap<Process, Running>,
    /// The process that makes the current system calls.
    pub current: Process,
    pub requests: Vec<Request>,
    /// Connect attempts of processes that nobody has looked at yet.
    pub attempts: Vec<(Process, SocketAddrV4)>,
    /// Children that have ended and were not waited for: parent, child, status.
    pub ended: Vec<(Process, Process, i32)>,
    /// The process whose signal handler is running: its writes go to that process's signal pipe.
    pub signalled: Option<Process>,
    pub violation: Option<String>,
    /// Counts calls that achieved something, so that a spinning process is noticed.
    pub progress: u64,
    /// The process that is killed after so many more system calls.
    pub doomed: Option<(Process, usize)>,
    /// The other ends of connections that ended with a killed process.
    pub severed: Vec<Id>,
    /// The time of day is this many seconds ahead of the simulation's.
    pub wall_offset: i64,
    pub trace: Option<VecDeque<String>>,
    next_object: Id,
    next_process: Process,
    next_port: u16,
    pub names: Names,
    /// Each accepted end of a connection, with the end that has connected.
    pub made: BTreeMap<Id, Id>,
    /// Connections that processes were passed, in order.
    pub passed: Vec<(Process, Id)>,
    pub listening: BTreeMap<SocketAddrV4, Id>,
}

impl Kernel {
    pub fn new(seed: u64, traced: bool) -> Kernel {
        Kernel {
            now: 1_000_000_000,
            random: Random::new(seed),
            faults: Faults::default(),
            objects: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            processes: BTreeMap::new(),
            current: 0,
            requests: Vec::new(),
            attempts: Vec::new(),
            ended: Vec::new(),
            signalled: None,
            violation: None,
            progress: 0,
            doomed: None,
            severed: Vec::new(),
            wall_offset: EPOCH,
            trace: traced.then(VecDeque::new),
            next_object: 1,
            next_process: 100,
            next_port: 10_000,
            names: Names::default(),
            made: BTreeMap::new(),
            passed: Vec::new(),
            listening: BTreeMap::new(),
        }
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let (now, current) = (self.now, self.current);
        if let Some(trace) = &mut self.trace {
            trace.push_back(format!("{:>10}.{:03} [{current}] {}", now / 1000, now % 1000, line()));
            if trace.len() > 1_000_000 {
                trace.pop_front();
            }
        }
    }

    pub fn violated(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    pub fn new_process(&mut self) -> Process {
        self.next_process += 1;
        // A new process may run at once: it has not waited yet.
        self.processes.insert(self.next_process, Running { wakes: Some(0), ..Running::default() });
        self.next_process
    }

    /// The process that makes the current calls; created by its first call.
    pub fn running(&mut self) -> &mut Running {
        self.processes.entry(self.current).or_default()
    }

    /// Whether what the current process still does is the former image's.
    pub fn has_executed(&self) -> bool {
        let running = self.processes.get(&self.current);
        running.is_some_and(|process| process.next_image.is_some())
    }

    pub fn is_dead(&self) -> bool {
        self.processes.get(&self.current).is_some_and(|process| process.dead)
    }

    pub fn add(&mut self, kind: Kind) -> Id {
        let id = self.next_object;
        self.next_object += 1;
        let object = Object { references: 0, nonblocking: false, kind, watchers: Vec::new() };
        self.objects.insert(id, object);
        id
    }

    pub fn object(&self, fd: i32) -> Result<Id> {
        let own = self.descriptors.get(&fd).filter(|_| !self.is_dead());
        own.map(|entry| entry.object).ok_or(libc::EBADF)
    }

    pub fn kind(&mut self, fd: i32) -> Result<&mut Kind> {
        let id = self.object(fd)?;
        self.objects.get_mut(&id).map(|object| &mut object.kind).ok_or(libc::EBADF)
    }

    pub fn count_descriptors(&self, process: Process) -> usize {
        self.descriptors.values().filter(|entry| entry.process == process).count()
    }

    /// Whether a call fails now with EMFILE.
    pub fn out_of_descriptors(&mut self) -> bool {
        let by_chance = self.random.once_in(self.faults.no_descriptors);
        by_chance || self.is_full() || self.is_dead()
    }

    /// Whether the current process has as many descriptors as it may have.
    pub fn is_full(&self) -> bool {
        let running = self.processes.get(&self.current);
        match running.and_then(|running| running.descriptors) {
            Some((most, until)) if until > self.now => self.count_descriptors(self.current) >= most,
            _ => false,
        }
    }

    /// A process makes a system call, which may be its last. What a former image still does here is
    /// none of its process's calls.
    pub fn enter_call(&mut self) {
        if self.is_dead() {
            return;
        }
        match &mut self.doomed {
            Some((process, 0)) if *process == self.current => {
                let process = *process;
                self.doomed = None;
                self.note(|| "dies in a system call".to_owned());
                self.end_process(process);
            }
            Some((process, calls)) if *process == self.current => *calls -= 1,
            _ => {}
        }
    }

    /// Installs an object at the lowest free number, as POSIX requires.
    pub fn install(&mut self, object: Id) -> i32 {
        let mut fd = FIRST;
        for &used in self.descriptors.keys() {
            if used != fd {
                break;
            }
            fd += 1;
        }
        let (process, since) = (self.current, self.now);
        self.descriptors.insert(fd, Descriptor { object, process, stays: false, since });
        if let Some(object) = self.objects.get_mut(&object) {
            object.references += 1;
        }
        fd
    }

    pub fn duplicate(&mut self, fd: i32) -> Result<i32> {
        let object = self.object(fd)?;
        Ok(self.install(object))
    }

    pub fn close(&mut self, fd: i32) -> Result<()> {
        if self.is_dead() {
            return Ok(());
        }
        let Some(entry) = self.descriptors.remove(&fd) else {
            self.violated(format!("close of {fd}, which is not open"));
            return Err(libc::EBADF);
        };
        self.note(|| format!("close {fd} (#{})", entry.object));
        if entry.process != self.current {
            self.violated(format!("close of {fd}, which is another process's"));
        }
        self.release(entry.object);
        Ok(())
    }

    /// Drops a reference; the last one destroys the object.
    pub fn release(&mut self, id: Id) {
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        object.references = object.references.saturating_sub(1);
        if object.references > 0 {
            return;
        }
        for (epoll, fd) in std::mem::take(&mut object.watchers) {
            if let Some(Kind::Epoll(epoll)) = self.objects.get_mut(&epoll).map(|o| &mut o.kind) {
                epoll.forget(fd, id);
            }
        }
        match self.objects.get_mut(&id).map(|object| &mut object.kind) {
            Some(Kind::Stream(_)) => self.end_stream(id),
            Some(Kind::Listener(_)) => self.end_listener(id),
            Some(Kind::Datagram(_)) => self.end_datagram(id),
            Some(Kind::PipeEnd { pipe, reads }) => {
                let (pipe, reads) = (*pipe, *reads);
                self.objects.remove(&id);
                if let Some(Kind::Pipe(ends)) = self.objects.get_mut(&pipe).map(|o| &mut o.kind) {
                    let count = if reads { &mut ends.readers } else { &mut ends.writers };
                    *count -= 1;
                    if ends.readers + ends.writers == 0 {
                        self.objects.remove(&pipe);
                    }
                }
            }
            Some(Kind::Epoll(_)) | Some(Kind::Log) => {
                self.objects.remove(&id);
            }
            Some(Kind::Pipe(_)) | None => {}
        }
    }

    /// Closes everything that a process holds, as when it is killed.
    pub fn end_process(&mut self, process: Process) {
        let open = self.descriptors.iter().filter(|(_, entry)| entry.process == process);
        let open: Vec<(i32, Id)> = open.map(|(&fd, entry)| (fd, entry.object)).collect();
        for &(_, object) in &open {
            self.note_severed(object, process);
        }
        for (fd, _) in open {
            if let Some(entry) = self.descriptors.remove(&fd) {
                self.release(entry.object);
            }
        }
        if let Some(process) = self.processes.get_mut(&process) {
            process.dead = true;
        }
    }

    /// execve(2): from now on the former image can do nothing. Returns the errno of a failure.
    pub fn execute(&mut self, handed_over: String) -> Errno {
        if self.is_dead() || self.random.once_in(self.faults.no_memory) {
            return libc::ENOMEM;
        }
        self.note(|| "executes another image".to_owned());
        let running = self.running();
        running.dead = true;
        running.next_image = Some(handed_over);
        libc::EINTR
    }

    /// The former image is gone: closes what was not left to the next one, and lets that run.
    pub fn begin_image(&mut self, process: Process) -> Option<String> {
        let all = self.descriptors.iter();
        let gone = all.filter(|(_, entry)| entry.process == process && !entry.stays);
        let gone: Vec<(i32, Id)> = gone.map(|(&fd, entry)| (fd, entry.object)).collect();
        for (fd, object) in gone {
            self.descriptors.remove(&fd);
            self.release(object);
        }
        let running = self.processes.get_mut(&process)?;
        let (parent, text) = (running.parent, running.next_image.take());
        *running = Running { parent, wakes: Some(0), ..Running::default() };
        text
    }

    /// An object is about to be closed by the death of its process: notes whose connection ends with
    /// that.
    fn note_severed(&mut self, id: Id, process: Process) {
        let Some(object) = self.objects.get(&id).filter(|object| object.references == 1) else {
            return;
        };
        let streams = match &object.kind {
            Kind::Stream(_) => vec![id],
            Kind::Listener(listener) => listener.queue.iter().copied().collect(),
            // Nobody else can read what a worker has not, once its broker has died.
            Kind::Datagram(channel) if !self.has_parent(process) => self.carried(channel),
            _ => Vec::new(),
        };
        let peers: Vec<Id> = streams.iter().filter_map(|&id| self.stream(id)?.peer).collect();
        self.severed.extend(peers);
    }

    fn has_parent(&self, process: Process) -> bool {
        let parent = self.processes.get(&process).and_then(|own| self.processes.get(&own.parent));
        parent.is_some_and(|parent| !parent.dead)
    }

    /// The objects that are nowhere but in the messages of a channel.
    fn carried(&self, channel: &Datagram) -> Vec<Id> {
        let passed = channel.queue.iter().flat_map(|message| &message.passed);
        let ids = passed.filter_map(|passed| match passed {
            Passed::Simulated(id) => Some(*id),
            Passed::Real(_) => None,
        });
        let alone = |id: &Id| self.objects.get(id).is_some_and(|object| object.references == 1);
        ids.filter(alone).collect()
    }

    pub fn new_pipe(&mut self) -> Result<[i32; 2]> {
        if self.out_of_descriptors() {
            return Err(libc::EMFILE);
        }
        let pipe = self.add(Kind::Pipe(Pipe { data: VecDeque::new(), readers: 1, writers: 1 }));
        let read = self.add(Kind::PipeEnd { pipe, reads: true });
        let write = self.add(Kind::PipeEnd { pipe, reads: false });
        self.running().signal_pipe.get_or_insert(pipe);
        let running = self.running();
        running.last_pair = None;
        running.pipes.push(write);
        Ok([self.install(read), self.install(write)])
    }

    pub fn pipe(&mut self, id: Id) -> Option<&mut Pipe> {
        match self.objects.get_mut(&id).map(|object| &mut object.kind) {
            Some(Kind::Pipe(pipe)) => Some(pipe),
            _ => None,
        }
    }

    pub fn pipe_of(&mut self, fd: i32) -> Result<Id> {
        match self.kind(fd)? {
            Kind::PipeEnd { pipe, .. } => Ok(*pipe),
            _ => Err(libc::EINVAL),
        }
    }

    /// read(2) of a pipe.
    pub fn read_pipe(&mut self, fd: i32, buffer: &mut [u8]) -> Result<usize> {
        let id = self.pipe_of(fd)?;
        let pipe = self.pipe(id).ok_or(libc::EBADF)?;
        if pipe.data.is_empty() {
            return if pipe.writers == 0 { Ok(0) } else { Err(libc::EAGAIN) };
        }
        let count = take(&mut pipe.data, buffer);
        self.progress += 1;
        Ok(count)
    }

    /// write(2) to a pipe. A signal handler's write goes to the signal pipe of the process it runs
    /// in.
    pub fn write_pipe(&mut self, fd: i32, data: &[u8]) -> Result<usize> {
        let signalled = self.signalled.and_then(|process| self.processes.get(&process));
        let id = match signalled.and_then(|process| process.signal_pipe) {
            Some(pipe) => pipe,
            None => self.pipe_of(fd)?,
        };
        let pipe = self.pipe(id).ok_or(libc::EBADF)?;
        pipe.data.extend(data);
        self.notify_pipe(id);
        Ok(data.len())
    }

    fn notify_pipe(&mut self, id: Id) {
        let reading = |object: &Object| matches!(object.kind, Kind::PipeEnd { pipe, reads: true } if pipe == id);
        let end = self.objects.iter().find(|(_, object)| reading(object)).map(|(&end, _)| end);
        if let Some(end) = end {
            self.notify(end);
        }
    }

    /// Whether a process has signals waiting in its pipe.
    pub fn has_signal(&self, process: Process) -> bool {
        let pipe = self.processes.get(&process).and_then(|process| process.signal_pipe);
        let pipe = pipe.and_then(|pipe| self.objects.get(&pipe));
        matches!(pipe.map(|object| &object.kind), Some(Kind::Pipe(pipe)) if !pipe.data.is_empty())
    }

    /// fork(2) followed by execve(2). A child for which a channel was made is a worker; one for which
    /// pipes were made checks the configuration.
    pub fn fork(&mut self) -> Result<Process> {
        if self.is_dead() || self.random.once_in(self.faults.no_memory) {
            return Err(libc::EAGAIN);
        }
        let stdin = self.running().last_pair;
        // Of the pipes for a check, the first is for its complaints, the second for its report.
        let pipes = std::mem::take(&mut self.running().pipes);
        let report = pipes.get(1).copied().filter(|_| stdin.is_none());
        for inherited in stdin.into_iter().chain(report) {
            if let Some(object) = self.objects.get_mut(&inherited) {
                object.references += 1;
            }
        }
        let child = self.new_process();
        if let Some(running) = self.processes.get_mut(&child) {
            running.parent = self.current;
        }
        self.note(|| format!("fork: {child}, standard input {stdin:?}"));
        self.requests.push(match stdin {
            Some(stdin) => Request::Spawned { child, stdin },
            None => Request::Check { child, report },
        });
        Ok(child)
    }

    /// waitpid(2) for this child, or for any.
    pub fn wait_for_child(&mut self, only: Option<Process>) -> Result<Option<(Process, i32)>> {
        let parent = self.current;
        let awaited = |&(of, child, _): &(Process, Process, i32)| {
            of == parent && only.is_none_or(|only| only == child)
        };
        if self.is_dead() {
            return Ok(None);
        }
        match self.ended.iter().position(awaited) {
            Some(index) => {
                let (_, child, status) = self.ended.remove(index);
                self.note(|| format!("reaps {child}"));
                self.progress += 1;
                Ok(Some((child, status)))
            }
            None => Ok(None),
        }
    }

    /// When a wait with this timeout in milliseconds ends.
    pub fn waits_until(&self, timeout: i32) -> Option<u64> {
        u64::try_from(timeout).ok().filter(|&wait| wait > 0).map(|wait| self.now + wait * 1000)
    }

    pub fn take_port(&mut self) -> u16 {
        self.next_port = if self.next_port >= 60_000 { 10_000 } else { self.next_port + 1 };
        self.next_port
    }
}

/// Moves bytes from a queue into a buffer.
pub fn take(queue: &mut VecDeque<u8>, buffer: &mut [u8]) -> usize {
    let count = queue.len().min(buffer.len());
    for (byte, slot) in queue.drain(..count).zip(buffer) {
        *slot = byte;
    }
    count
}

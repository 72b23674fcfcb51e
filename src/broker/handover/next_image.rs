//! Executes the next image of the broker, and hands it what this one has.

use super::environment::{variable, PART, VARIABLE};
use super::{Handover, Hold};
use crate::os::pidfile::PidFile;
use crate::os::{anonymous, process, signals};
use std::borrow::Borrow;
use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

/// The program that takes the place of this one.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// The executable.
    pub executable: &'a Path,
    /// Arguments, argv\[0] included.
    pub arguments: &'a [OsString],
    /// The environment, without the variables of this module.
    pub environment: &'a [(OsString, OsString)],
}

impl<H: Hold> Handover<H> {
    /// Executes the next image. Returns only if that fails; signals are unblocked then.
    pub fn give(&self, image: &Image<'_>) -> io::Error {
        let mut feeder = None;
        let mut prepare = || -> io::Result<_> {
            let mut text = self.encode();
            if let Some(secrets) = &self.secrets {
                let (pipe, pid) = process::feed(secrets.borrow().encoded())?;
                let _ = write!(text, "\nsecrets {} {pid}", pipe.as_raw_fd());
                feeder = Some((pipe, pid));
            }
            anonymous::file(text.as_bytes())
        };
        let error = match prepare() {
            Ok(file) => {
                let value = format!("pid {}\nfile {}", process::id(), file.as_raw_fd());
                let pipe = feeder.iter().map(|(pipe, _)| pipe.as_fd());
                let all = self.basics().chain(self.others()).chain(pipe).chain([file.as_fd()]);
                execute(image, vec![(VARIABLE.to_owned(), value)], all)
            }
            // Some systems make the unnamed file in a directory, where that may fail.
            Err(_) => self.give_to_older(image),
        };
        if let Some((pipe, pid)) = feeder {
            drop(pipe);
            let _ = process::wait_for(pid);
        }
        signals::unblock_all();
        error
    }

    /// As [`give`](Self::give), for an older image, which knows less and reads the files itself.
    pub fn give_to_older(&self, image: &Image<'_>) -> io::Error {
        let mut text = self.encode_basics();
        // Without the keys sessions cannot be resumed; nothing else is lost.
        let tickets = self
            .secrets
            .as_ref()
            .and_then(|secrets| secrets.borrow().decode())
            .and_then(|(tickets, _)| process::pipe_with(&tickets.encode()).ok());
        if let Some(fd) = &tickets {
            let _ = write!(text, "\ntickets {}", fd.as_raw_fd());
        }
        let parts = text.as_bytes().chunks(PART).enumerate();
        let variables =
            parts.map(|(number, part)| (variable(number), String::from_utf8_lossy(part).into()));
        execute(image, variables.collect(), self.basics().chain(tickets.iter().map(AsFd::as_fd)))
    }

    /// The descriptors that every image is told of.
    fn basics(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listeners = self.listeners.iter().map(|listener| listener.socket.as_fd());
        let parked = self.parked.iter().map(|(_, socket)| socket.as_fd());
        let channels = self.workers.iter().flat_map(|worker| {
            let inbox = worker.inbox.as_ref().map(AsFd::as_fd);
            [worker.channel.as_fd()].into_iter().chain(inbox)
        });
        let pid_file = self.pid_file().and_then(PidFile::descriptor);
        listeners.chain(parked).chain(channels).chain(pid_file)
    }

    /// The descriptors that an older image is not told of, and would never close.
    fn others(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let monitor = self.monitor.as_ref().map(|monitor| monitor.channel.as_fd());
        let callers = self.callers.iter().map(|caller| caller.socket.as_fd());
        let zone = self.zone.as_ref().map(|zone| zone.memory.as_fd());
        let snapshot = self.snapshot.as_ref().map(AsFd::as_fd);
        monitor.into_iter().chain(callers).chain(zone).chain(snapshot)
    }
}

/// Executes the next image, in which these descriptors stay open.
fn execute<'a>(
    image: &Image<'_>,
    variables: Vec<(String, String)>,
    keep: impl Iterator<Item = BorrowedFd<'a>>,
) -> io::Error {
    let mut environment = image.environment.to_vec();
    environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
    let keep: Vec<BorrowedFd<'_>> = keep.collect();
    process::execute(image.executable, image.arguments, &environment, &keep)
}

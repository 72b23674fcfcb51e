//! The same suite for every mechanism of the build.

use super::*;
use crate::os::Socket;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Makes each function a test for each mechanism of the build: `event::tests::poll::NAME`. The
/// function gets the mechanism's name and a loop.
macro_rules! suite {
    ($($test:ident)*) => {
        suite! {
            mechanisms [$($test)*]
            epoll Epoll;
            #[cfg(event_shims)]
            kqueue Kqueue;
            #[cfg(event_shims)]
            port Port;
            #[cfg(event_shims)]
            devpoll DevPoll;
            poll Poll;
            select Select;
        }
    };
    (mechanisms $tests:tt $($(#[$cfg:meta])* $module:ident $mechanism:ident;)*) => {
        $($(#[$cfg])* mod $module { suite! { module $mechanism $tests } })*
    };
    (module $mechanism:ident [$($test:ident)*]) => {
        use super::super::{Choice, Loop, Mechanism};
        $(
            #[test]
            fn $test() {
                let choice = Choice { mechanism: Mechanism::$mechanism, warning: None };
                let events = Loop::new(&choice).expect("a loop");
                super::$test(choice.mechanism.name(), events);
            }
        )*
    };
}

mod streams;

suite! {
    readiness_is_level_triggered
    writability_follows_the_buffer
    interest_changes_between_waits_are_merged
    a_number_that_is_closed_and_reused_starts_anew
    an_event_of_a_removed_descriptor_is_not_delivered
    a_refused_connection_is_told
    a_reset_is_found_by_reading
    hang_ups_are_told_where_the_mechanism_can
    room_is_told_by_time_if_nothing_else_tells
    many_descriptors_at_once
    readiness_that_has_passed_is_told_once_at_most
    shrinking_forgets_events_that_are_not_taken_yet
    regular_files_are_always_ready
    timers_end_a_wait
    a_hundred_thousand_timers
    an_interrupted_wait_is_no_error
    a_forked_child_can_watch_the_same_descriptors
    going_on_after_a_pause_needs_no_memory
    what_the_system_refuses_to_watch_is_told_all_the_same
}

#[test]
fn every_mechanism_has_the_suite() {
    let count = if cfg!(event_shims) { 6 } else { 3 };
    assert_eq!(Mechanism::ALL.len(), count);
}

/// For tests that need many descriptors or handle signals: both belong to the process, and tests
/// run in parallel.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn token(index: u32) -> Token {
    Token::new(1, index)
}

/// The events of one wait, by token index: (readable, writable, hangup).
pub(super) fn turn(events: &mut Loop, limit: u64) -> Vec<(u32, bool, bool, bool)> {
    events.wait(Some(limit)).expect("a wait");
    let mut found = Vec::new();
    while let Some(event) = events.next_event() {
        found.push((event.token.index(), event.readable, event.writable, event.hangup));
    }
    found
}

/// Waits until there are events, at most ten seconds.
pub(super) fn next_turn(events: &mut Loop) -> Vec<(u32, bool, bool, bool)> {
    for _ in 0..100 {
        let found = turn(events, 100);
        if !found.is_empty() {
            return found;
        }
    }
    panic!("no event within ten seconds");
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    (client, server)
}

fn readiness_is_level_triggered(name: &str, mut events: Loop) {
    let (mut a, mut b) = UnixStream::pair().expect("a pair");
    events.register(&b, token(1), Interest::READ);
    assert_eq!(turn(&mut events, 0), [], "{name}");
    a.write_all(b"xy").expect("to write");
    for _ in 0..3 {
        assert_eq!(next_turn(&mut events)[0].0, 1, "{name}");
    }
    b.read_exact(&mut [0; 2]).expect("to read");
    assert_eq!(turn(&mut events, 0), [], "{name}");
    drop(a);
    for _ in 0..3 {
        assert!(next_turn(&mut events)[0].1, "{name}: end of file is readable");
    }
    events.remove(&b);
    assert_eq!(turn(&mut events, 0), [], "{name}");
}

fn writability_follows_the_buffer(name: &str, mut events: Loop) {
    let (a, mut b) = UnixStream::pair().expect("a pair");
    a.set_nonblocking(true).expect("nonblocking");
    events.register(&a, token(2), Interest::WRITE);
    assert_eq!(next_turn(&mut events), [(2, false, true, false)], "{name}");
    while (&a).write(&[0; 4096]).is_ok() {}
    assert_eq!(turn(&mut events, 0), [], "{name}");
    let mut sink = vec![0; 1 << 20];
    b.set_nonblocking(true).expect("nonblocking");
    while b.read(&mut sink).is_ok() {}
    assert_eq!(next_turn(&mut events), [(2, false, true, false)], "{name}");
}

fn interest_changes_between_waits_are_merged(name: &str, mut events: Loop) {
    let (mut a, b) = UnixStream::pair().expect("a pair");
    a.write_all(b"x").expect("to write");
    events.register(&b, token(3), Interest::READ);
    events.set_interest(&b, Interest::empty());
    assert_eq!(turn(&mut events, 0), [], "{name}: no interest, no events");
    events.set_interest(&b, Interest::READ | Interest::WRITE);
    assert_eq!(next_turn(&mut events), [(3, true, true, false)], "{name}");
    events.set_interest(&b, Interest::WRITE);
    assert_eq!(next_turn(&mut events), [(3, false, true, false)], "{name}");
    events.set_interest(&b, Interest::empty());
    drop(a);
    assert_eq!(turn(&mut events, 10), [], "{name}: a hang-up nobody asked about");
    events.set_interest(&b, Interest::READ);
    assert!(next_turn(&mut events)[0].1, "{name}");
}

fn a_number_that_is_closed_and_reused_starts_anew(name: &str, mut events: Loop) {
    for round in 0..50 {
        let (mut a, b) = UnixStream::pair().expect("a pair");
        events.register(&b, token(round), Interest::READ);
        a.write_all(b"x").expect("to write");
        assert_eq!(next_turn(&mut events)[0].0, round, "{name}");
        events.remove(&b);
        drop((a, b));
        let (_c, d) = UnixStream::pair().expect("a pair");
        events.register(&d, token(1000 + round), Interest::READ);
        assert_eq!(turn(&mut events, 0), [], "{name}");
        events.remove(&d);
    }
}

fn an_event_of_a_removed_descriptor_is_not_delivered(name: &str, mut events: Loop) {
    let (mut a, b) = UnixStream::pair().expect("a pair");
    let (mut c, d) = UnixStream::pair().expect("a pair");
    a.write_all(b"x").expect("to write");
    c.write_all(b"x").expect("to write");
    events.register(&b, token(1), Interest::READ);
    events.register(&d, token(2), Interest::READ);
    events.wait(Some(1000)).expect("a wait");
    let first = events.next_event().expect("one of them").token.index();
    // The handler of one removes both, and registers a new owner under the other's number.
    events.remove(&b);
    events.remove(&d);
    let other = if first == 1 { &d } else { &b };
    events.register(other, token(9), Interest::READ);
    assert!(events.next_event().is_none(), "{name}");
    assert_eq!(next_turn(&mut events), [(9, true, false, false)], "{name}");
}

fn a_refused_connection_is_told(name: &str, mut events: Loop) {
    use crate::os::address::{Address, Family};
    use crate::os::socket::{Addressed, Attempt, Kind, Protocol};
    // A socket that is bound and does not listen refuses, and nobody else can take its port.
    let bound = Socket::new(Family::Ipv4, Kind::Stream, Protocol::Tcp).expect("a socket");
    bound.bind(&Address::Ip(([127, 0, 0, 1], 0).into())).expect("a port");
    let socket = Socket::new(Family::Ipv4, Kind::Stream, Protocol::Tcp).expect("a socket");
    let to = bound.local_address().expect("its address");
    if let Ok(attempt) = socket.connect(&to) {
        assert_eq!(attempt, Attempt::InProgress, "{name}");
        events.register(&socket, token(4), Interest::WRITE);
        assert_eq!(next_turn(&mut events)[0].0, 4, "{name}");
        let error = socket.take_error().expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{name}");
    }
}

fn a_reset_is_found_by_reading(name: &str, mut events: Loop) {
    let (client, mut server) = tcp_pair();
    events.register(&server, token(5), Interest::READ);
    assert_eq!(turn(&mut events, 0), [], "{name}");
    Socket::from(client).reset_on_close();
    let found = next_turn(&mut events);
    assert!(found[0].1, "{name}: {found:?}");
    let error = server.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{name}");
}

fn hang_ups_are_told_where_the_mechanism_can(name: &str, mut events: Loop) {
    let (client, server) = tcp_pair();
    client.shutdown(Shutdown::Write).expect("to shut down");
    let mut reader = &server;
    assert_eq!(reader.read(&mut [0]).expect("end of file"), 0);
    events.register(&server, token(6), Interest::HANGUP);
    assert_eq!(turn(&mut events, 0), [], "{name}: a half-close is no hang-up");
    Socket::from(client).reset_on_close();
    if ["select", "kqueue"].contains(&name) {
        assert_eq!(turn(&mut events, 20), [], "{name}");
    } else {
        assert_eq!(next_turn(&mut events), [(6, false, false, true)], "{name}");
    }
}

fn many_descriptors_at_once(name: &str, mut events: Loop) {
    let _alone = alone();
    let mut pairs: Vec<_> = (0..300).map(|_| UnixStream::pair().expect("a pair")).collect();
    for (index, (_, b)) in pairs.iter().enumerate() {
        events.register(b, token(index as u32), Interest::READ);
    }
    for (a, _) in &mut pairs {
        a.write_all(b"x").expect("to write");
    }
    let mut seen = vec![false; pairs.len()];
    for _ in 0..100 {
        for (index, ..) in turn(&mut events, 100) {
            seen[index as usize] = true;
            pairs[index as usize].1.read_exact(&mut [0]).expect("to read");
        }
        if seen.iter().all(|&seen| seen) {
            break;
        }
    }
    assert!(seen.iter().all(|&seen| seen), "{name}");
    assert_eq!(turn(&mut events, 0), [], "{name}");
    for (_, b) in &pairs {
        events.remove(b);
    }
    events.shrink();
}

fn readiness_that_has_passed_is_told_once_at_most(name: &str, mut events: Loop) {
    let _alone = alone();
    // More than one wait returns.
    let mut pairs: Vec<_> = (0..300).map(|_| UnixStream::pair().expect("a pair")).collect();
    for (index, (a, b)) in pairs.iter_mut().enumerate() {
        events.register(b, token(index as u32), Interest::READ);
        a.write_all(b"x").expect("to write");
    }
    let first = turn(&mut events, 1000).len();
    for (_, b) in &mut pairs {
        b.read_exact(&mut [0]).expect("to read");
    }
    // An event port queued these events when the sockets were associated; the other mechanisms
    // check readiness during the wait.
    let told = if name == "port" { pairs.len() - first } else { 0 };
    assert_eq!(turn(&mut events, 0).len(), told, "{name}");
    assert_eq!(turn(&mut events, 0), [], "{name}");
}

fn shrinking_forgets_events_that_are_not_taken_yet(name: &str, mut events: Loop) {
    let _alone = alone();
    let pairs: Vec<_> = (0..300).map(|_| UnixStream::pair().expect("a pair")).collect();
    for (index, (mut a, b)) in pairs.iter().map(|(a, b)| (a, b)).enumerate() {
        events.register(b, token(index as u32), Interest::READ);
        a.write_all(b"x").expect("to write");
    }
    events.wait(Some(1000)).expect("a wait");
    let first = events.next_event().expect("one of them").token.index();
    for (_, b) in &pairs {
        events.remove(b);
    }
    events.shrink();
    // New owners under the old numbers, with nothing to read.
    drop(pairs);
    let others: Vec<_> = (0..300).map(|_| UnixStream::pair().expect("a pair")).collect();
    for (_, b) in &others {
        events.register(b, token(first), Interest::READ);
    }
    assert!(events.next_event().is_none(), "{name}");
    assert_eq!(turn(&mut events, 0), [], "{name}");
}

fn regular_files_are_always_ready(name: &str, mut events: Loop) {
    let mut file = std::fs::File::open("/proc/self/exe").expect("a file");
    for position in [SeekFrom::Start(0), SeekFrom::End(0)] {
        file.seek(position).expect("to seek");
        events.register(&file, token(7), Interest::READ);
        let found = next_turn(&mut events);
        assert!(found[0].1, "{name}: {found:?}");
        events.set_interest(&file, Interest::empty());
        assert_eq!(turn(&mut events, 0), [], "{name}");
        events.set_interest(&file, Interest::WRITE);
        let found = next_turn(&mut events);
        assert!(found[0].2, "{name}: {found:?}");
        events.remove(&file);
        assert_eq!(turn(&mut events, 0), [], "{name}");
    }
}

fn timers_end_a_wait(name: &str, mut events: Loop) {
    let start = events.now();
    events.arm(token(1), start + 30);
    let cancelled = events.arm(token(2), start + 10);
    let moved = events.arm(token(3), start + 10);
    events.cancel(cancelled);
    events.renew(moved, start + 50);
    let mut expired = Vec::new();
    while expired.len() < 2 {
        events.wait(Some(1000)).expect("a wait");
        while let Some((_, token)) = events.next_expired() {
            expired.push((token.index(), events.now() - start));
        }
    }
    assert_eq!(expired.iter().map(|&(index, _)| index).collect::<Vec<_>>(), [1, 3], "{name}");
    assert!(expired[0].1 >= 30 && expired[1].1 >= 50, "{name}: none early: {expired:?}");
}

fn a_hundred_thousand_timers(_name: &str, mut events: Loop) {
    let start = events.now();
    let ids: Vec<TimerId> =
        (0..100_000).map(|index| events.arm(token(index), start + 1_000_000)).collect();
    for &id in &ids {
        events.renew(id, start + 2_000_000);
    }
    events.wait(Some(0)).expect("a wait");
    assert!(events.next_expired().is_none());
    for &id in &ids[1..] {
        events.cancel(id);
    }
    events.renew(ids[0], 0);
    events.wait(None).expect("a wait");
    assert_eq!(events.next_expired().map(|(id, _)| id), Some(ids[0]));
    assert!(events.next_expired().is_none());
}

fn an_interrupted_wait_is_no_error(name: &str, mut events: Loop) {
    let _alone = alone();
    use crate::os::signals::{Signal, Signals};
    let signals = Signals::install(&[Signal::SIGUSR1]).expect("signals");
    events.register(signals.descriptor(), token(8), Interest::READ);
    let pid = nix::unistd::gettid();
    let sender = std::thread::spawn(move || {
        // SAFETY: tgkill(2) takes plain numbers; the thread outlives this one.
        unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                std::process::id() as libc::pid_t,
                pid.as_raw(),
                libc::SIGUSR1,
            )
        }
    });
    assert_eq!(next_turn(&mut events)[0].0, 8, "{name}");
    assert!(signals.take().has(Signal::SIGUSR1), "{name}");
    sender.join().expect("the sender");
}

fn a_forked_child_can_watch_the_same_descriptors(name: &str, mut events: Loop) {
    let (mut a, b) = UnixStream::pair().expect("a pair");
    events.register(&b, token(1), Interest::READ);
    assert_eq!(turn(&mut events, 0), [], "{name}");
    events.renew_after_fork().expect("a new poller");
    a.write_all(b"x").expect("to write");
    assert_eq!(next_turn(&mut events), [(1, true, false, false)], "{name}");
}

#[test]
fn the_mechanism_follows_the_setting() {
    let best = Mechanism::ALL[0];
    let chosen = |setting| Choice::from_setting(setting).mechanism;
    assert_eq!(chosen(None), best);
    assert_eq!(chosen(Some("8")), Mechanism::Poll);
    assert_eq!(chosen(Some(" 16")), Mechanism::Select);
    assert_eq!(chosen(Some("24")), Mechanism::Poll);
    assert_eq!(chosen(Some("-1")), best);
    for unusable in ["0", "abc", "", "64"] {
        let choice = Choice::from_setting(Some(unusable));
        assert_eq!(choice.mechanism, best, "{unusable}");
        assert!(choice.warning.is_some(), "{unusable}");
    }
}

/// Replaces epoll_ctl(2) in this program, also for the emulations of the other mechanisms, which
/// use it. For a thread, it can pretend to be out of memory for new entries.
mod memory {
    use crate::os::process;
    use std::cell::Cell;

    thread_local! {
        static OUT: Cell<bool> = const { Cell::new(false) };
        static REFUSED: Cell<usize> = const { Cell::new(0) };
    }

    /// Turns the shortage of memory on or off.
    pub(super) fn is_out(out: bool) {
        OUT.set(out);
    }

    /// How many entries this thread was refused.
    pub(super) fn refused() -> usize {
        REFUSED.get()
    }

    #[no_mangle]
    extern "C" fn epoll_ctl(
        epoll: libc::c_int,
        operation: libc::c_int,
        fd: libc::c_int,
        event: *mut libc::epoll_event,
    ) -> libc::c_int {
        // SAFETY: the arguments are those of the caller, or none.
        let control = |operation: libc::c_int, event: *mut libc::epoll_event| unsafe {
            libc::syscall(libc::SYS_epoll_ctl, epoll, operation, fd, event) as libc::c_int
        };
        let result = control(operation, event);
        // An existing entry is changed without new memory.
        if OUT.get() && operation == libc::EPOLL_CTL_ADD && result == 0 {
            control(libc::EPOLL_CTL_DEL, std::ptr::null_mut());
            REFUSED.set(REFUSED.get() + 1);
            process::set_errno(libc::ENOMEM);
            return -1;
        }
        result
    }
}

fn going_on_after_a_pause_needs_no_memory(name: &str, mut events: Loop) {
    let (mut a, mut b) = UnixStream::pair().expect("a pair");
    events.register(&b, token(1), Interest::READ);
    assert_eq!(turn(&mut events, 0), [], "{name}");
    events.set_interest(&b, Interest::empty());
    a.write_all(b"x").expect("to write");
    assert_eq!(turn(&mut events, 20), [], "{name}");
    assert_eq!(turn(&mut events, 0), [], "{name}");
    let refused = memory::refused();
    memory::is_out(true);
    events.set_interest(&b, Interest::READ);
    for _ in 0..3 {
        assert_eq!(next_turn(&mut events), [(1, true, false, false)], "{name}");
    }
    if name == "epoll" {
        assert_eq!(memory::refused(), refused, "nothing was asked for");
    }
    memory::is_out(false);
    b.read_exact(&mut [0]).expect("to read");
    assert_eq!(turn(&mut events, 0), [], "{name}");
    // A socket that hangs up during a pause is silent, and is reported after it.
    events.set_interest(&b, Interest::empty());
    drop(a);
    assert_eq!(turn(&mut events, 20), [], "{name}");
    events.set_interest(&b, Interest::WRITE);
    assert!(next_turn(&mut events)[0].2, "{name}");
    events.set_interest(&b, Interest::READ);
    assert!(next_turn(&mut events)[0].1, "{name}");
    events.set_interest(&b, Interest::empty());
    events.remove(&b);
    assert_eq!(turn(&mut events, 0), [], "{name}");
}

fn what_the_system_refuses_to_watch_is_told_all_the_same(name: &str, mut events: Loop) {
    let (mut a, mut b) = UnixStream::pair().expect("a pair");
    memory::is_out(true);
    events.register(&b, token(1), Interest::READ);
    let start = Instant::now();
    let mut turns = 0;
    while start.elapsed().as_millis() < 200 {
        assert_eq!(turn(&mut events, 1000), [], "{name}: nothing is there");
        turns += 1;
    }
    assert!(turns < 30, "{name}: {turns} turns in 200 ms");
    a.write_all(b"x").expect("to write");
    for _ in 0..3 {
        assert_eq!(next_turn(&mut events), [(1, true, false, false)], "{name}");
    }
    b.read_exact(&mut [0]).expect("to read");
    events.set_interest(&b, Interest::READ | Interest::WRITE);
    assert_eq!(next_turn(&mut events), [(1, false, true, false)], "{name}");
    events.set_interest(&b, Interest::READ);
    assert_eq!(turn(&mut events, 30), [], "{name}");
    memory::is_out(false);
    assert_eq!(turn(&mut events, 30), [], "{name}");
    // The mechanism watches it again: a long wait is not cut short.
    let start = Instant::now();
    assert_eq!(turn(&mut events, 200), [], "{name}");
    assert!(start.elapsed().as_millis() >= 199, "{name}: {:?}", start.elapsed());
    a.write_all(b"y").expect("to write");
    assert_eq!(next_turn(&mut events), [(1, true, false, false)], "{name}");
    events.remove(&b);
    assert_eq!(turn(&mut events, 0), [], "{name}");
    // A descriptor that is removed while it is refused is forgotten.
    memory::is_out(true);
    events.register(&b, token(2), Interest::READ);
    next_turn(&mut events);
    events.remove(&b);
    memory::is_out(false);
    assert_eq!(turn(&mut events, 50), [], "{name}");
}

fn room_is_told_by_time_if_nothing_else_tells(_: &str, mut events: Loop) {
    let (socket, _other) = UnixStream::pair().expect("a pair");
    events.register(&socket, Token::new(1, 7), Interest::READ | Interest::ROOM);
    let mut told = 0;
    let start = Instant::now();
    while told < 5 {
        events.wait(Some(5000)).expect("a wait");
        while let Some(event) = events.next_event() {
            assert!(event.writable && !event.readable && event.token.index() == 7);
            told += 1;
        }
    }
    assert!(start.elapsed().as_millis() >= 80, "{:?}", start.elapsed());
    events.set_interest(&socket, Interest::READ);
    assert_eq!(turn(&mut events, 50), []);
    events.set_interest(&socket, Interest::READ | Interest::ROOM);
    events.remove(&socket);
    assert_eq!(turn(&mut events, 50), []);
}

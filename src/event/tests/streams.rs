//! Streams, which are watched edge-triggered where that is possible, and look level-triggered.

use super::*;

suite! {
    a_stream_is_level_triggered_until_its_owner_says_that_nothing_is_left
    the_end_of_a_stream_is_not_lost_behind_its_data
    a_stream_that_takes_nothing_more_is_writable_again_when_it_does
    a_closed_stream_that_is_open_elsewhere_is_not_heard_of
    urgent_data_does_not_hide_what_is_behind_it
    a_stream_that_the_system_refuses_to_watch_is_told_all_the_same
}

/// Waits until a stream has an event, at most ten seconds.
fn next_of_stream(events: &mut Loop, limit: u64) -> Option<Event> {
    let deadline = Instant::now() + std::time::Duration::from_secs(10);
    loop {
        events.wait(Some(limit)).expect("a wait");
        let found = events.next_event();
        if found.is_some() || limit == 0 || Instant::now() > deadline {
            return found;
        }
    }
}

fn a_stream_is_level_triggered_until_its_owner_says_that_nothing_is_left(
    name: &str,
    mut events: Loop,
) {
    let (mut a, b) = tcp_pair();
    b.set_nonblocking(true).expect("nonblocking");
    events.register_stream(&b, token(1), Interest::READ);
    assert!(next_of_stream(&mut events, 0).is_none(), "{name}");
    a.write_all(b"xy").expect("to write");
    for _ in 0..3 {
        assert!(next_of_stream(&mut events, 100).expect(name).readable);
    }
    (&b).read_exact(&mut [0; 1]).expect("to read");
    assert!(next_of_stream(&mut events, 100).expect(name).readable, "a byte is left");
    (&b).read_exact(&mut [0; 1]).expect("to read");
    events.read_in_part(&b);
    assert!(next_of_stream(&mut events, 0).is_none(), "{name}");
    // Data that arrives after that is reported, with or without a wait in between.
    a.write_all(b"z").expect("to write");
    assert!(next_of_stream(&mut events, 100).expect(name).readable);
    // Interest that is dropped and restored finds the data that was there all the time.
    events.set_interest(&b, Interest::empty());
    assert!(next_of_stream(&mut events, 0).is_none(), "{name}");
    events.set_interest(&b, Interest::READ);
    assert!(next_of_stream(&mut events, 100).expect(name).readable);
    events.remove(&b);
}

fn the_end_of_a_stream_is_not_lost_behind_its_data(name: &str, mut events: Loop) {
    let (mut a, b) = tcp_pair();
    b.set_nonblocking(true).expect("nonblocking");
    events.register_stream(&b, token(1), Interest::READ);
    a.write_all(b"last").expect("to write");
    a.shutdown(Shutdown::Write).expect("to shut down");
    // Data and end have both arrived by the time the event is seen.
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(next_of_stream(&mut events, 100).expect(name).readable);
    assert_eq!(events.reads_on(&b), events.has_edges(), "{name}");
    assert_eq!((&b).read(&mut [0; 100]).expect("to read"), 4);
    events.read_in_part(&b);
    assert!(next_of_stream(&mut events, 100).expect(name).readable, "the end");
    assert_eq!((&b).read(&mut [0; 100]).expect("to read"), 0);
    events.remove(&b);
}

fn a_stream_that_takes_nothing_more_is_writable_again_when_it_does(name: &str, mut events: Loop) {
    let (a, mut b) = tcp_pair();
    a.set_nonblocking(true).expect("nonblocking");
    events.register_stream(&a, token(1), Interest::WRITE);
    assert!(next_of_stream(&mut events, 100).expect(name).writable);
    let mut sent = 0;
    for _ in 0..3 {
        while let Ok(count) = (&a).write(&[0; 65536]) {
            sent += count;
        }
        events.blocked(&a, Interest::WRITE);
        // What is still on its way may be acknowledged, and make room once more.
        events.wait(Some(20)).expect("a wait");
        if events.next_event().is_none() {
            break;
        }
    }
    assert!(next_of_stream(&mut events, 0).is_none(), "{name}");
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; sent];
        b.read_exact(&mut buffer).expect("everything");
        b
    });
    assert!(next_of_stream(&mut events, 100).expect(name).writable);
    reader.join().expect("a reader");
    events.remove(&a);
}

/// A reused number must not get the events of its former connection, which another descriptor keeps
/// open.
fn a_closed_stream_that_is_open_elsewhere_is_not_heard_of(name: &str, mut events: Loop) {
    let (mut a, b) = tcp_pair();
    let elsewhere = b.try_clone().expect("another descriptor");
    let number = b.as_raw_fd();
    events.register_stream(&b, token(1), Interest::READ);
    assert!(next_of_stream(&mut events, 0).is_none(), "{name}");
    events.remove(&b);
    drop(b);
    let (mut c, d) = tcp_pair();
    let again = [c.as_raw_fd(), d.as_raw_fd()].contains(&number);
    events.register_stream(&d, token(2), Interest::READ);
    events.register_stream(&c, token(3), Interest::READ);
    a.write_all(b"x").expect("to write");
    std::thread::sleep(std::time::Duration::from_millis(20));
    let found = next_of_stream(&mut events, 0).map(|event| event.token);
    assert_eq!(found, None, "{name}: number used again: {again}");
    c.write_all(b"y").expect("to write");
    assert_eq!(next_of_stream(&mut events, 100).expect(name).token, token(2));
    drop(elsewhere);
    events.remove(&c);
    events.remove(&d);
}

fn urgent_data_does_not_hide_what_is_behind_it(name: &str, mut events: Loop) {
    let (mut a, b) = tcp_pair();
    b.set_nonblocking(true).expect("nonblocking");
    let inline: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_OOBINLINE);
    // SAFETY: the pointers and lengths are those of constants that outlive the calls.
    unsafe {
        libc::setsockopt(b.as_raw_fd(), level, option, (&raw const inline).cast(), length);
        a.write_all(b"before").expect("to write");
        libc::send(a.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB);
    }
    a.write_all(b"behind").expect("to write");
    events.register_stream(&b, token(1), Interest::READ);
    let mut found = Vec::new();
    while found.len() < 13 {
        assert!(next_of_stream(&mut events, 1000).expect(name).readable);
        let mut buffer = [0; 100];
        let count = (&b).read(&mut buffer).expect("to read");
        events.read_in_part(&b);
        found.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(found, b"before!behind", "{name}");
    assert!((&b).read(&mut [0]).is_err());
    events.blocked(&b, Interest::READ);
    assert!(next_of_stream(&mut events, 0).is_none(), "{name}");
    events.remove(&b);
}

fn a_stream_that_the_system_refuses_to_watch_is_told_all_the_same(name: &str, mut events: Loop) {
    let (mut a, b) = tcp_pair();
    b.set_nonblocking(true).expect("nonblocking");
    memory::is_out(true);
    events.register_stream(&b, token(1), Interest::READ);
    for out in [true, false] {
        memory::is_out(out);
        for _ in 0..3 {
            assert!(next_of_stream(&mut events, 0).is_none(), "{name}");
            a.write_all(b"x").expect("to write");
            assert!(next_of_stream(&mut events, 10_000).expect(name).readable);
            assert_eq!((&b).read(&mut [0; 100]).expect("to read"), 1);
            events.read_in_part(&b);
        }
    }
    events.remove(&b);
}

//! What passes through a channel, and what does not.

use super::*;

#[test]
fn whether_a_channel_is_private_can_be_told_without_room_for_a_descriptor() {
    let (a, _b) = pair().unwrap();
    // SAFETY: the child makes system calls only, and leaves without running anything else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a limit; _exit(2) does not return.
        unsafe {
            libc::setrlimit(libc::RLIMIT_NOFILE, &none);
            libc::_exit(i32::from(!matches!(a.is_private(), Ok(true))));
        }
    }
    let mut status = 0;
    // SAFETY: the pointer is to an integer.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
}

#[test]
fn a_descriptor_travels_and_is_close_on_exec() {
    let (a, b) = pair().unwrap();
    let (x, _y) = pair().unwrap();
    a.send(b"hello", Some(x.as_fd())).unwrap();
    let mut buffer = [0; 40];
    let got = b.receive(&mut buffer).unwrap();
    assert_eq!(&buffer[..got.length], b"hello");
    let fd = got.fd.expect("descriptor");
    // SAFETY: fcntl(F_GETFD) takes plain numbers.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
}

#[test]
fn as_many_descriptors_as_fit_travel_in_their_order() {
    let (a, b) = pair().unwrap();
    let pipes: Vec<_> = (0..DESCRIPTORS).map(|_| pair().unwrap()).collect();
    let fds: Vec<_> = pipes.iter().map(|pipe| pipe.0.as_fd()).collect();
    a.send_with(b"hello", &fds).unwrap();
    let mut received = Vec::new();
    let length = b.receive_with(&mut [0; 40], |fd| received.push(fd)).unwrap();
    assert_eq!((length, received.len()), (5, DESCRIPTORS));
    for (index, ((_, theirs), fd)) in pipes.iter().zip(&received).enumerate() {
        Channel::from(fd.as_fd()).send(&[index as u8], None).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(theirs.receive(&mut buffer).unwrap().length, 1);
        assert_eq!(buffer[0], index as u8);
    }
    let one_more = vec![a.as_fd(); DESCRIPTORS + 1];
    assert!(a.send_with(b"hello", &one_more).is_err());
}

#[test]
fn a_full_channel_does_not_block() {
    let (a, _b) = pair().unwrap();
    let error =
        (0..100_000).find_map(|_| a.send(&[0; 40], None).err()).expect("the channel fills up");
    assert!(is_full(&error), "{error}");
}

/// A socket that takes ten seconds to close, because nobody reads what it has sent.
fn lingering() -> (OwnedFd, std::net::TcpStream) {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (receiver, _) = listener.accept().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.write(&[0; 1 << 16]).is_ok() {}
    let sender = OwnedFd::from(sender);
    let linger = libc::linger { l_onoff: 1, l_linger: 10 };
    // SAFETY: setsockopt(2) reads `linger`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            sender.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            mem::size_of_val(&linger) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
    (sender, receiver)
}

#[test]
fn unwanted_descriptors_are_closed_without_waiting() {
    let (a, b) = pair().unwrap();
    let (sender, _receiver) = lingering();
    descriptor::set_blocking(&sender).unwrap();
    let fds = vec![sender.as_fd(); DESCRIPTORS];
    a.send_with(b"hello", &fds).unwrap();
    drop(sender);
    let start = std::time::Instant::now();
    assert_eq!(b.receive_data(&mut [0; 40]).unwrap(), 5);
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn an_end_that_refuses_descriptors_still_gets_messages() {
    let (a, b) = pair().unwrap();
    b.refuse_descriptors();
    a.send(b"hello", None).unwrap();
    assert_eq!(b.receive_data(&mut [0; 40]).unwrap(), 5);
    // Systems that do not know the option let the descriptor through.
    if a.send(b"hello", Some(a.as_fd())).is_ok() {
        let received = b.receive(&mut [0; 40]).unwrap();
        assert!(received.fd.is_some());
    }
}

#[test]
fn a_long_datagram_is_recognised() {
    let (a, b) = pair().unwrap();
    a.send(&[7; 100], None).unwrap();
    let mut buffer = [0; 40];
    let got = b.receive(&mut buffer).unwrap();
    assert!(got.length > 40);
    assert!(got.fd.is_none());
}

#[test]
fn a_message_that_finds_no_memory_is_sent_again() {
    for errno in [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM] {
        assert!(is_full(&io::Error::from_raw_os_error(errno)));
    }
    assert!(!is_full(&io::Error::from_raw_os_error(libc::ECONNREFUSED)));
}

#[test]
fn what_is_unread_is_counted() {
    let (a, b) = pair().unwrap();
    assert_eq!(a.unread(&b), Unread::Nothing);
    for count in 1..=5 {
        a.send(&[0; 44], None).unwrap();
        let expected = if COUNTS_UNREAD { Unread::Messages(count) } else { Unread::Something };
        assert_eq!(a.unread(&b), expected);
    }
    b.receive(&mut [0; 40]).unwrap();
    a.send(&[0; 8], None).unwrap();
    b.receive(&mut [0; 40]).unwrap();
    let expected = if COUNTS_UNREAD { Unread::Messages(4) } else { Unread::Something };
    assert_eq!(a.unread(&b), expected);
}

#[test]
fn an_end_with_a_name_is_not_private() {
    let (a, b) = pair().unwrap();
    assert!(a.is_private().unwrap() && b.is_private().unwrap());
    let path = std::env::temp_dir().join(format!("tcprelay-channel-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let address = super::super::address::Address::Unix(path.clone());
    socket::bind(b.as_raw_fd(), &address).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(a.is_private().unwrap() && !b.is_private().unwrap());
}

#[test]
fn what_was_sent_before_the_end_is_received() {
    let (a, b) = pair().unwrap();
    a.send(b"before", None).unwrap();
    if !b.end_receiving() {
        return;
    }
    let error = a.send(b"after", None).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    let mut buffer = [0; 40];
    assert_eq!(b.receive(&mut buffer).unwrap().length, 6);
    assert!(crate::os::would_block(&b.receive(&mut buffer).unwrap_err()));
    b.send(b"the other way", None).unwrap();
    assert_eq!(a.receive(&mut buffer).unwrap().length, 13);
}

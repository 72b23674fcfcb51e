//! Clients, and what they must see.

use super::PATIENCE;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// Connects to a port of 127.0.0.1, with timeouts so that no test hangs.
pub fn connect(port: u16) -> TcpStream {
    try_connect(port).expect("a connection")
}

/// As [`connect`], for where that may fail.
pub fn try_connect(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("nodelay");
    Ok(stream)
}

/// Aborts a connection with RST.
pub fn reset(stream: TcpStream) {
    set_option(&stream, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 });
    drop(stream);
}

/// Gives a connection small buffers, which do not grow.
pub fn keep_few_bytes(stream: &TcpStream) {
    set_option(stream, libc::SO_SNDBUF, 65_536);
    set_option(stream, libc::SO_RCVBUF, 65_536);
}

fn set_option<T>(stream: &TcpStream, name: libc::c_int, value: T) {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(stream),
            libc::SOL_SOCKET,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "option {name}");
}

/// Sends one byte as urgent data (MSG_OOB).
pub fn send_urgent(stream: &TcpStream, byte: u8) {
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(stream);
    // SAFETY: the pointer and the length describe `byte`, which outlives the call.
    let sent = unsafe { libc::send(descriptor, (&raw const byte).cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
}

/// Requires end of file, with no data before it.
pub fn expect_eof(stream: &mut TcpStream) {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => {}
        other => panic!("expected end of file, got {other:?} {byte:?}"),
    }
}

/// Requires that the stream ends with an error, not with end of file.
pub fn expect_reset(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("expected a reset, got {other:?}"),
    }
}

/// Requires that a session was reset at once: so soon, perhaps, that connecting says so.
pub fn expect_reset_at_once(connected: io::Result<TcpStream>) {
    match connected {
        Ok(mut stream) => expect_reset(&mut stream),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

/// True if the stream has ended (end of file or reset), false if it is still open.
pub fn has_ended(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("nonblocking");
    let ended = match stream.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).expect("blocking");
    ended
}

/// True if an echo answers this client.
pub fn is_served(client: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    client.write_all(b"ping").is_ok() && client.read_exact(&mut answer).is_ok()
}

/// A whole session with an echo: a request, its half-close, the answer and its end.
pub fn one_session(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"request")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer != b"request" {
        return Err(io::Error::other(format!("answered {answer:?}")));
    }
    Ok(())
}

/// Sends and receives one word, through an echo.
pub fn ping(stream: &mut TcpStream, word: &[u8]) {
    stream.write_all(word).expect("to send");
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, word);
}

/// Test data that differs at every position and for every seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length);
    data
}

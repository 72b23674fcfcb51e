//! TLS records in the kernel (Linux, Documentation/networking/tls.rst). Other systems have no kTLS.

use super::Socket;
use std::io;

/// A cipher that the kernel supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-128-GCM
    Aes128,
    /// AES-256-GCM
    Aes256,
    /// ChaCha20-Poly1305
    ChaCha20,
}

/// What the kernel needs to take over one direction of a session.
pub struct Keys<'a> {
    /// TLS 1.3 if true, TLS 1.2 if false.
    pub tls13: bool,
    /// The cipher.
    pub cipher: Cipher,
    /// Its key.
    pub key: &'a [u8],
    /// TLS 1.3 and ChaCha20: the IV. TLS 1.2 with AES: four bytes of salt; the rest is unused.
    pub iv: [u8; 12],
    /// The number of the next record.
    pub sequence: u64,
}

/// One direction of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What is sent.
    Send,
    /// What is received.
    Receive,
}

/// The length of what was received, and the content type of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many bytes were received.
    pub length: usize,
    /// The content type (RFC 8446 section 5.1). `None`: not from a record; with no bytes it is the
    /// end of the connection.
    pub kind: Option<u8>,
}

/// The content type of application data.
pub const DATA: u8 = 23;

#[cfg(target_os = "linux")]
pub use linux::{attach, next_record, receive, send_control, set_keys, takes_new_keys};

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use crate::os::secret::wipe;
    use crate::os::{check, check_size, interrupted};
    use std::mem;
    use std::os::fd::AsRawFd;
    use std::ptr;

    // linux/tls.h
    const SOL_TLS: libc::c_int = 282;
    const TLS_TX: libc::c_int = 1;
    const TLS_RX: libc::c_int = 2;
    const TLS_SET_RECORD_TYPE: libc::c_int = 1;
    const TLS_GET_RECORD_TYPE: libc::c_int = 2;
    const TLS_CIPHER_AES_GCM_128: u16 = 51;
    const TLS_CIPHER_AES_GCM_256: u16 = 52;
    const TLS_CIPHER_CHACHA20_POLY1305: u16 = 54;

    /// Attaches the kernel's TLS to a connected socket; fails where the kernel has none.
    pub fn attach(fd: &Socket) -> io::Result<()> {
        let name = b"tls";
        // SAFETY: the pointer and the length describe `name`, which outlives the call.
        check(unsafe {
            let length = name.len() as libc::socklen_t;
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_TCP,
                libc::TCP_ULP,
                name.as_ptr().cast(),
                length,
            )
        })
        .map(drop)
    }

    /// Gives the kernel the keys of one direction; from now on it handles the records. Fails if it
    /// does not know the cipher.
    pub fn set_keys(fd: &Socket, way: Way, keys: &Keys<'_>) -> io::Result<()> {
        // struct tls12_crypto_info_*: version, cipher, IV, key, salt, record number.
        let mut info = Vec::with_capacity(64);
        let cipher = match keys.cipher {
            Cipher::Aes128 => TLS_CIPHER_AES_GCM_128,
            Cipher::Aes256 => TLS_CIPHER_AES_GCM_256,
            Cipher::ChaCha20 => TLS_CIPHER_CHACHA20_POLY1305,
        };
        let version: u16 = if keys.tls13 { 0x0304 } else { 0x0303 };
        info.extend_from_slice(&version.to_ne_bytes());
        info.extend_from_slice(&cipher.to_ne_bytes());
        let number = keys.sequence.to_be_bytes();
        match keys.cipher {
            Cipher::ChaCha20 => {
                info.extend_from_slice(&keys.iv);
                info.extend_from_slice(keys.key);
            }
            Cipher::Aes128 | Cipher::Aes256 => {
                // With TLS 1.2 this is the explicit part of the nonce; we use the record number.
                let iv = if keys.tls13 { &keys.iv[4..] } else { &number[..] };
                info.extend_from_slice(iv);
                info.extend_from_slice(keys.key);
                info.extend_from_slice(&keys.iv[..4]);
            }
        }
        info.extend_from_slice(&number);
        let name = match way {
            Way::Send => TLS_TX,
            Way::Receive => TLS_RX,
        };
        // SAFETY: the pointer and the length describe `info`, which outlives the call.
        let result = check(unsafe {
            let length = info.len() as libc::socklen_t;
            libc::setsockopt(fd.as_raw_fd(), SOL_TLS, name, info.as_ptr().cast(), length)
        });
        wipe(&mut info);
        result.map(drop)
    }

    /// The number of the next record of a direction that the kernel handles with this cipher.
    pub fn next_record(fd: &Socket, way: Way, cipher: Cipher) -> io::Result<u64> {
        let name = match way {
            Way::Send => TLS_TX,
            Way::Receive => TLS_RX,
        };
        // The sizes of struct tls12_crypto_info_*; the number is at its end.
        let mut info = [0_u8; 56];
        let size = match cipher {
            Cipher::Aes128 => 40,
            Cipher::Aes256 | Cipher::ChaCha20 => 56,
        };
        let mut length = size as libc::socklen_t;
        // SAFETY: the pointer and the length describe a part of `info`, which outlives the call.
        let result = check(unsafe {
            let fd = fd.as_raw_fd();
            libc::getsockopt(fd, SOL_TLS, name, info.as_mut_ptr().cast(), &mut length)
        });
        let number = info[size - 8..size].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        // There may be a key in it.
        wipe(&mut info);
        result.map(|_| number)
    }

    /// True if the kernel lets a sending side of TLS 1.3 that it handles have new keys (Linux 6.14).
    pub fn takes_new_keys(fd: &Socket) -> bool {
        // Keys of no cipher: older kernels say EBUSY before they look at them.
        let info = [0x0304_u16, 0];
        // SAFETY: the pointer and the length describe `info`, which outlives the call.
        let result = check(unsafe {
            let length = mem::size_of_val(&info) as libc::socklen_t;
            libc::setsockopt(fd.as_raw_fd(), SOL_TLS, TLS_TX, info.as_ptr().cast(), length)
        });
        result.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
    }

    /// A buffer for one control message of one byte.
    #[repr(C)]
    union Control {
        header: libc::cmsghdr,
        bytes: [u8; 32],
    }

    fn message(iov: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
        // SAFETY: msghdr is plain data, for which all zeroes is a valid value.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = iov;
        header.msg_iovlen = 1;
        header.msg_control = ptr::from_mut(control).cast();
        // SAFETY: CMSG_SPACE only computes.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(1) } as _;
        header
    }

    /// Sends a record that is not application data.
    pub fn send_control(fd: &Socket, kind: u8, data: &[u8]) -> io::Result<usize> {
        let mut iov =
            libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        let mut control = Control { bytes: [0; 32] };
        let header = message(&mut iov, &mut control);
        // SAFETY: `header` points at `iov`, `data` and `control`, which outlive the calls; a
        // control message with one byte fits into `control`, which is aligned for it.
        check_size(unsafe {
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = SOL_TLS;
            (*first).cmsg_type = TLS_SET_RECORD_TYPE;
            (*first).cmsg_len = libc::CMSG_LEN(1) as _;
            ptr::write(libc::CMSG_DATA(first), kind);
            libc::sendmsg(fd.as_raw_fd(), &header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
        })
    }

    /// Receives decrypted bytes, all from records of one type.
    pub fn receive(fd: &Socket, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            let mut iov =
                libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let mut control = Control { bytes: [0; 32] };
            let mut header = message(&mut iov, &mut control);
            // SAFETY: `header` points at `iov`, `buffer` and `control`, which outlive the call.
            let result = check_size(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut header, 0) });
            let length = match result {
                Err(error) if interrupted(&error) => continue,
                other => other?,
            };
            let mut kind = None;
            // SAFETY: the kernel has filled `header`; CMSG_FIRSTHDR is null or inside `control`.
            unsafe {
                let first = libc::CMSG_FIRSTHDR(&header);
                if !first.is_null()
                    && (*first).cmsg_level == SOL_TLS
                    && (*first).cmsg_type == TLS_GET_RECORD_TYPE
                {
                    kind = Some(ptr::read(libc::CMSG_DATA(first)));
                }
            }
            return Ok(Received { length, kind });
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{attach, next_record, receive, send_control, set_keys, takes_new_keys};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::*;

    fn unsupported<T>() -> io::Result<T> {
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }

    /// This system has no kTLS.
    pub fn attach(_fd: &Socket) -> io::Result<()> {
        unsupported()
    }

    /// This system has no kTLS.
    pub fn set_keys(_fd: &Socket, _way: Way, _keys: &Keys<'_>) -> io::Result<()> {
        unsupported()
    }

    /// This system has no kTLS.
    pub fn next_record(_fd: &Socket, _way: Way, _cipher: Cipher) -> io::Result<u64> {
        unsupported()
    }

    /// This system has no kTLS.
    pub fn takes_new_keys(_fd: &Socket) -> bool {
        false
    }

    /// This system has no kTLS.
    pub fn send_control(_fd: &Socket, _kind: u8, _data: &[u8]) -> io::Result<usize> {
        unsupported()
    }

    /// This system has no kTLS.
    pub fn receive(_fd: &Socket, _buffer: &mut [u8]) -> io::Result<Received> {
        unsupported()
    }
}

//! Ends whose TLS records the kernel handles (`tls kernel = yes`).

use super::direction::{Side, Stop};
use crate::os::ktls::Way;
use crate::os::{self, ktls};
use crate::tls::stream::Stream;
use std::os::fd::OwnedFd;

/// Content type and messages of alerts (RFC 8446 section 6).
const ALERT: u8 = 21;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
const FATAL: u8 = 2;
const BAD_RECORD_MAC: [u8; 2] = [FATAL, 20];

/// Hands the TLS records of an end to the kernel, if that is wanted and can be done now. If the
/// kernel does not know the cipher, the worker keeps handling them.
pub(super) fn offer(side: &mut Side<'_>) -> Result<(), Stop> {
    let Some(tls) = &mut side.tls else {
        return Ok(());
    };
    let Some([send, receive]) = tls.kernel_keys() else {
        return Ok(());
    };
    let taken = ktls::attach(side.fd).is_ok()
        && ktls::set_keys(side.fd, Way::Receive, &receive.get()).is_ok();
    tls.set_kernel(taken);
    match taken.then(|| ktls::set_keys(side.fd, Way::Send, &send.get())) {
        // The kernel has the receiving side already, and that cannot be undone.
        Some(Err(error)) => Err(Stop::Failed(format!("kernel TLS: {}", os::reason(&error)))),
        _ => Ok(()),
    }
}

/// Sends close_notify. False if it has to be tried again.
pub(super) fn close(fd: &OwnedFd) -> bool {
    !matches!(ktls::send_control(fd, ALERT, &CLOSE_NOTIFY), Err(error) if os::would_block(&error))
}

/// What was received.
pub(super) enum Received {
    /// This many bytes of data.
    Data(usize),
    /// Nothing at the moment.
    Nothing,
    /// A record other than data, which has been handled.
    Control,
    /// The other side has sent close_notify.
    Closed,
    /// The end of the connection.
    End,
}

/// Receives from an end.
pub(super) fn receive(fd: &OwnedFd, tls: &mut Stream, buffer: &mut [u8]) -> Result<Received, Stop> {
    let received = match ktls::receive(fd, buffer) {
        Ok(received) => received,
        Err(error) if os::would_block(&error) => return Ok(Received::Nothing),
        Err(error) => {
            return Err(match error.raw_os_error() {
                Some(libc::EBADMSG) => {
                    let _ = ktls::send_control(fd, ALERT, &BAD_RECORD_MAC);
                    Stop::Failed("bad record".to_owned())
                }
                Some(libc::EMSGSIZE | libc::EINVAL | libc::EPROTO) => {
                    Stop::Failed("not a TLS record".to_owned())
                }
                _ => Stop::Source,
            })
        }
    };
    let kind = match (received.kind, received.length) {
        (None, 0) => return Ok(Received::End),
        (None | Some(ktls::DATA), length @ 1..) => {
            tls.note_data();
            return Ok(Received::Data(length));
        }
        // A data record without content is not the end.
        (kind, _) => kind.unwrap_or(ktls::DATA),
    };
    let control = tls.control(kind, &buffer[..received.length]).map_err(|(alert, text)| {
        let _ = ktls::send_control(fd, ALERT, &[FATAL, alert]);
        Stop::Failed(text)
    })?;
    let unable = |_| Stop::Failed("the kernel takes no new keys".to_owned());
    if control.new_receive_keys {
        set_new_keys(fd, tls, Way::Receive).map_err(unable)?;
    }
    if let Some((kind, message)) = control.answer {
        match ktls::send_control(fd, kind, &message) {
            // Only the refusal of a renegotiation, which may be dropped.
            Err(error) if os::would_block(&error) && !control.new_send_keys => {}
            result => result.map(drop).map_err(unable)?,
        }
    }
    if control.new_send_keys {
        set_new_keys(fd, tls, Way::Send).map_err(unable)?;
    }
    Ok(if control.closed { Received::Closed } else { Received::Control })
}

fn set_new_keys(fd: &OwnedFd, tls: &Stream, way: Way) -> std::io::Result<()> {
    match tls.new_kernel_keys(way) {
        Some(keys) => ktls::set_keys(fd, way, &keys.get()),
        None => Ok(()),
    }
}

//! Ends whose TLS records the kernel handles (`tls kernel = yes`).

use super::direction::{Side, Stop};
use crate::os::ktls::Way;
use crate::os::{self, ktls, log, Socket};
use crate::tls::records::{Age, KEY_UPDATE};
use crate::tls::stream::Stream;

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
pub(super) fn close(fd: &Socket) -> bool {
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
pub(super) fn receive(fd: &Socket, tls: &mut Stream, buffer: &mut [u8]) -> Result<Received, Stop> {
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
    if let (true, Some(keys)) = (control.new_receive_keys, tls.new_receive_keys()) {
        ktls::set_keys(fd, Way::Receive, &keys.get()).map_err(unable)?;
    }
    if let Some((kind, message)) = control.answer {
        match ktls::send_control(fd, kind, &message) {
            // Only the refusal of a renegotiation, which may be dropped.
            Err(error) if os::would_block(&error) => {}
            result => result.map(drop).map_err(unable)?,
        }
    }
    renew(fd, tls)?;
    Ok(if control.closed { Received::Closed } else { Received::Control })
}

/// Call it before data is given to an end: the records that the kernel seals are counted, and if
/// new keys are due they are taken. They are if the other side has asked for them, or if the old
/// ones have sealed as many records as they may.
pub(super) fn before_sending(side: &mut Side<'_>, length: usize) -> Result<(), Stop> {
    let Some(tls) = side.tls.as_mut().filter(|tls| tls.in_kernel()) else {
        return Ok(());
    };
    if let Some(cipher) = tls.note_sent(length) {
        let number = ktls::next_record(side.fd, Way::Send, cipher).unwrap_or(0);
        match tls.kernel_age(number) {
            Age::Young => {}
            Age::Due | Age::Spent if ktls::takes_new_keys(side.fd) => tls.request_update(),
            Age::Due => {}
            Age::Spent => {
                // RFC 8446 section 5.5: the connection must be closed.
                log::braked(log::Kind::Tls, || {
                    "kernel TLS: session ended, as this kernel takes no new keys and the old ones \
                     are used up"
                        .to_owned()
                });
                return Err(Stop::Sink);
            }
        }
    }
    renew(side.fd, tls)
}

/// Sends a KeyUpdate and takes new keys for sending, if that is due. If the socket is full now,
/// that stays due.
fn renew(fd: &Socket, tls: &mut Stream) -> Result<(), Stop> {
    if !tls.is_update_due() {
        return Ok(());
    }
    let (kind, message) = KEY_UPDATE;
    match ktls::send_control(fd, kind, &message) {
        Err(error) if os::would_block(&error) => return Ok(()),
        result => result.map(drop).map_err(unable)?,
    }
    match tls.kernel_update() {
        Some(keys) => ktls::set_keys(fd, Way::Send, &keys.get()).map_err(unable),
        None => Err(Stop::Failed("no new keys could be made".to_owned())),
    }
}

fn unable(_: std::io::Error) -> Stop {
    Stop::Failed("the kernel takes no new keys".to_owned())
}

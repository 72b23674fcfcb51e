//! One end of a TLS connection: its handshake, its records, and its close_notify.

mod wire;

use super::policy::Handler;
use super::records::{
    Age, Control, Failure, KernelKeys, Numbers, Records, Secrets, Suite, Traffic, Version,
    MOST_PLAIN,
};
use super::sizes::Sizes;
use super::summary::{summarize, Summary};
use super::trust;
use super::Buffer;
use crate::os::ktls::{self, Way};
use crate::os::secret::SecretBytes;
use crate::os::tls::signing;
use crate::os::tls::{self as library, Captured};
use openssl::error::ErrorStack;
use openssl::ssl::{ErrorCode, ShutdownState, Ssl, SslRef, SslStream, SslVersion};
use std::fmt;
use std::ops::{Deref, DerefMut};
use wire::Wire;

/// Room for one read from the library: the most plain bytes of a record.
const READ_SIZE: usize = 16384;

/// OpenSSL's connection object. OpenSSL does not wipe all secrets of a connection that it frees;
/// dropping this does.
struct Library(Option<SslStream<Wire>>);

impl Drop for Library {
    fn drop(&mut self) {
        let stream = self.0.take();
        library::wiping(|| drop(stream));
    }
}

impl Deref for Library {
    type Target = SslStream<Wire>;
    fn deref(&self) -> &SslStream<Wire> {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Library {
    fn deref_mut(&mut self) -> &mut SslStream<Wire> {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

/// A handshake in progress, or a session whose records OpenSSL handles.
struct Session {
    stream: Library,
    captured: Captured,
    /// How many records had been sent by the end of the step that derived the server's secret and
    /// then waited for the client: everything sent later is sealed with that secret.
    sent_before: Option<u64>,
    /// The signature of another process that the handshake waits for.
    signing: Option<u64>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // A suspended handshake has memory on a stack of its own, which only it can free.
        if let Some(number) = self.signing.take() {
            signing::cancel(number);
            let _ = self.stream.do_handshake();
        }
    }
}

/// How far a handshake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It waits for the other side.
    Waiting,
    /// It waits for this signature of another process.
    Signing(u64),
    /// It is done.
    Done,
}

enum State {
    Handshake(Box<Session>),
    /// OpenSSL handles the records.
    Library(Box<Session>),
    Records(Box<Records>),
    Failed,
}

/// Whether the kernel handles the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    No,
    /// As soon as the records can be handed over.
    Wanted,
    Yes {
        /// How often it was given data since it was last asked how many records it has sealed.
        writes: u16,
    },
}

/// After so many writes the kernel is asked again. Each of them may be some twenty records.
const WRITES: u16 = 1024;

/// One end of a TLS connection.
pub struct Stream {
    state: State,
    handler: Handler,
    /// What was negotiated, if a summary was asked for.
    summary: Option<Box<Summary>>,
    /// Bytes from the wire that were not processed yet: the beginning of a record, or what came
    /// with the end of the handshake.
    held: Vec<u8>,
    /// There may be whole records in `held`.
    unread: bool,
    closed: bool,
    untouched: bool,
    kernel: Kernel,
    sizes: Sizes,
    negotiated: Option<Negotiated>,
}

/// What was negotiated, as far as it is always known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The version, such as `TLSv1.3`.
    pub version: &'static str,
    /// An earlier session was resumed.
    pub resumed: bool,
}

impl fmt::Debug for Stream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Handshake(_) => "handshake",
            State::Library(_) => "library",
            State::Records(_) => "records",
            State::Failed => "failed",
        };
        write!(out, "Stream({state})")
    }
}

impl Stream {
    /// `handler`: who is to handle the records after the handshake, if that is possible.
    pub(super) fn new(ssl: Ssl, handler: Handler) -> Result<Stream, ErrorStack> {
        let stream = SslStream::new(ssl, Wire::default())?;
        let stream = Library(Some(stream));
        let session =
            Session { stream, captured: Captured::default(), sent_before: None, signing: None };
        let state = State::Handshake(Box::new(session));
        Ok(Stream {
            state,
            handler,
            summary: None,
            held: Vec::new(),
            unread: false,
            closed: false,
            untouched: true,
            kernel: Kernel::No,
            sizes: Sizes::default(),
            negotiated: None,
        })
    }

    /// Continues the handshake: takes bytes from the wire, and appends what has to be sent to
    /// `output`, even if it fails.
    pub fn handshake(&mut self, input: &[u8], output: &mut Buffer) -> Result<Step, String> {
        let session = match &mut self.state {
            State::Handshake(session) => session,
            State::Failed => return Err("the session has failed".to_owned()),
            State::Library(_) | State::Records(_) => return Ok(Step::Done),
        };
        let stream = &mut session.stream;
        self.untouched &= input.is_empty();
        stream.get_mut().feed(input);
        let (result, noted) = match (stream.ssl().is_server(), self.handler) {
            (true, Handler::Own) => {
                let step = || signing::noting(|| stream.do_handshake());
                library::capturing(&mut session.captured, step)
            }
            _ => signing::noting(|| stream.do_handshake()),
        };
        stream.get_mut().deliver(output);
        if let Err(error) = &result {
            if error.code().as_raw() == signing::WANT_ASYNC {
                session.signing = noted.asked.or(session.signing);
                return match session.signing {
                    Some(number) => Ok(Step::Signing(number)),
                    None => Err("suspended without a reason".to_owned()),
                };
            }
        }
        session.signing = None;
        match result {
            Ok(()) => {
                self.established();
                Ok(Step::Done)
            }
            Err(error) if error.code() == ErrorCode::WANT_READ => {
                if session.captured.server.is_some() && session.sent_before.is_none() {
                    session.sent_before = Some(stream.get_ref().sent.records());
                }
                Ok(Step::Waiting)
            }
            Err(error) => {
                let text = match noted.refused {
                    Some(reason) => reason.to_owned(),
                    None => describe(&error, stream.ssl()),
                };
                self.state = State::Failed;
                Err(text)
            }
        }
    }

    /// True if the other side has not sent anything yet.
    pub fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Asks for a summary of what will be negotiated.
    pub fn want_summary(&mut self) {
        self.summary.get_or_insert_default();
    }

    /// Asks for the records to be handled by the kernel.
    pub fn want_kernel(&mut self) {
        self.kernel = Kernel::Wanted;
    }

    /// Keys for the kernel, for sending and receiving, if it is to have the records and they can be
    /// handed over now: that is, if the next byte received starts a record.
    pub fn kernel_keys(&self) -> Option<[KernelKeys; 2]> {
        match &self.state {
            State::Records(records) if self.held.is_empty() && self.kernel == Kernel::Wanted => {
                let [send, receive] = [Way::Send, Way::Receive].map(|way| records.kernel_keys(way));
                Some([send.ok()?, receive.ok()?])
            }
            _ => None,
        }
    }

    /// The kernel's new keys for receiving.
    pub fn new_receive_keys(&self) -> Option<KernelKeys> {
        match &self.state {
            State::Records(records) => records.kernel_keys(Way::Receive).ok(),
            _ => None,
        }
    }

    /// Notes whether the kernel has taken the records.
    pub fn set_kernel(&mut self, taken: bool) {
        self.kernel = if taken { Kernel::Yes { writes: 0 } } else { Kernel::No };
        if taken {
            self.note_handler(Handler::Kernel);
        }
    }

    /// True if the kernel handles the records.
    pub fn in_kernel(&self) -> bool {
        matches!(self.kernel, Kernel::Yes { .. })
    }

    /// Handles a record other than data that the kernel has opened. A failure comes with the alert
    /// to send to the other side.
    pub fn control(&mut self, kind: u8, message: &[u8]) -> Result<Control, (u8, String)> {
        match &mut self.state {
            State::Records(records) => match records.control(kind, message) {
                Ok(control) => {
                    self.closed |= control.closed;
                    Ok(control)
                }
                Err((alert, failure)) => {
                    self.state = State::Failed;
                    Err((alert, failure.to_string()))
                }
            },
            _ => Err((0, "the session has failed".to_owned())),
        }
    }

    /// Notes that the kernel is given so many bytes to seal. True if it is to be asked for the number
    /// of its next record, and of which cipher.
    pub fn note_sent(&mut self, length: usize) -> Option<ktls::Cipher> {
        let (Kernel::Yes { writes }, State::Records(records)) = (&mut self.kernel, &mut self.state)
        else {
            return None;
        };
        records.note_sent(u32::try_from(length.div_ceil(MOST_PLAIN)).unwrap_or(u32::MAX));
        *writes = (*writes + 1) % WRITES;
        (*writes == 0).then(|| records.kernel_cipher())
    }

    /// Judges the kernel's keys for sending by the number of its next record.
    pub fn kernel_age(&self, number: u64) -> Age {
        match &self.state {
            State::Records(records) => records.kernel_age(number),
            _ => Age::Young,
        }
    }

    /// Makes a KeyUpdate due: one that the kernel has to send, and then needs new keys.
    pub fn request_update(&mut self) {
        if let State::Records(records) = &mut self.state {
            records.request_update();
        }
    }

    /// True if a KeyUpdate is due.
    pub fn is_update_due(&self) -> bool {
        matches!(&self.state, State::Records(records) if records.is_update_due())
    }

    /// A KeyUpdate was sent; returns the keys for what the kernel sends after it.
    pub fn kernel_update(&mut self) -> Option<KernelKeys> {
        match &mut self.state {
            State::Records(records) => records.kernel_update().ok(),
            _ => None,
        }
    }

    /// Notes that the kernel has opened a data record.
    pub fn note_data(&mut self) {
        if let State::Records(records) = &mut self.state {
            records.note_data();
        }
    }

    /// What was negotiated, if it was asked for.
    pub fn summary(&self) -> Option<&Summary> {
        self.summary.as_deref()
    }

    /// True while the handshake is going on.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshake(_))
    }

    /// The handshake is done. From here on our record layer handles the records, if it is to, and
    /// if it is known for sure from which state they continue.
    fn established(&mut self) {
        let State::Handshake(mut session) = std::mem::replace(&mut self.state, State::Failed)
        else {
            return;
        };
        signing::suspend_no_more(session.stream.ssl());
        let ssl = session.stream.ssl();
        let version = match ssl.version2() {
            Some(SslVersion::TLS1_3) => "TLSv1.3",
            Some(SslVersion::TLS1_2) => "TLSv1.2",
            Some(SslVersion::TLS1_1) => "TLSv1.1",
            _ => "TLSv1.0",
        };
        self.negotiated = Some(Negotiated { version, resumed: ssl.session_reused() });
        if let Some(summary) = &mut self.summary {
            **summary = summarize(session.stream.ssl(), self.handler);
        }
        let taken_over = match self.handler {
            Handler::Own => take_over(&session),
            Handler::Openssl | Handler::Kernel => None,
        };
        self.held = session.stream.get_mut().take_rest();
        self.unread = !self.held.is_empty();
        self.state = match taken_over {
            Some(records) => {
                // Otherwise the library would take the session for a failed one, which is not to be
                // resumed.
                session.stream.set_shutdown(ShutdownState::SENT | ShutdownState::RECEIVED);
                State::Records(Box::new(records))
            }
            None => {
                self.note_handler(Handler::Openssl);
                // The captured secrets are no longer needed.
                session.captured = Captured::default();
                State::Library(session)
            }
        };
    }

    fn note_handler(&mut self, handler: Handler) {
        self.handler = handler;
        if let Some(summary) = &mut self.summary {
            summary.handler = handler;
        }
    }

    /// What was negotiated, once the handshake is done.
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.negotiated
    }

    /// Who handles the records, or is to when the handshake is done.
    pub fn handler(&self) -> Handler {
        self.handler
    }

    /// True if bytes from the wire were received that no [`read`](Self::read) has seen.
    pub fn has_unread(&self) -> bool {
        self.unread
    }

    /// How many bytes from the wire are kept for the next [`read`](Self::read).
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Moves what is held to the beginning of a read buffer.
    pub fn take_held(&mut self, buffer: &mut [u8]) {
        let held = std::mem::take(&mut self.held);
        buffer[..held.len()].copy_from_slice(&held);
        self.unread = false;
    }

    /// Decrypts. `wire` begins with what was [held](Self::take_held). Plain bytes are appended to
    /// `plain`, protocol replies to `reply`, even if it fails. True when the other side has sent
    /// close_notify.
    pub fn read(
        &mut self,
        wire: &[u8],
        plain: &mut Buffer,
        reply: &mut Buffer,
    ) -> Result<bool, String> {
        if self.closed {
            return Ok(true);
        }
        let result = match &mut self.state {
            State::Records(records) => match records.open(wire, plain, reply) {
                Ok(taken) => {
                    let rest = &wire[taken.consumed..];
                    if !rest.is_empty() {
                        self.held = rest.to_vec();
                    }
                    Ok(taken.closed)
                }
                Err(failure) => Err(failure.to_string()),
            },
            State::Library(session) => read_from_library(&mut session.stream, wire, plain, reply),
            State::Handshake(_) | State::Failed => Err("the session has failed".to_owned()),
        };
        match result {
            Ok(closed) => {
                self.closed = closed;
                Ok(closed)
            }
            Err(text) => {
                self.state = State::Failed;
                Err(text)
            }
        }
    }

    /// Encrypts.
    pub fn write(&mut self, mut plain: &[u8], output: &mut Buffer) -> Result<(), String> {
        while !plain.is_empty() {
            let record = &plain[..self.sizes.next().min(plain.len())];
            let written = match &mut self.state {
                State::Records(records) => records
                    .seal(record, output)
                    .map(|()| record.len())
                    .map_err(|failure: Failure| failure.to_string())?,
                State::Library(session) => {
                    let stream = &mut session.stream;
                    let written = stream.ssl_write(record);
                    stream.get_mut().deliver(output);
                    written.map_err(|error| describe(&error, stream.ssl()))?
                }
                State::Handshake(_) | State::Failed => {
                    return Err("the session has failed".to_owned());
                }
            };
            plain = &plain[written..];
        }
        Ok(())
    }

    /// Notes that nothing was sent for a while.
    pub fn paused(&mut self) {
        self.sizes.restart();
    }

    /// Sends close_notify.
    pub fn close(&mut self, output: &mut Buffer) {
        match &mut self.state {
            State::Records(records) => records.close(output),
            State::Library(session) => {
                let stream = &mut session.stream;
                // The other side's close_notify is not waited for.
                if !stream.get_shutdown().contains(ShutdownState::SENT) {
                    let _ = stream.shutdown();
                }
                stream.get_mut().deliver(output);
            }
            State::Handshake(_) | State::Failed => {}
        }
    }
}

/// What a handshake derived for one direction, if it fits the suite.
fn captured(suite: Suite, traffic: &library::Traffic) -> Option<Traffic<'_>> {
    let secret = &traffic.secret[..];
    let (key, iv) = (traffic.key.as_deref()?, traffic.iv.as_deref()?);
    suite.fits(secret, key, iv).then_some(Traffic { secret, derived: Some((key, iv)) })
}

/// Takes the records over from OpenSSL, if that is provably right: the suite is one of ours, all
/// secrets are known, each direction of the wire was counted to the end of a record, and OpenSSL
/// has nothing left that it has read. Otherwise OpenSSL keeps them.
fn take_over(session: &Session) -> Option<Records> {
    let ssl = session.stream.ssl();
    let Wire { sent, received, .. } = session.stream.get_ref();
    let number = ssl.current_cipher()?.protocol_id();
    if library::has_fragment_limit(ssl)
        || library::has_pending(ssl)
        || !sent.is_at_border()
        || !received.is_at_border()
    {
        return None;
    }
    match ssl.version2()? {
        // A client gets tickets after the handshake, and only the library can handle those.
        SslVersion::TLS1_3 if ssl.is_server() => {
            let suite = Suite::of(Version::Tls13, number)?;
            let Captured { client: Some(client), server: Some(server) } = &session.captured else {
                return None;
            };
            // Records sent since then are tickets. The client's Finished, the last record read, was
            // still protected with the handshake keys.
            let numbers = Numbers { sent: sent.records() - session.sent_before?, received: 0 };
            let secrets = Secrets::Traffic {
                ours: captured(suite, server)?,
                theirs: captured(suite, client)?,
            };
            Records::new(suite, &secrets, numbers).ok()
        }
        SslVersion::TLS1_2 => {
            let suite = Suite::of(Version::Tls12, number)?;
            let numbers =
                Numbers { sent: sent.since_change()?, received: received.since_change()? };
            let mut master = SecretBytes::zeroed(48);
            let (mut client, mut other) = ([0; 32], [0; 32]);
            let full = ssl.session()?.master_key(&mut master) == 48
                && ssl.client_random(&mut client) == 32
                && ssl.server_random(&mut other) == 32;
            let randoms = [&client[..], &other[..]];
            let server = ssl.is_server();
            let secrets = Secrets::Master { secret: &master, randoms, server };
            full.then(|| Records::new(suite, &secrets, numbers).ok()).flatten()
        }
        _ => None,
    }
}

fn read_from_library(
    stream: &mut SslStream<Wire>,
    wire: &[u8],
    plain: &mut Buffer,
    reply: &mut Buffer,
) -> Result<bool, String> {
    stream.get_mut().feed(wire);
    let result = loop {
        // OpenSSL opens a record where it was read, and frees that when nothing is left of it.
        match library::wiping(|| stream.ssl_read(plain.spare(READ_SIZE))) {
            Ok(count) => plain.advance(count),
            Err(error) => match error.code() {
                ErrorCode::WANT_READ => break Ok(false),
                ErrorCode::ZERO_RETURN => break Ok(true),
                _ => break Err(describe(&error, stream.ssl())),
            },
        }
    };
    stream.get_mut().deliver(reply);
    result
}

/// An error in the words of the C program. If a certificate was refused, that includes which one,
/// and why.
fn describe(error: &openssl::ssl::Error, ssl: &SslRef) -> String {
    match error.ssl_error() {
        Some(errors) if library::is_about_a_certificate(errors) => {
            format!("{} {}", library::first_error(errors), trust::reason(ssl))
        }
        Some(errors) => library::first_error(errors),
        None => "the connection has failed".to_owned(),
    }
}

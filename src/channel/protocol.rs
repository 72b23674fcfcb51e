//! The messages between broker and worker: UNIX datagrams, one message each, in host byte order,
//! with the type in the first four bytes. Sizes and numbers are those of the C programs, so that
//! either side may be a C program.

use std::fmt;

/// Size of a short message: type and count.
pub const SHORT: usize = 8;
/// Size of an ACCEPT message.
pub const ACCEPT: usize = 40;
/// Offset of the data in a UDPDATA message.
pub const UDP_HEADER: usize = 40;
/// Offset of the data's length in a UDPDATA message: two bytes, signed.
pub const UDP_LENGTH: usize = 32;
/// The most data in a UDPDATA message.
pub const UDP_LIMIT: usize = 4096;
/// Room for the part of a message that either side looks at; a longer datagram is recognised by its
/// length.
pub const RECEIVE: usize = 64;

const TYPE_DONE: u32 = 0;
const TYPE_KEEPALIVE: u32 = 1;
const TYPE_MAY_DIE: u32 = 2;
const TYPE_DYING: u32 = 3;
const TYPE_BAD_CONFIGURATION: u32 = 4;
const TYPE_MAX: u32 = 5;
/// The type of an ACCEPT message.
pub const TYPE_ACCEPT: u32 = 6;
/// The type of a UDPDATA message.
pub const TYPE_UDP_DATA: u32 = 7;
/// HELLO and SECRETS are spoken between our own programs only; C programs do not know them. A
/// worker whose environment has [`BROKER_VARIABLE`] says HELLO before anything else, and gets
/// SECRETS.
const TYPE_HELLO: u32 = 64;
const TYPE_SECRETS: u32 = 65;
/// Several connections of one listener, for a worker whose HELLO says that it takes them: an
/// ACCEPT, and a count of descriptors in four more bytes. The sockets are nonblocking, and have the
/// options that a worker would set.
const TYPE_CONNECTIONS: u32 = 67;
/// Size of a CONNECTIONS message.
pub const CONNECTIONS: usize = ACCEPT + 4;
/// Size of a CONNECTIONS message that says which client and which listener they are of. Older
/// workers ignore the rest.
const CLIENT_CONNECTIONS: usize = CONNECTIONS + 8;
/// Bits in the count of a HELLO: the worker takes CONNECTIONS messages, and says LEFT.
const TAKES_CONNECTIONS: u32 = 1;
const TELLS_CLIENTS: u32 = 2;
/// Sent before SECRETS if the worker may take part in the zone; the zone's descriptor comes along.
const TYPE_ZONE: u32 = 66;
/// A stream to the process with the private keys comes along; to that process, a stream to a
/// worker. Sent before SECRETS, and again if that process was started again.
const TYPE_SIGNER: u32 = 68;
/// Sessions have ended whose clients the broker has numbered, in CONNECTIONS: a count, and so many
/// of these numbers.
const TYPE_LEFT: u32 = 74;
/// The most numbers in a LEFT message.
pub const LEFT_MOST: usize = 30;
/// Room for any message of a worker.
pub const FROM_WORKER: usize = SHORT + 4 * LEFT_MOST;

/// Sent to the monitor only: a client of the control socket, whose descriptor comes along.
const TYPE_CALLER: u32 = 69;
/// Bit beside the number of a caller: it may change things.
const MAY_CHANGE: u32 = 1 << 31;
/// Sent by the monitor only: what a client of the control socket wants of the broker. Once for each
/// client.
const TYPE_ERRAND: u32 = 70;
/// To the monitor, before SECRETS: what it has to know of the broker, as a file that comes along.
const TYPE_BRIEFING: u32 = 71;
/// To the monitor, before SECRETS: a socket on which it is to answer, which comes along. The count
/// says for what.
const TYPE_ENDPOINT: u32 = 72;
/// Carries the reopened log file. Sent to our own programs at any time.
const TYPE_LOG: u32 = 73;

/// The environment variable that tells a worker that its broker is ours. The value is [`WITH_TLS`]
/// if there are listeners with TLS, otherwise [`WITHOUT_TLS`].
pub const BROKER_VARIABLE: &str = "TCPRELAY_BROKER";
/// The value if there are listeners with TLS.
pub const WITH_TLS: &str = "tls";
/// The value if there are none.
pub const WITHOUT_TLS: &str = "plain";

/// The environment variable that tells a process with a channel what it is to be; a worker without
/// it.
pub const ROLE_VARIABLE: &str = "TCPRELAY_ROLE";
/// The value for the monitor.
pub const MONITOR_ROLE: &str = "monitor";

/// Bytes before the data of a SECRETS message: the type, and the length of the data in all
/// messages.
const SECRETS_HEADER: usize = 8;
/// The most data in one SECRETS message: macOS takes datagrams of 2048 bytes.
const SECRETS_PART: usize = 1500;
/// Room for a SECRETS message.
pub const SECRETS_RECEIVE: usize = SECRETS_HEADER + SECRETS_PART;
/// The most secrets that a worker accepts, in bytes.
const SECRETS_LIMIT: usize = 64 << 20;

/// The socket type in an ACCEPT message: connections are streams.
const SOCKET_TYPE_STREAM: u32 = libc::SOCK_STREAM as u32;

/// How long a message is, by its type. `datagram` is called for the data length of a UDPDATA
/// message.
pub fn message_length(kind: u32, datagram: impl FnOnce() -> i16) -> usize {
    match kind {
        TYPE_ACCEPT => ACCEPT,
        TYPE_UDP_DATA => UDP_HEADER + usize::try_from(datagram()).unwrap_or(0),
        _ => size_of::<u32>() + size_of::<i32>(),
    }
}

/// A message of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// This many connections have ended.
    Done(u32),
    /// No content. That it can be sent shows that the broker is alive.
    KeepAlive,
    /// Give me no more connections, I exit when idle.
    Dying,
    /// My configuration is unusable.
    BadConfiguration,
    /// The most connections I can handle.
    Max(i32),
    /// What a caller wants of the broker. From the monitor only.
    Errand(Errand),
    /// I am the same program; send me the secrets that only you may read.
    Hello(Abilities),
    /// So many sessions of numbered clients have ended. Their numbers follow: see [`left`].
    Left(u32),
    /// An unknown type.
    Unknown(u32),
}

/// The numbers of callers are below this.
pub const CALLERS: u32 = 1 << 24;

/// A client of the control socket. The broker has accepted it, and keeps a copy of its connection,
/// so that it can answer itself; the monitor reads what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its number, below [`CALLERS`].
    pub number: u32,
    /// What it may do.
    pub rights: Rights,
}

/// What a client of the control socket may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// It may look at everything.
    Look,
    /// It may change things as well.
    Change,
}

/// What becomes of a caller. The monitor says this once, and closes its copy of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errand {
    /// The number of the caller.
    pub caller: u32,
    /// What it wants of the broker.
    pub wants: Wants,
}

/// What a caller wants of the broker, which then answers the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Nothing (more): its connection can be closed.
    Nothing,
    /// The configuration is to be read again.
    Reload,
    /// The broker is to end, as by SIGTERM.
    Stop,
    /// To know how many former workers are left.
    Former,
}

impl Errand {
    fn decode(count: u32) -> Option<Errand> {
        let wants = match count / CALLERS {
            0 => Wants::Nothing,
            1 => Wants::Reload,
            2 => Wants::Stop,
            3 => Wants::Former,
            _ => return None,
        };
        Some(Errand { caller: count % CALLERS, wants })
    }

    fn encode(self) -> u32 {
        let wants = match self.wants {
            Wants::Nothing => 0,
            Wants::Reload => 1,
            Wants::Stop => 2,
            Wants::Former => 3,
        };
        self.caller % CALLERS + wants * CALLERS
    }
}

/// What a worker of ours can do; older ones can do less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It takes several connections at once.
    pub takes_connections: bool,
    /// It tells which clients' sessions have ended.
    pub tells_clients: bool,
}

impl Abilities {
    /// What this version can do.
    pub const ALL: Abilities = Abilities { takes_connections: true, tells_clients: true };

    fn decode(bits: u32) -> Abilities {
        Abilities {
            takes_connections: bits & TAKES_CONNECTIONS != 0,
            tells_clients: bits & TELLS_CLIENTS != 0,
        }
    }

    fn encode(self) -> u32 {
        let bit = |able: bool, bit| if able { bit } else { 0 };
        bit(self.takes_connections, TAKES_CONNECTIONS) | bit(self.tells_clients, TELLS_CLIENTS)
    }
}

/// What a socket of the monitor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// The status page and the metrics.
    Status = 0,
}

impl Purpose {
    fn of(number: u32) -> Option<Purpose> {
        (number == Purpose::Status as u32).then_some(Purpose::Status)
    }
}

/// A message of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromBroker {
    /// Exit when idle. Our broker sends nothing after it.
    MayDie,
    /// A connection, whose descriptor comes along.
    Accept(Accept),
    /// This many connections, whose descriptors come along.
    Connections(Accept, u32),
    /// A datagram, with a socket connected to its sender. Counts as a connection.
    Datagram,
    /// Your slot in the zone, whose descriptor comes along.
    Zone(u32),
    /// A stream to the process with the private keys, whose descriptor comes along.
    Signer,
    /// A client of the control socket, whose descriptor comes along. For the monitor only.
    Caller(Caller),
    /// What the monitor has to know; a file comes along.
    Briefing,
    /// A socket on which the monitor answers comes along. `None`: for something that it does not
    /// know.
    Endpoint(Option<Purpose>),
    /// The reopened log file comes along.
    Log,
    /// A type that workers do not act on.
    Other(u32),
}

/// What a worker is told about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Accept {
    /// The TLS versions, a byte each; 0 without TLS.
    pub tls_versions: u32,
    /// The token number of the configured AAA protocol; 0 if unset.
    pub aaa_protocol: u32,
    /// Bits of [`crate::config::listen::flag`].
    pub flags: u32,
    /// NUL-padded; at most 15 bytes are used.
    pub realm: [u8; 16],
    /// The IPPROTO number of the listener; 0 for an inherited listener.
    pub protocol: u32,
    /// The broker's number for the client; 0 without one. Only our own workers are told.
    pub client: u32,
    /// The number of the listener plus 1; 0 if that is not known. Only our own workers are told.
    pub listener: u32,
}

/// A datagram that is too short for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadMessage {
    /// Its length.
    pub length: usize,
    /// The least length that the message needs.
    pub expected: usize,
}

impl fmt::Display for BadMessage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == 0 {
            return out.write_str("EoF");
        }
        write!(out, "message too short ({} < {})", self.length, self.expected)
    }
}

fn word(data: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(offset..offset + 4)?.try_into().ok()?))
}

fn require(data: &[u8], expected: usize) -> Result<(), BadMessage> {
    if data.len() < expected {
        return Err(BadMessage { length: data.len(), expected });
    }
    Ok(())
}

impl FromWorker {
    /// The type of HELLO, for brokers that treat it as unknown.
    pub(crate) const HELLO: u32 = TYPE_HELLO;
    /// The type of an errand, for brokers that treat it as unknown.
    pub(crate) const ERRAND: u32 = TYPE_ERRAND;

    /// Decodes a message. `data` may be cut off after the first bytes.
    #[inline]
    pub fn decode(data: &[u8]) -> Result<FromWorker, BadMessage> {
        require(data, SHORT)?;
        let count = word(data, 4).unwrap_or(0);
        Ok(match word(data, 0).unwrap_or(u32::MAX) {
            // A negative count is as wrong as one that is too large; the caller bounds both by what
            // the worker has.
            TYPE_DONE => FromWorker::Done(u32::try_from(count as i32).unwrap_or(0)),
            TYPE_KEEPALIVE => FromWorker::KeepAlive,
            TYPE_DYING => FromWorker::Dying,
            TYPE_BAD_CONFIGURATION => FromWorker::BadConfiguration,
            TYPE_MAX => FromWorker::Max(count as i32),
            TYPE_ERRAND => {
                Errand::decode(count).map_or(FromWorker::Unknown(TYPE_ERRAND), FromWorker::Errand)
            }
            TYPE_HELLO => FromWorker::Hello(Abilities::decode(count)),
            TYPE_LEFT => FromWorker::Left(count),
            other => FromWorker::Unknown(other),
        })
    }

    /// The bytes of the message.
    pub fn encode(self) -> [u8; SHORT] {
        let (number, count) = match self {
            FromWorker::Done(count) => (TYPE_DONE, count),
            FromWorker::KeepAlive => (TYPE_KEEPALIVE, 0),
            FromWorker::Dying => (TYPE_DYING, 0),
            FromWorker::BadConfiguration => (TYPE_BAD_CONFIGURATION, 0),
            FromWorker::Max(count) => (TYPE_MAX, count as u32),
            FromWorker::Errand(errand) => (TYPE_ERRAND, errand.encode()),
            FromWorker::Hello(abilities) => (TYPE_HELLO, abilities.encode()),
            FromWorker::Left(count) => (TYPE_LEFT, count),
            FromWorker::Unknown(number) => (number, 0),
        };
        short(number, count)
    }
}

/// The numbers in a LEFT message, as far as they are there.
pub fn left(message: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let count = word(message, 4).unwrap_or(0) as usize;
    let numbers = (0..count.min(LEFT_MOST)).map_while(|at| word(message, SHORT + 4 * at));
    numbers.filter(|&number| number != 0)
}

/// Encodes a LEFT message with the first of these numbers.
pub fn left_message(numbers: &[u32]) -> Vec<u8> {
    let numbers = &numbers[..numbers.len().min(LEFT_MOST)];
    let mut data = FromWorker::Left(numbers.len() as u32).encode().to_vec();
    data.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    data
}

fn short(number: u32, count: u32) -> [u8; SHORT] {
    let mut data = [0; SHORT];
    put(&mut data, 0, number);
    put(&mut data, 4, count);
    data
}

fn put(data: &mut [u8], offset: usize, value: u32) {
    data[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
}

impl FromBroker {
    /// Decodes a message. For MAY_DIE, UDPDATA and unknown messages the type alone is enough.
    #[inline]
    pub fn decode(data: &[u8]) -> Result<FromBroker, BadMessage> {
        require(data, 4)?;
        Ok(match word(data, 0).unwrap_or(u32::MAX) {
            TYPE_MAY_DIE => FromBroker::MayDie,
            TYPE_UDP_DATA => FromBroker::Datagram,
            TYPE_ZONE => {
                require(data, SHORT)?;
                FromBroker::Zone(word(data, 4).unwrap_or(u32::MAX))
            }
            TYPE_SIGNER => FromBroker::Signer,
            TYPE_CALLER => {
                require(data, SHORT)?;
                let word = word(data, 4).unwrap_or(0);
                let rights = if word & MAY_CHANGE != 0 { Rights::Change } else { Rights::Look };
                FromBroker::Caller(Caller { number: word % CALLERS, rights })
            }
            TYPE_BRIEFING => FromBroker::Briefing,
            TYPE_LOG => FromBroker::Log,
            TYPE_ENDPOINT => {
                require(data, SHORT)?;
                FromBroker::Endpoint(word(data, 4).and_then(Purpose::of))
            }
            TYPE_ACCEPT => {
                require(data, ACCEPT)?;
                FromBroker::Accept(Accept::decode(data))
            }
            TYPE_CONNECTIONS => {
                require(data, CONNECTIONS)?;
                let client = word(data, CONNECTIONS).unwrap_or(0);
                let listener = word(data, CONNECTIONS + 4).unwrap_or(0);
                let accept = Accept { client, listener, ..Accept::decode(data) };
                FromBroker::Connections(accept, word(data, ACCEPT).unwrap_or(0))
            }
            other => FromBroker::Other(other),
        })
    }

    /// Encodes MAY_DIE.
    pub fn may_die() -> [u8; SHORT] {
        short(TYPE_MAY_DIE, 0)
    }

    /// Encodes a message without meaning, which shows that the worker reads. All workers ignore it.
    pub fn probe() -> [u8; SHORT] {
        short(TYPE_KEEPALIVE, 0)
    }

    /// Encodes SIGNER.
    pub fn signer() -> [u8; SHORT] {
        short(TYPE_SIGNER, 0)
    }

    /// Encodes CALLER.
    pub fn caller(caller: Caller) -> [u8; SHORT] {
        let rights = if caller.rights == Rights::Change { MAY_CHANGE } else { 0 };
        short(TYPE_CALLER, (caller.number % CALLERS) | rights)
    }

    /// Encodes BRIEFING.
    pub fn briefing() -> [u8; SHORT] {
        short(TYPE_BRIEFING, 0)
    }

    /// Encodes LOG.
    pub fn log() -> [u8; SHORT] {
        short(TYPE_LOG, 0)
    }

    /// Encodes ENDPOINT.
    pub fn endpoint(purpose: Purpose) -> [u8; SHORT] {
        short(TYPE_ENDPOINT, purpose as u32)
    }

    /// Encodes ZONE. The monitor has no slot, and ignores the number.
    pub fn zone(slot: usize) -> [u8; SHORT] {
        short(TYPE_ZONE, slot as u32)
    }
}

/// What a UDPDATA message says, and its data.
pub fn datagram(data: &[u8]) -> Option<(Accept, &[u8])> {
    let length = data.get(UDP_LENGTH..UDP_LENGTH + 2)?.try_into().ok()?;
    let length = usize::try_from(i16::from_ne_bytes(length)).ok()?;
    let payload = data.get(UDP_HEADER..UDP_HEADER + length)?;
    Some((Accept { protocol: 0, ..Accept::decode(data) }, payload))
}

/// Encodes the next SECRETS message: a part of `data` that begins at `offset`.
pub fn secrets_message(data: &[u8], offset: usize) -> Vec<u8> {
    let part = &data[offset..data.len().min(offset + SECRETS_PART)];
    let mut message = vec![0; SECRETS_HEADER];
    put(&mut message, 0, TYPE_SECRETS);
    put(&mut message, 4, data.len() as u32);
    message.extend_from_slice(part);
    message
}

/// Adds a SECRETS message to what was `received`; `None` if it is not a valid one. True if it was
/// the last.
pub fn add_secrets(message: &[u8], received: &mut Vec<u8>) -> Option<bool> {
    if word(message, 0)? != TYPE_SECRETS {
        return None;
    }
    let total = word(message, 4)? as usize;
    let part = message.get(SECRETS_HEADER..)?;
    if total > SECRETS_LIMIT || received.len() + part.len() > total {
        return None;
    }
    received.reserve_exact(total - received.len());
    received.extend_from_slice(part);
    Some(received.len() == total)
}

/// How much data is in a message from [`secrets_message`].
pub fn secrets_length(message: &[u8]) -> usize {
    message.len() - SECRETS_HEADER
}

impl Accept {
    fn decode(data: &[u8]) -> Accept {
        let mut realm = [0; 16];
        realm[..15].copy_from_slice(&data[16..31]);
        Accept {
            tls_versions: word(data, 4).unwrap_or(0),
            aaa_protocol: word(data, 8).unwrap_or(0),
            flags: word(data, 12).unwrap_or(0),
            realm,
            protocol: word(data, 36).unwrap_or(0),
            client: 0,
            listener: 0,
        }
    }

    /// The number of the listener.
    #[inline]
    pub fn listener_number(&self) -> Option<u16> {
        u16::try_from(self.listener.checked_sub(1)?).ok()
    }

    /// Encodes an ACCEPT message.
    pub fn encode(&self) -> [u8; ACCEPT] {
        let mut data = [0; ACCEPT];
        self.header(&mut data, TYPE_ACCEPT);
        put(&mut data, 32, SOCKET_TYPE_STREAM);
        put(&mut data, 36, self.protocol);
        data
    }

    /// Encodes a CONNECTIONS message for `count` descriptors.
    pub fn encode_connections(&self, count: usize) -> [u8; CLIENT_CONNECTIONS] {
        let mut data = [0; CLIENT_CONNECTIONS];
        data[..ACCEPT].copy_from_slice(&self.encode());
        put(&mut data, 0, TYPE_CONNECTIONS);
        put(&mut data, ACCEPT, count as u32);
        put(&mut data, CONNECTIONS, self.client);
        put(&mut data, CONNECTIONS + 4, self.listener);
        data
    }

    /// Encodes a UDPDATA message with `payload`, of which at most [`UDP_LIMIT`] bytes are sent.
    pub fn encode_datagram(&self, payload: &[u8]) -> Vec<u8> {
        let payload = &payload[..payload.len().min(UDP_LIMIT)];
        let mut data = vec![0; UDP_HEADER];
        self.header(&mut data, TYPE_UDP_DATA);
        data[UDP_LENGTH..][..2].copy_from_slice(&(payload.len() as i16).to_ne_bytes());
        data.extend_from_slice(payload);
        data
    }

    fn header(&self, data: &mut [u8], number: u32) {
        put(data, 0, number);
        put(data, 4, self.tls_versions);
        put(data, 8, self.aaa_protocol);
        put(data, 12, self.flags);
        data[16..32].copy_from_slice(&self.realm);
    }
}

#[cfg(test)]
mod tests;

//! What workers and the process with the private keys say to each other: requests and answers over
//! a stream, each preceded by its length in four bytes. Numbers are in host byte order.
//!
//! ```text
//! request: number (8), name of the key (32), scheme (1), hash (1), what to sign
//! answer:  number (8), signature; none if there is none
//! ```

use crate::os::tls::signing::{Digest, Request, Scheme};

/// The byte beside a descriptor for that process, on its stream to the broker: a stream to a worker.
pub const WORKER: u8 = 1;
/// The same: the log file, opened again.
pub const LOG_FILE: u8 = 2;

/// The most bytes of a request. A client of TLS 1.2 signs all messages of its handshake, which may
/// contain the names of many authorities.
pub const MOST_REQUEST: usize = 256 * 1024;
/// The most bytes of an answer.
pub const MOST_ANSWER: usize = 16 * 1024;

const REQUEST_HEAD: usize = 42;
const SCHEMES: [Scheme; 4] = [Scheme::Whole, Scheme::Ecdsa, Scheme::RsaPkcs1, Scheme::RsaPss];
const DIGESTS: [Digest; 5] =
    [Digest::None, Digest::Sha224, Digest::Sha256, Digest::Sha384, Digest::Sha512];

fn place<T: PartialEq>(list: &[T], one: &T) -> u8 {
    list.iter().position(|other| other == one).unwrap_or(list.len()) as u8
}

/// Appends a request. False, and nothing is appended, if it is too long.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) -> bool {
    let length = REQUEST_HEAD + request.message.len();
    if length > MOST_REQUEST {
        return false;
    }
    out.extend((length as u32).to_ne_bytes());
    out.extend(request.number.to_ne_bytes());
    out.extend(request.key);
    out.extend([place(&SCHEMES, &request.scheme), place(&DIGESTS, &request.digest)]);
    out.extend_from_slice(&request.message);
    true
}

/// Decodes a request; `None` if it is malformed.
pub fn decode_request(frame: &[u8]) -> Option<Request> {
    let (number, rest) = frame.split_first_chunk()?;
    let (key, rest) = rest.split_first_chunk()?;
    let ([scheme, digest], message) = rest.split_first_chunk()?;
    Some(Request {
        number: u64::from_ne_bytes(*number),
        key: *key,
        scheme: *SCHEMES.get(usize::from(*scheme))?,
        digest: *DIGESTS.get(usize::from(*digest))?,
        message: message.to_vec(),
    })
}

/// Appends an answer. A signature is never empty; an empty one stands for none.
pub fn encode_answer(number: u64, signature: &[u8], out: &mut Vec<u8>) {
    out.extend((8 + signature.len() as u32).to_ne_bytes());
    out.extend(number.to_ne_bytes());
    out.extend_from_slice(signature);
}

/// Decodes an answer; `None` if it is malformed.
pub fn decode_answer(frame: &[u8]) -> Option<(u64, &[u8])> {
    let (number, signature) = frame.split_first_chunk()?;
    Some((u64::from_ne_bytes(*number), signature))
}

/// What has arrived of a stream.
#[derive(Debug, Default)]
pub struct Frames {
    data: Vec<u8>,
    taken: usize,
}

/// A frame is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Frames {
    /// Bytes have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.data.drain(..self.taken);
            self.taken = 0;
        }
        self.data.extend_from_slice(bytes);
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.data.len() - self.taken
    }

    /// True if no bytes wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if [`next`](Self::next) has something to say.
    pub fn has_next(&self) -> bool {
        self.length().is_some_and(|length| self.len() >= 4 + length || length > MOST_REQUEST)
    }

    fn length(&self) -> Option<usize> {
        let head = self.data[self.taken..].first_chunk()?;
        Some(u32::from_ne_bytes(*head) as usize)
    }

    /// The next frame, if it is there, of `most` bytes.
    pub fn next(&mut self, most: usize) -> Result<Option<&[u8]>, TooLong> {
        let Some(length) = self.length() else {
            return Ok(None);
        };
        if length > most {
            return Err(TooLong);
        }
        if self.len() < 4 + length {
            return Ok(None);
        }
        let start = self.taken + 4;
        self.taken = start + length;
        Ok(Some(&self.data[start..self.taken]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_and_answers_arrive_whole(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..8),
            cut in 1usize..50,
        ) {
            let request = |(number, message): (usize, &Vec<u8>)| Request {
                number: number as u64,
                key: [number as u8; 32],
                scheme: SCHEMES[number % 4],
                digest: DIGESTS[number % 5],
                message: message.clone(),
            };
            let requests: Vec<Request> = messages.iter().enumerate().map(request).collect();
            let mut data = Vec::new();
            for request in &requests {
                prop_assert!(encode_request(request, &mut data));
                encode_answer(request.number, &request.message, &mut data);
            }
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for part in data.chunks(cut) {
                frames.push(part);
                while frames.has_next() {
                    found.push(frames.next(MOST_REQUEST).unwrap().expect("a frame").to_vec());
                }
                prop_assert_eq!(frames.next(MOST_REQUEST), Ok(None));
            }
            prop_assert_eq!(found.len(), 2 * requests.len());
            for (pair, request) in found.chunks(2).zip(&requests) {
                prop_assert_eq!(decode_request(&pair[0]), Some(request.clone()));
                let answer = (request.number, &request.message[..]);
                prop_assert_eq!(decode_answer(&pair[1]), Some(answer));
            }
        }

        #[test]
        fn decoding_never_panics(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_request(&data);
            let _ = decode_answer(&data);
            let mut frames = Frames::default();
            frames.push(&data);
            while let Ok(Some(_)) = frames.next(100) {}
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_ne_bytes());
        assert!(frames.has_next());
        assert_eq!(frames.next(MOST_REQUEST), Err(TooLong));
        let message = vec![0; MOST_REQUEST];
        let (scheme, digest) = (Scheme::Whole, Digest::None);
        let request = Request { number: 1, key: [0; 32], scheme, digest, message };
        assert!(!encode_request(&request, &mut Vec::new()));
    }
}

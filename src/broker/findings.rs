//! What a check of the configuration has read. The checking child writes it into a pipe, and the
//! broker passes it on to its workers and to the next image.

use super::handover::{Checked, FormerSecrets};
use crate::os::files;
use crate::os::secret::Secret;
use crate::tls::tickets::Ratchet;
use std::io::{self, PipeReader, PipeWriter, Write};

const MAGIC: &[u8; 8] = b"tcprly 1";
const HEAD: usize = MAGIC.len() + 16;
/// More than any configuration needs, certificates included.
const MOST: u64 = 512 << 20;

/// What the check of a good configuration has read.
#[derive(Debug)]
pub struct Findings {
    /// The texts of the configuration, encoded.
    pub snapshot: Vec<u8>,
    /// Contents of the files for TLS.
    pub checked: Checked,
}

impl Findings {
    /// Writes all of it to the pipe.
    pub fn write(&self, mut pipe: PipeWriter) -> io::Result<()> {
        let secrets = FormerSecrets::new(&Ratchet::new([0; 32], 0, 1), Some(&self.checked))?;
        let secrets = secrets.encoded();
        pipe.write_all(MAGIC)?;
        pipe.write_all(&(self.snapshot.len() as u64).to_be_bytes())?;
        pipe.write_all(&(secrets.len() as u64).to_be_bytes())?;
        pipe.write_all(&self.snapshot)?;
        pipe.write_all(secrets)
    }
}

/// Receives the findings, as they arrive.
pub(super) struct Receiver {
    pub(super) pipe: PipeReader,
    head: [u8; HEAD],
    /// Bytes read, of the head and the body together.
    filled: usize,
    body: Option<Secret>,
}

impl Receiver {
    /// `pipe` is the reading end, and nonblocking.
    pub(super) fn new(pipe: PipeReader) -> Receiver {
        Receiver { pipe, head: [0; HEAD], filled: 0, body: None }
    }

    /// Reads what has arrived; false if nothing more will come.
    pub(super) fn read(&mut self) -> bool {
        loop {
            let target = match &mut self.body {
                None => &mut self.head[self.filled..],
                Some(body) => &mut body[self.filled - HEAD..],
            };
            match files::read_into(&self.pipe, target) {
                Ok(Some(0)) | Err(_) => return false,
                Ok(Some(count)) => self.filled += count,
                Ok(None) => return true,
            }
            if self.filled == HEAD && self.body.is_none() {
                let length = self.lengths().and_then(|(snapshot, secrets)| {
                    usize::try_from(snapshot.checked_add(secrets).filter(|&all| all <= MOST)?).ok()
                });
                self.body = length.and_then(|length| Secret::zeroed(length).ok());
                if self.body.is_none() {
                    return false;
                }
            }
        }
    }

    fn lengths(&self) -> Option<(u64, u64)> {
        let rest = self.head.strip_prefix(MAGIC)?;
        let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        Some((number(&rest[..8])?, number(&rest[8..])?))
    }

    /// What was read. `None` if it is incomplete: an older version of the child writes nothing.
    pub(super) fn finish(mut self) -> Option<Findings> {
        self.read();
        let (snapshot, secrets) = self.lengths()?;
        let body = self.body?;
        if self.filled - HEAD < body.len() {
            return None;
        }
        let (snapshot, rest) = body.split_at_checked(usize::try_from(snapshot).ok()?)?;
        let secrets = Secret::copy(rest.get(..usize::try_from(secrets).ok()?)?).ok()?;
        let (_, checked) = FormerSecrets::from_encoded(secrets)?.decode()?;
        Some(Findings { snapshot: snapshot.to_vec(), checked: checked? })
    }
}

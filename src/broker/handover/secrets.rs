//! Secrets of the former image, which must not be in a file or the environment: keys of session
//! tickets, and private keys that a check has read.

use crate::os::process::Rights;
use crate::os::secret::Secret;
use crate::snapshot::material::Material;
use crate::tls::tickets::Ratchet;
use std::io;
use std::rc::Rc;

/// Secrets of the former image, encoded.
#[derive(Debug)]
pub struct FormerSecrets(Secret);

/// What a check has read, as passed on in [`FormerSecrets`].
#[derive(Debug)]
pub struct Checked {
    /// Contents of the files for TLS.
    pub material: Rc<Material>,
    /// `tls session timeout` of the same configuration.
    pub session_timeout: u32,
    /// The configuration has something for a monitor to do.
    pub monitored: bool,
    /// What workers may do as another user.
    pub rights: Rights,
}

/// Bits of the first byte. Older images only look whether it is 0.
const CHECKED: u8 = 1;
const MONITORED: u8 = 2;
const FOREIGN_ADDRESSES: u8 = 4;

impl Checked {
    fn bits(&self) -> u8 {
        let monitored = if self.monitored { MONITORED } else { 0 };
        let rights = match self.rights {
            Rights::None => 0,
            Rights::ForeignAddresses => FOREIGN_ADDRESSES,
        };
        CHECKED | monitored | rights
    }
}

impl FormerSecrets {
    /// Keys of session tickets, and what a check has read, if its version reports that.
    pub fn new(tickets: &Ratchet, checked: Option<&Checked>) -> io::Result<FormerSecrets> {
        let none = Material::default();
        let material = checked.map_or(&none, |checked| &*checked.material);
        let encoded = tickets.encode_with(material)?;
        let mut data = Secret::zeroed(5 + encoded.len())?;
        data[0] = checked.map_or(0, Checked::bits);
        let timeout = checked.map_or(0, |checked| checked.session_timeout);
        data[1..5].copy_from_slice(&timeout.to_be_bytes());
        data[5..].copy_from_slice(&encoded);
        Ok(FormerSecrets(data))
    }

    /// From encoded data; `None` if it is malformed.
    pub(in crate::broker) fn from_encoded(data: Secret) -> Option<FormerSecrets> {
        let secrets = FormerSecrets(data);
        secrets.decode().map(|_| secrets)
    }

    /// The encoded data.
    pub(in crate::broker) fn encoded(&self) -> &Secret {
        &self.0
    }

    /// Keys of session tickets, and what a check has read.
    pub fn decode(&self) -> Option<(Ratchet, Option<Checked>)> {
        let (head, encoded) = self.0.split_at_checked(5)?;
        let (material, tickets) = Ratchet::decode_with(encoded)?;
        let session_timeout = u32::from_be_bytes(head[1..].try_into().ok()?);
        let material = Rc::new(material);
        let monitored = head[0] & MONITORED != 0;
        let rights = match head[0] & FOREIGN_ADDRESSES {
            0 => Rights::None,
            _ => Rights::ForeignAddresses,
        };
        let checked = Checked { material, session_timeout, monitored, rights };
        let checked = (head[0] != 0).then_some(checked);
        Some((tickets, checked))
    }
}

//! Keys of session tickets: the same in all workers, replaced from time to time, never stored.
//!
//! All processes start from one random secret, and replace it by its hash at the same moments of
//! the wall clock. So they need not communicate, and a secret that leaks later does not open older
//! tickets. A ticket can be opened in the period it was made in and in the next one.

use crate::os::secret::{Secret, SecretBytes};
use crate::os::tls::TicketKey;
use crate::snapshot::material::Material;
use openssl::md::Md;
use openssl::md_ctx::MdCtx;
use std::io;

/// How many periods of a clock jump are followed step by step.
const MOST_STEPS: u64 = 1_000_000;

/// The secret that all processes of a service share, and its schedule.
#[derive(Clone, PartialEq, Eq)]
pub struct Ratchet {
    secret: SecretBytes,
    /// When the present secret came into use, in seconds of the wall clock.
    since: u64,
    former: Option<SecretBytes>,
    period: u64,
}

impl std::fmt::Debug for Ratchet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Ratchet since {} every {} s", self.since, self.period)
    }
}

/// `None` only if the library cannot hash.
fn derive(secret: &[u8], label: &str) -> Option<SecretBytes> {
    let mut derived = SecretBytes::zeroed(32);
    let mut context = MdCtx::new().ok()?;
    context.digest_init(Md::sha256()).ok()?;
    context.digest_update(label.as_bytes()).ok()?;
    context.digest_update(secret).ok()?;
    context.digest_final(&mut derived).ok()?;
    Some(derived)
}

impl Ratchet {
    /// Starts from 32 random bytes; `now` and `period` are in seconds.
    pub fn new(secret: [u8; 32], now: u64, period: u64) -> Ratchet {
        let secret = SecretBytes::copy(&secret);
        Ratchet { secret, since: now, former: None, period: period.max(1) }
    }

    /// Starts from a random secret that nobody knows.
    pub fn random(now: u64, period: u64) -> Result<Ratchet, openssl::error::ErrorStack> {
        let mut ratchet = Ratchet::new([0; 32], now, period);
        openssl::rand::rand_priv_bytes(&mut ratchet.secret)?;
        Ok(ratchet)
    }

    /// A ratchet without a secret, for services without tickets: it never gives keys.
    pub fn unset() -> Ratchet {
        Ratchet::new([0; 32], 0, 1)
    }

    /// True for [`unset`](Self::unset), in whichever process it was made.
    pub fn is_unset(&self) -> bool {
        self.secret.iter().all(|&byte| byte == 0)
    }

    /// Sets another period, which counts from now on.
    pub fn set_period(&mut self, period: u64) {
        self.period = period.max(1);
    }

    /// Follows the clock; true if the keys have changed. A clock that is set back changes nothing.
    pub fn advance(&mut self, now: u64) -> bool {
        let steps = now.saturating_sub(self.since) / self.period;
        if steps == 0 || self.is_unset() {
            return false;
        }
        let followed = steps.min(MOST_STEPS);
        for _ in 0..followed {
            let Some(next) = derive(&self.secret, "next") else {
                return false;
            };
            self.former = Some(std::mem::replace(&mut self.secret, next));
        }
        self.since += steps * self.period;
        true
    }

    /// The keys: first for new tickets, then for those of the former period.
    pub fn keys(&self) -> Vec<TicketKey> {
        let key = |secret: &SecretBytes| {
            let mut name = [0; 16];
            name.copy_from_slice(&derive(secret, "name")?[..16]);
            let (cipher, mac) = (derive(secret, "cipher")?, derive(secret, "mac")?);
            Some(TicketKey { name, cipher, mac })
        };
        if self.is_unset() {
            return Vec::new();
        }
        // If hashing fails, there are no tickets.
        let keys: Option<_> = std::iter::once(&self.secret).chain(&self.former).map(key).collect();
        keys.unwrap_or_default()
    }

    /// Encodes the ratchet and the TLS files for another process: [`encode`](Self::encode), then
    /// the files.
    pub fn encode_with(&self, files: &Material) -> io::Result<Secret> {
        files.encode(&self.encode())
    }

    /// As [`encode_with`](Self::encode_with), without private keys that are kept apart.
    pub fn encode_with_public(&self, files: &Material) -> io::Result<Secret> {
        files.encode_public(&self.encode())
    }

    /// As [`encode_with`](Self::encode_with), with those that are shown to remotes.
    pub fn encode_for_monitor(&self, files: &Material) -> io::Result<Secret> {
        files.encode_for_monitor(&self.encode())
    }

    /// Reads what [`encode_with`](Self::encode_with) has written; `None` if it is something else.
    pub fn decode_with(data: &[u8]) -> Option<(Material, Ratchet)> {
        let (ratchet, files) = data.split_first_chunk()?;
        Some((Material::decode(files)?, Ratchet::decode(ratchet)))
    }

    /// Encodes the ratchet for another process: 32 bytes of secret, the time, the period, and the
    /// former secret or zeroes.
    pub fn encode(&self) -> SecretBytes {
        let mut data = SecretBytes::zeroed(ENCODED);
        data[..32].copy_from_slice(&self.secret);
        data[32..40].copy_from_slice(&self.since.to_be_bytes());
        data[40..48].copy_from_slice(&self.period.to_be_bytes());
        if let Some(former) = &self.former {
            data[48..].copy_from_slice(former);
        }
        data
    }

    /// Reads what [`encode`](Self::encode) has written.
    pub fn decode(data: &[u8; ENCODED]) -> Ratchet {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&data[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        let former = &data[48..];
        Ratchet {
            secret: SecretBytes::copy(&data[..32]),
            since: number(32),
            period: number(40).max(1),
            former: former.iter().any(|&byte| byte != 0).then(|| SecretBytes::copy(former)),
        }
    }
}

/// The length of an encoded [`Ratchet`].
pub const ENCODED: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(ratchet: &Ratchet) -> Vec<[u8; 16]> {
        ratchet.keys().iter().map(|key| key.name).collect()
    }

    #[test]
    fn a_ticket_can_be_opened_for_one_more_period() {
        let mut ratchet = Ratchet::new([7; 32], 1000, 100);
        let first = names(&ratchet)[0];
        assert!(!ratchet.advance(1099));
        assert_eq!(names(&ratchet), [first]);
        assert!(ratchet.advance(1100));
        let second = names(&ratchet)[0];
        assert_eq!(names(&ratchet), [second, first]);
        assert!(!ratchet.advance(500), "a clock that was set back");
        assert!(ratchet.advance(1200));
        assert_eq!(names(&ratchet)[1], second);
        assert!(!names(&ratchet).contains(&first));
    }

    #[test]
    fn without_a_secret_there_are_no_keys() {
        let mut ratchet = Ratchet::unset();
        assert!(ratchet.keys().is_empty());
        assert!(!ratchet.advance(1 << 40), "a secret that everybody knows");
        assert!(Ratchet::decode(ratchet.encode().first_chunk().unwrap()).is_unset());
        assert!(!Ratchet::random(1, 2).unwrap().is_unset());
    }

    /// The old and the new image run beside each other during a reload, so their keys must agree.
    #[test]
    fn keys_are_those_of_earlier_executables() {
        let mut ratchet = Ratchet::new([7; 32], 1000, 100);
        ratchet.advance(1100);
        let text = |key: &TicketKey| {
            let bytes = [&key.name[..], &key.cipher, &key.mac].concat();
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let hash = |parts: &[&[u8]]| openssl::sha::sha256(&parts.concat());
        let secret = hash(&[b"next", &[7; 32]]);
        let expected = [
            &hash(&[b"name", &secret])[..16],
            &hash(&[b"cipher", &secret]),
            &hash(&[b"mac", &secret]),
        ];
        let expected: String = expected.concat().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text(&ratchet.keys()[0]), expected);
    }

    proptest! {
        #[test]
        fn processes_agree_whenever_they_look(
            secret: [u8; 32],
            start in 0u64..1 << 40,
            period in 1u64..10_000,
            mut looks in prop::collection::vec(0u64..1_000_000, 1..20),
        ) {
            looks.sort_unstable();
            let mut often = Ratchet::new(secret, start, period);
            let mut once = often.clone();
            for look in &looks {
                often.advance(start + look);
                let mut other = Ratchet::decode(often.encode().first_chunk().unwrap());
                other.advance(start + look);
                prop_assert!(other == often);
            }
            once.advance(start + looks[looks.len() - 1]);
            prop_assert!(once.keys() == often.keys());
        }
    }
}

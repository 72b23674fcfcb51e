//! Keys of session tickets: the same in all workers, new ones from time to time, never stored.
//!
//! All processes start from one random secret and replace it by its hash at the same moments
//! of the wall clock. So they need not talk to each other, and a secret that is found later does
//! not open older tickets. A ticket can be opened for one period after the one it was made in.

use crate::os::secret::Secret;
use crate::os::tls::TicketKey;
use crate::snapshot::material::Material;
use openssl::sha::Sha256;
use std::io;

/// The longest jump of the clock that is followed step by step.
const MOST_STEPS: u64 = 1_000_000;

/// What is common to all processes of a service.
#[derive(Clone, PartialEq, Eq)]
pub struct Ratchet {
    secret: [u8; 32],
    /// When the present secret came into use, in seconds of the wall clock.
    since: u64,
    former: Option<[u8; 32]>,
    period: u64,
}

impl std::fmt::Debug for Ratchet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Ratchet since {} every {} s", self.since, self.period)
    }
}

fn derive(secret: &[u8; 32], label: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(label.as_bytes());
    hash.update(secret);
    hash.finish()
}

impl Ratchet {
    /// A fresh one, from 32 random bytes; `now` and `period` in seconds.
    pub fn new(secret: [u8; 32], now: u64, period: u64) -> Ratchet {
        Ratchet { secret, since: now, former: None, period: period.max(1) }
    }

    /// A fresh one with a secret that nobody knows.
    pub fn random(now: u64, period: u64) -> Result<Ratchet, openssl::error::ErrorStack> {
        let mut secret = [0; 32];
        openssl::rand::rand_priv_bytes(&mut secret)?;
        Ok(Ratchet::new(secret, now, period))
    }

    /// Sets another period, from now on.
    pub fn set_period(&mut self, period: u64) {
        self.period = period.max(1);
    }

    /// Follows the clock; true if the keys have changed. A clock that goes back changes nothing.
    pub fn advance(&mut self, now: u64) -> bool {
        let steps = now.saturating_sub(self.since) / self.period;
        if steps == 0 {
            return false;
        }
        let followed = steps.min(MOST_STEPS);
        for _ in 0..followed {
            let next = derive(&self.secret, "next");
            self.former = Some(std::mem::replace(&mut self.secret, next));
        }
        self.since += steps * self.period;
        true
    }

    /// The keys: for new tickets, and for those of the former period.
    pub fn keys(&self) -> Vec<TicketKey> {
        let key = |secret: &[u8; 32]| {
            let mut name = [0; 16];
            name.copy_from_slice(&derive(secret, "name")[..16]);
            TicketKey { name, cipher: derive(secret, "cipher"), mac: derive(secret, "mac") }
        };
        std::iter::once(&self.secret).chain(&self.former).map(key).collect()
    }

    /// For another process, with the files for TLS: as [`encode`](Self::encode), then the files.
    pub fn encode_with(&self, files: &Material) -> io::Result<Secret> {
        files.encode(&self.encode())
    }

    /// Reads what [`encode_with`](Self::encode_with) has written; `None` if it is something else.
    pub fn decode_with(data: &[u8]) -> Option<(Material, Ratchet)> {
        let (ratchet, files) = data.split_first_chunk()?;
        Some((Material::decode(files)?, Ratchet::decode(ratchet)))
    }

    /// For another process: 32 bytes of secret, the time, the period, and the former secret or
    /// zeroes.
    pub fn encode(&self) -> [u8; ENCODED] {
        let mut data = [0; ENCODED];
        data[..32].copy_from_slice(&self.secret);
        data[32..40].copy_from_slice(&self.since.to_be_bytes());
        data[40..48].copy_from_slice(&self.period.to_be_bytes());
        data[48..].copy_from_slice(&self.former.unwrap_or_default());
        data
    }

    /// Reads what [`encode`](Self::encode) has written.
    pub fn decode(data: &[u8; ENCODED]) -> Ratchet {
        let (mut secret, mut former) = ([0; 32], [0; 32]);
        secret.copy_from_slice(&data[..32]);
        former.copy_from_slice(&data[48..]);
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&data[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Ratchet {
            secret,
            since: number(32),
            period: number(40).max(1),
            former: (former != [0; 32]).then_some(former),
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
                let mut other = Ratchet::decode(&often.encode());
                other.advance(start + look);
                prop_assert!(other == often);
            }
            once.advance(start + looks[looks.len() - 1]);
            prop_assert!(once.keys() == often.keys());
        }
    }
}

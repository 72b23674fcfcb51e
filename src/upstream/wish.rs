//! What an operator has decided about a remote by hand: whether it gets sessions, and its weight.
//!
//! It is a word in the row of the remote that the monitor writes and workers read. As nobody trusts
//! the zone, every word can be decoded.

/// Whether a remote gets sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// As its probes and sessions find it.
    #[default]
    Normal,
    /// No new ones; those that it has go on.
    Drained,
    /// None; those that it has are ended.
    Disabled,
}

/// How long a decision counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lasting {
    /// Until it is taken back.
    #[default]
    Always,
    /// Until the configuration is read again.
    UntilReload,
}

/// What an operator has decided about a remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Whether it gets sessions.
    pub service: Service,
    /// How long that counts.
    pub service_lasts: Lasting,
    /// Its weight, in place of the configured one.
    pub weight: Option<u32>,
    /// How long that counts.
    pub weight_lasts: Lasting,
}

const DRAINED: u64 = 1;
const DISABLED: u64 = 2;
const SERVICE_PASSES: u64 = 4;
const WEIGHT_PASSES: u64 = 8;
/// The weight is above this bit; 0 is the configured one.
const WEIGHT: u32 = 32;
/// The largest weight, as in the configuration.
pub const MOST_WEIGHT: u32 = i32::MAX as u32;

impl Wish {
    /// Decodes a word.
    pub fn decode(word: u64) -> Wish {
        let service = match word & (DRAINED | DISABLED) {
            DRAINED => Service::Drained,
            DISABLED => Service::Disabled,
            _ => Service::Normal,
        };
        let lasts = |bit| if word & bit == 0 { Lasting::Always } else { Lasting::UntilReload };
        let weight = (word >> WEIGHT) as u32;
        Wish {
            service,
            service_lasts: lasts(SERVICE_PASSES),
            weight: (weight != 0).then(|| weight.min(MOST_WEIGHT)),
            weight_lasts: lasts(WEIGHT_PASSES),
        }
    }

    /// The word; 0 if nothing was decided.
    pub fn encode(self) -> u64 {
        let service = match self.service {
            Service::Normal => 0,
            Service::Drained => DRAINED,
            Service::Disabled => DISABLED,
        };
        let passes = |lasting, bit| if lasting == Lasting::UntilReload { bit } else { 0 };
        let mut word = service;
        if service != 0 {
            word |= passes(self.service_lasts, SERVICE_PASSES);
        }
        if let Some(weight) = self.weight {
            word |= u64::from(weight.clamp(1, MOST_WEIGHT)) << WEIGHT;
            word |= passes(self.weight_lasts, WEIGHT_PASSES);
        }
        word
    }

    /// What is left of it when the configuration is read again.
    pub fn after_reload(self) -> Wish {
        let mut wish = self;
        if wish.service_lasts == Lasting::UntilReload {
            (wish.service, wish.service_lasts) = (Service::Normal, Lasting::Always);
        }
        if wish.weight_lasts == Lasting::UntilReload {
            (wish.weight, wish.weight_lasts) = (None, Lasting::Always);
        }
        wish
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_word_is_a_wish(word: u64) {
            let wish = Wish::decode(word);
            prop_assert_eq!(Wish::decode(wish.encode()).encode(), wish.encode());
            let after = wish.after_reload();
            prop_assert!(after.service_lasts == Lasting::Always || after.service == Service::Normal);
            prop_assert_eq!(after.after_reload(), after);
        }
    }

    #[test]
    fn nothing_is_zero() {
        assert_eq!((Wish::default().encode(), Wish::decode(0)), (0, Wish::default()));
        let wish = Wish {
            service: Service::Drained,
            weight: Some(3),
            weight_lasts: Lasting::UntilReload,
            ..Wish::default()
        };
        assert_eq!(Wish::decode(wish.encode()), wish);
        assert_eq!(
            wish.after_reload(),
            Wish { weight: None, weight_lasts: Lasting::Always, ..wish }
        );
    }
}

//! What we do with records that the kernel seals and opens.

use super::*;
use crate::os::ktls::Way;
use crate::tls::records::{Age, KEY_UPDATE, REKEY_AFTER};

const HANDSHAKE: u8 = 22;
/// KeyUpdates that do not, and do, request one in return.
const UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const REQUEST: [u8; 5] = [24, 0, 0, 1, 1];

fn records(suite: [u8; 2]) -> Records {
    let version = if suite[0] == 0x13 { Version::Tls13 } else { Version::Tls12 };
    let suite = Suite::of(version, suite).expect("a suite");
    let secrets = match version {
        Version::Tls13 => Secrets::Traffic { ours: [1; 32][..].into(), theirs: [2; 32][..].into() },
        Version::Tls12 => {
            Secrets::Master { secret: &[3; 48], randoms: [&[4; 32], &[5; 32]], server: true }
        }
    };
    Records::new(suite, &secrets, Numbers { sent: 0, received: 0 }).expect("records")
}

/// A client that only reads, and limits the bytes of a key, updates often.
#[test]
fn what_the_kernel_sends_gives_the_budget_back() {
    let mut session = records([0x13, 1]);
    let most = (0..100).take_while(|_| session.control(HANDSHAKE, &UPDATE).is_ok()).count();
    assert_eq!(most, 32);
    let mut session = records([0x13, 1]);
    for _ in 0..300 {
        session.note_sent(8);
        assert!(session.control(HANDSHAKE, &UPDATE).expect("a session").new_receive_keys);
    }
}

#[test]
fn requests_for_new_keys_stay_due_until_they_are_sent() {
    let mut session = records([0x13, 1]);
    let before = session.kernel_keys(Way::Send).expect("keys");
    for _ in 0..3 {
        let control = session.control(HANDSHAKE, &REQUEST).expect("a session");
        assert!(control.answer.is_none() && session.is_update_due());
    }
    assert_eq!(KEY_UPDATE, (HANDSHAKE, UPDATE));
    let after = session.kernel_update().expect("keys");
    assert!(!session.is_update_due());
    assert_ne!(before.get().key, after.get().key);
    assert_eq!(after.get().sequence, 0);
}

#[test]
fn keys_of_the_kernel_have_their_age() {
    let ages = |suite| {
        let session = records(suite);
        [0, REKEY_AFTER - 1, REKEY_AFTER, 2 * REKEY_AFTER].map(|number| session.kernel_age(number))
    };
    use Age::{Due, Spent, Young};
    assert_eq!(ages([0x13, 1]), [Young, Young, Due, Spent]);
    assert_eq!(ages([0x13, 3]), [Young, Young, Due, Due]);
    assert_eq!(ages([0xc0, 0x2f]), [Young; 4]);
    // TLS 1.2 cannot renew keys.
    let mut session = records([0xc0, 0x2f]);
    session.request_update();
    assert!(!session.is_update_due());
    session = records([0x13, 1]);
    session.request_update();
    assert!(session.is_update_due());
}

#[test]
fn an_empty_record_of_data_is_no_end() {
    let mut session = records([0x13, 1]);
    let control = session.control(23, &[]).expect("a session");
    assert!(!control.closed && control.answer.is_none());
    // But many of them are too many.
    assert!((0..100).any(|_| session.control(23, &[]).is_err()));
}

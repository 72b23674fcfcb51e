//! Passwords in the `$1$` form of crypt(5): MD5 in a thousand rounds.
//!
//! The scheme is obsolete. It is here to check passwords that are stored this way.

use super::md::Md5;

const MAGIC: &[u8] = b"$1$";
/// The digits of crypt(3), which are in another order than those of base 64.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The stored form of `password`: `$1$SALT$` and 22 characters.
///
/// The salt may have `$1$` in front, as in a stored password; it ends at the next `$`, or after
/// eight bytes.
pub fn md5crypt(password: &[u8], salt: &[u8]) -> Vec<u8> {
    let salt = salt.strip_prefix(MAGIC).unwrap_or(salt);
    let salt = salt.split(|&byte| byte == b'$').next().unwrap_or_default();
    let salt = &salt[..salt.len().min(8)];
    let mut digest = start(password, salt);
    for round in 0..1000 {
        digest = stretch(round, &digest, password, salt);
    }
    let mut stored = [MAGIC, salt, b"$"].concat();
    // Three bytes give four digits, and the last byte two; low bits first.
    for [high, middle, low] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        let value = u32::from_be_bytes([0, digest[high], digest[middle], digest[low]]);
        push_digits(&mut stored, value, 4);
    }
    push_digits(&mut stored, u32::from(digest[11]), 2);
    stored
}

/// The digest of password, magic and salt, mixed with a digest of password, salt and password, and
/// then with one byte for each bit of the password's length.
fn start(password: &[u8], salt: &[u8]) -> [u8; 16] {
    let inner = Md5::of(&[password, salt, password].concat());
    let mut outer = Md5::new();
    outer.update(password);
    outer.update(MAGIC);
    outer.update(salt);
    for piece in password.chunks(16) {
        outer.update(&inner[..piece.len()]);
    }
    let mut length = password.len();
    while length > 0 {
        // The scheme uses a zero byte here, where its author meant a byte of the digest.
        outer.update(if length & 1 == 1 { &[0] } else { &password[..1] });
        length >>= 1;
    }
    outer.finish()
}

fn stretch(round: u32, digest: &[u8; 16], password: &[u8], salt: &[u8]) -> [u8; 16] {
    let odd = round % 2 == 1;
    let mut next = Md5::new();
    next.update(if odd { password } else { digest });
    if !round.is_multiple_of(3) {
        next.update(salt);
    }
    if !round.is_multiple_of(7) {
        next.update(password);
    }
    next.update(if odd { digest } else { password });
    next.finish()
}

fn push_digits(stored: &mut Vec<u8>, mut value: u32, count: usize) {
    for _ in 0..count {
        stored.push(DIGITS[value as usize % 64]);
        value /= 64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(password: &str, salt: &str) -> String {
        String::from_utf8(md5crypt(password.as_bytes(), salt.as_bytes())).unwrap()
    }

    #[test]
    fn stored_form_is_that_of_crypt() {
        let expected = "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1";
        assert_eq!(stored("secret", "$1$abcdefgh$"), expected);
        assert_eq!(stored("secret", expected), expected);
        assert_eq!(stored("secret", "abcdefghij"), expected);
        // Test vector of the crypt(3) of FreeBSD.
        assert_eq!(stored("0.s0.l33t", "$1$deadbeef$"), "$1$deadbeef$0Huu6KHrKLVWfqa4WljDE0");
    }

    #[test]
    fn salt_and_password_may_be_empty() {
        assert_eq!(stored("", "").len(), 4 + 22);
        assert_eq!(stored("x", "$1$$rest"), stored("x", ""));
    }
}

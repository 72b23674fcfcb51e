//! Wycheproof's vectors (C2SP/wycheproof, testvectors_v1) through the AEADs as records use them.
//! TCPRELAY_WYCHEPROOF names a copy of that repository.

use super::*;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

fn bytes(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// The vectors of a file, as far as records have the same sizes. The files have one member on a
/// line, and a vector ends with its result.
fn vectors(path: &Path) -> Vec<HashMap<String, String>> {
    let text = fs::read_to_string(path).expect("vectors");
    let (mut found, mut sizes, mut vector) = (Vec::new(), HashMap::new(), HashMap::new());
    for line in text.lines() {
        let Some((name, value)) = line.trim().trim_end_matches(',').split_once(": ") else {
            continue;
        };
        let (name, value) = (name.trim_matches('"').to_owned(), value.trim_matches('"').to_owned());
        if name.ends_with("Size") {
            sizes.insert(name, value);
            continue;
        }
        let ends = name == "result";
        vector.insert(name, value);
        if ends {
            let vector = std::mem::take(&mut vector);
            if sizes["ivSize"] == "96" && sizes["tagSize"] == "128" && sizes["keySize"] != "192" {
                found.push(vector);
            }
        }
    }
    found
}

#[test]
fn wycheproof_s_vectors() {
    let Some(folder) = std::env::var_os("TCPRELAY_WYCHEPROOF") else {
        eprintln!("SKIPPED: Wycheproof's vectors: TCPRELAY_WYCHEPROOF is not set");
        return;
    };
    let folder = Path::new(&folder).join("testvectors_v1");
    for (file, least) in [("aes_gcm_test.json", 100), ("chacha20_poly1305_test.json", 200)] {
        let vectors = vectors(&folder.join(file));
        assert!(vectors.len() >= least, "{file}: {} vectors", vectors.len());
        let mut forged = 0;
        for vector in &vectors {
            let [key, iv, aad, message, sealed, tag] =
                ["key", "iv", "aad", "msg", "ct", "tag"].map(|name| bytes(&vector[name]));
            let number = match (file, key.len()) {
                ("aes_gcm_test.json", 16) => 0x1301_u16,
                ("aes_gcm_test.json", _) => 0x1302,
                _ => 0x1303,
            };
            let suite = Suite::of(Version::Tls13, number.to_be_bytes()).expect("a suite");
            let nonce: [u8; 12] = iv.try_into().expect("twelve bytes");
            let half = |purpose| {
                Half::new(suite, &key, &nonce, SecretBytes::copy(&key), purpose).expect("keys")
            };
            let mut room = vec![0; message.len() + TAG + 1];
            // In two parts, as data and inner type are.
            let (first, second) = message.split_at(message.len().saturating_sub(1));
            half(Purpose::Seal).encrypt(&nonce, &aad, [first, second], &mut room).expect("to seal");
            let expected = [&sealed[..], &tag].concat();
            let valid = vector["result"] == "valid";
            assert_eq!(room[..expected.len()] == expected[..], valid, "{file} {vector:?}");
            let mut room = vec![0; sealed.len().max(1)];
            let opened = half(Purpose::Open)
                .decrypt(&nonce, &aad, &sealed, &tag, &mut room)
                .expect("to open");
            match opened {
                Ok(length) => assert!(valid && room[..length] == message[..], "{file} {vector:?}"),
                Err(Forged) => assert!(!valid, "{file} {vector:?}"),
            }
            forged += usize::from(!valid);
        }
        assert!(forged > 0);
        eprintln!("{file}: {} vectors, {forged} of them forged", vectors.len());
    }
}

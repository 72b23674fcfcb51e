//! PROXY headers, which come from anybody who can connect.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::config::relay::ProxyVersion;
use mavis::upstream::proxy::{read, write, Header, Origin, Reading};

fuzz_target!(|bytes: &[u8]| {
    let reading = read(bytes);
    if let Reading::Complete(header, length) = &reading {
        assert!(*length <= bytes.len());
        // Fewer bytes are not enough, and more change nothing.
        assert_eq!(read(&bytes[..length - 1]), Reading::Incomplete);
        assert_eq!(read(&bytes[..*length]), reading);
        // What was understood can be said again.
        let written = write(ProxyVersion::V2, header);
        let Reading::Complete(again, all) = read(&written) else {
            panic!("{header:?}");
        };
        assert_eq!(all, written.len());
        // Fields that are too long are left out.
        let short = |value: &Option<Vec<u8>>| value.as_ref().is_none_or(|value| value.len() <= 400);
        let tls = header.tls.as_ref();
        let named = tls.is_none_or(|tls| {
            tls.version.len() <= 100 && short(&tls.cipher) && short(&tls.common_name)
        });
        let mapped = matches!(&header.origin, Origin::Client { source, destination }
            if source.ip().map(|ip| ip.to_canonical()) != source.ip()
                || destination.ip().map(|ip| ip.to_canonical()) != destination.ip());
        // Without addresses it is LOCAL, of which nothing else counts.
        let expected = match header.origin {
            Origin::Unknown => Header::local(),
            _ => (**header).clone(),
        };
        if short(&header.alpn) && short(&header.authority) && named && !mapped {
            assert_eq!(*again, expected);
        }
    }
});

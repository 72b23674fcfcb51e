//! /etc/hosts, and when the files change that say how names are looked up.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

/// Names and their addresses on this host.
const HOSTS: &str = "/etc/hosts";
/// What decides about lookups.
const FILES: [&str; 3] = [HOSTS, "/etc/resolv.conf", "/etc/nsswitch.conf"];
/// A larger file is not read.
const MOST: u64 = 4 << 20;

/// The addresses of a host in /etc/hosts; none if it is not there, or the file cannot be read.
pub fn addresses(host: &str) -> Vec<IpAddr> {
    if fs::metadata(HOSTS).map_or(0, |file| file.len()) > MOST {
        return Vec::new();
    }
    fs::read(HOSTS).map_or_else(|_| Vec::new(), |text| find(&text, host))
}

/// The addresses of a host in a text like /etc/hosts.
pub fn find(text: &[u8], host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut found = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let address = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        let Some(address) = address else {
            continue;
        };
        if words.any(|word| word.eq_ignore_ascii_case(host.as_bytes())) && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// What tells one state of a file from another.
type State = Option<(u64, u64, u64, i64, i64)>;

/// The files that decide about lookups, as they were when they were last looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Files([State; FILES.len()]);

impl Files {
    /// The files as they are.
    pub fn look() -> Files {
        Files(FILES.map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_by_any_of_their_names() {
        let text = b"127.0.0.1\tlocalhost\n# 192.0.2.1 a\n192.0.2.2 db.example.org DB # b\n\
            2001:db8::1 db\n192.0.2.2 db\nnonsense db\n \xff\n192.0.2.3 dbase\n192.0.2.4";
        let find = |host| find(text, host);
        let addresses: Vec<IpAddr> =
            ["192.0.2.2", "2001:db8::1"].map(|text| text.parse().expect("an address")).into();
        assert_eq!(find("db"), addresses);
        assert_eq!(find("Db.Example.Org."), addresses[..1]);
        assert_eq!(find("b"), [] as [IpAddr; 0]);
        assert_eq!(find("192.0.2.4"), [] as [IpAddr; 0]);
    }
}

//! Zones of IPv6 addresses (RFC 4007): interfaces, by name or number. 0 means no zone.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::OnceLock;

/// Interface names from before the process was confined: see [`remember`].
static REMEMBERED: OnceLock<BTreeMap<u32, String>> = OnceLock::new();

/// The number of an interface, given its name or the number in decimal. `None` for an unknown name
/// and for 0.
pub fn index(zone: &str) -> Option<u32> {
    if zone.bytes().all(|byte| byte.is_ascii_digit()) {
        return zone.parse().ok().filter(|&index| index != 0);
    }
    let name = CString::new(zone).ok()?;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// Looks up the names of all interfaces and keeps them: a confined process may not ask later.
pub fn remember() {
    REMEMBERED.get_or_init(|| {
        let mut names = BTreeMap::new();
        // SAFETY: the list is null, or ends with an entry without a name; it is read before it is
        // freed, and its names are NUL-terminated.
        unsafe {
            let list = libc::if_nameindex();
            let mut entry = list;
            while !entry.is_null() && !(*entry).if_name.is_null() {
                let name = CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned();
                names.insert((*entry).if_index, name);
                entry = entry.add(1);
            }
            if !list.is_null() {
                libc::if_freenameindex(list);
            }
        }
        names
    });
}

fn name(index: u32) -> Option<String> {
    if let Some(names) = REMEMBERED.get() {
        return names.get(&index).cloned();
    }
    // IF_NAMESIZE is 16 to 44, but not all headers define it.
    let mut name: [libc::c_char; 64] = [0; 64];
    // SAFETY: there is room for the longest name with its NUL.
    let found = unsafe { !libc::if_indextoname(index, name.as_mut_ptr()).is_null() };
    // c_char is signed on some machines and unsigned on others.
    let bytes = name.iter().flat_map(|c| c.to_ne_bytes()).take_while(|&byte| byte != 0);
    found.then(|| String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned())
}

/// Shows a zone after an address: `%eth0`, `%2` if the interface has no name, nothing for 0.
#[derive(Clone, Copy, Debug)]
pub struct Suffix(pub u32);

impl fmt::Display for Suffix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.0;
        if index == 0 {
            return Ok(());
        }
        match name(index) {
            Some(name) => write!(out, "%{name}"),
            None => write!(out, "%{index}"),
        }
    }
}

//! Searches the memory of a process.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

/// Whether the dumpable memory of a process contains these bytes.
pub fn memory_contains(pid: i32, wanted: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("smaps");
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).expect("mem");
    let mut range = None;
    let mut found = false;
    for line in maps.lines() {
        let first = line.split(' ').next().unwrap_or("");
        if let Some((start, end)) = first.split_once('-') {
            let number = |text: &str| u64::from_str_radix(text, 16).ok();
            // What cannot be written came from a file; what is shared is the zone.
            range = number(start).zip(number(end)).filter(|_| line.contains(" rw-p "));
        } else if let (Some(flags), Some((start, end))) = (line.strip_prefix("VmFlags:"), range) {
            if flags.split(' ').any(|flag| flag == "dd") {
                continue;
            }
            let mut data = vec![0; (end - start) as usize];
            if memory.seek(SeekFrom::Start(start)).is_ok() && memory.read_exact(&mut data).is_ok() {
                found |= memchr::memmem::find(&data, wanted).is_some();
            }
        }
    }
    found
}

/// Whether the memory of a process contains one of these, what is left out of core dumps included.
/// A process that has ended has no memory.
pub fn all_memory_contains(pid: i32, wanted: &[Vec<u8>]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
    let (Ok(maps), Ok(mut memory)) = (maps, fs::File::open(format!("/proc/{pid}/mem"))) else {
        assert!(super::is_gone(pid), "the memory of {pid} cannot be read");
        return false;
    };
    maps.lines().any(|line| {
        let mut fields = line.split(' ');
        let range = fields.next().and_then(|range| range.split_once('-'));
        // What cannot be written came from a file; what is shared is the zone.
        let writable = fields.next().is_some_and(|rights| rights.starts_with("rw-p"));
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let range = range.and_then(|(start, end)| number(start).zip(number(end)));
        let Some((start, end)) = range.filter(|_| writable) else {
            return false;
        };
        let mut data = vec![0; (end - start) as usize];
        memory.seek(SeekFrom::Start(start)).is_ok()
            && memory.read_exact(&mut data).is_ok()
            && wanted.iter().any(|one| memchr::memmem::find(&data, one).is_some())
    })
}

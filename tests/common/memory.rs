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
            range = number(start).zip(number(end)).filter(|_| line.contains(" rw"));
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

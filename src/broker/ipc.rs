//! `ipc key`: a copy of the configuration in shared memory, for workers that may not read the file.

use crate::config::{broker::Spawn, DIRECTORY_VARIABLE};
use crate::os::shm::Segment;
use std::ffi::OsString;
use std::io;

/// Copies the configuration, `text`, which was read from `source`. Returns the segment, and the name
/// by which workers find it; `None` if that is not configured.
pub fn share(spawn: &Spawn, text: &[u8], source: &str) -> io::Result<Option<(Segment, OsString)>> {
    if spawn.ipc_key == 0 || spawn.config.is_some() {
        return Ok(None);
    }
    let segment = Segment::create(spawn.ipc_key, text, spawn.ids.uid, spawn.ids.gid)?;
    let directory = match source.rfind('/') {
        Some(slash) => &source[..=slash],
        None => "./",
    };
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.into());
    let directory = format!("{}/", directory.display().to_string().trim_end_matches('/'));
    std::env::set_var(DIRECTORY_VARIABLE, directory);
    Ok(Some((segment, format!("ipc://{}/{}", spawn.ipc_key, text.len()).into())))
}

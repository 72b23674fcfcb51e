//! Going to the background.

use super::process::{self, exit, Fork};
use std::io::{self, PipeWriter, Read};

/// The two processes after going to the background.
#[derive(Debug)]
pub enum Side {
    /// The process that the user started, with its exit status.
    Launcher(i32),
    /// The process that serves, with the pipe for telling the launcher how the start went.
    Daemon(PipeWriter),
}

/// Goes to the background. The launcher exits when the daemon serves or has failed, so that its
/// exit status tells whether there is a service.
pub fn go(keep_stderr: bool) -> io::Result<Side> {
    let (mut read, write) = io::pipe()?;
    match process::fork()? {
        Fork::Parent(_) => {
            drop(write);
            let mut status = [0];
            let told = read.read(&mut status);
            Ok(Side::Launcher(match told {
                Ok(1) => i32::from(status[0]),
                _ => exit::SOFTWARE,
            }))
        }
        Fork::Child => {
            process::new_session();
            for fd in 0..if keep_stderr { 2 } else { 3 } {
                process::redirect_to_null(fd)?;
            }
            Ok(Side::Daemon(write))
        }
    }
}

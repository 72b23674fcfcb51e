//! Provides the system's log socket where there is none, and reads what the processes send there.

use crate::common::{is_root, wait_for};
use crate::runner::exclude;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::thread;

const PATH: &str = "/dev/log";

enum State {
    NotThere(&'static str),
    Ours,
}

static STATE: Mutex<State> = Mutex::new(State::NotThere("the log socket was not made"));
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// True if there is a log socket, and a process that reads it.
pub(crate) fn exists() -> bool {
    UnixDatagram::unbound().and_then(|socket| socket.connect(PATH)).is_ok()
}

/// Makes the log socket, if that is possible.
pub(crate) fn start() {
    let mut state = STATE.lock().expect("the state");
    if !is_root() {
        *state = State::NotThere("needs root to make the log socket");
    } else if exists() {
        *state = State::NotThere("the log socket belongs to the system");
    } else {
        // A socket that nobody reads is left over from a run that was killed.
        let _ = fs::remove_file(PATH);
        let Ok(socket) = UnixDatagram::bind(PATH) else {
            *state = State::NotThere("the log socket cannot be made");
            return;
        };
        let _ = fs::set_permissions(PATH, fs::Permissions::from_mode(0o666));
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(length) = socket.recv(&mut buffer) {
                let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
                LINES.lock().expect("the lines").push(line);
            }
        });
        *state = State::Ours;
    }
}

/// Removes the socket, if this process made it.
pub(crate) fn stop() {
    let mut state = STATE.lock().expect("the state");
    if matches!(*state, State::Ours) {
        let _ = fs::remove_file(PATH);
        *state = State::NotThere("the log socket was removed");
    }
}

/// Leaves the case out if there is no log socket that this process can read.
pub(crate) fn require() {
    let why = match *STATE.lock().expect("the state") {
        State::NotThere(why) => why,
        State::Ours => return,
    };
    exclude(why)
}

/// The messages of a process: `<PRI>Mon DD HH:MM:SS IDENT[PID]: TEXT`.
pub(crate) fn lines(pid: i32) -> Vec<String> {
    let tag = format!("[{pid}]: ");
    let lines = LINES.lock().expect("the lines");
    lines.iter().filter(|line| line.contains(&tag)).cloned().collect()
}

/// Waits for a message of a process that contains `text`.
pub(crate) fn expect(pid: i32, text: &str) -> String {
    wait_for(&format!("{text:?} in the system's log"), || {
        lines(pid).into_iter().find(|line| line.contains(text))
    })
}

//! Runs seeds, several in parallel, and reports those that fail.

use crate::kernel::Kernel;
use crate::{system, world};
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty())?.parse().ok()
}

/// Runs one seed. Returns what went wrong and the trace up to then, or `None`.
fn simulate(seed: u64, traced: bool) -> Option<(String, Vec<String>)> {
    system::enter(Kernel::new(seed, traced));
    let run = catch_unwind(AssertUnwindSafe(|| world::World::new(seed).run()));
    let kernel = system::leave()?;
    let wrong = match run {
        Ok(()) => kernel.violation,
        Err(_) => Some(kernel.violation.unwrap_or_else(|| "panic".to_owned())),
    };
    wrong.map(|wrong| (wrong, kernel.trace.into_iter().flatten().collect()))
}

/// Runs a seed in a process of its own, whose exit status is 0 if all went well.
fn run_child(seed: u64) -> libc::pid_t {
    // SAFETY: this process has one thread, so the child may run any code.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child > 0 {
        return child;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let found = simulate(seed, false);
    // SAFETY: _exit(2) takes a plain number; it skips the parent's exit handlers.
    unsafe { libc::_exit(i32::from(found.is_some())) }
}

/// Runs a seed and prints its trace.
fn replay(seed: u64) -> bool {
    let Some((wrong, trace)) = simulate(seed, true) else {
        println!("seed {seed}: all is well");
        return true;
    };
    let shown = setting("TRACE").unwrap_or(200) as usize;
    let mut out = std::io::stdout().lock();
    for line in &trace[trace.len().saturating_sub(shown)..] {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "seed {seed}: {wrong}");
    let _ = writeln!(out, "again: make simulate SEED={seed}, with TRACE=20000 for all of it");
    false
}

/// Runs the seeds the environment asks for; true if all went well.
pub fn main() -> bool {
    mavis::os::log::mute();
    if let Some(seed) = setting("SEED") {
        return replay(seed);
    }
    let start = Instant::now();
    let seeds =
        setting("SEEDS").unwrap_or(if setting("SECONDS").is_some() { u64::MAX } else { 300 });
    let limit = Duration::from_secs(setting("SECONDS").unwrap_or(u64::MAX / 4));
    let first = setting("FIRST").unwrap_or(1);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = setting("JOBS").map_or(processors, |jobs| jobs as usize);
    let (mut next, mut running) = (first, std::collections::BTreeMap::new());
    let mut failed = None;
    loop {
        while running.len() < jobs
            && failed.is_none()
            && next - first < seeds
            && start.elapsed() < limit
        {
            running.insert(run_child(next), next);
            next += 1;
        }
        if running.is_empty() {
            break;
        }
        let mut status = 0;
        // SAFETY: there is room for the status.
        let child = unsafe { libc::waitpid(-1, &mut status, 0) };
        let Some(seed) = running.remove(&child) else {
            continue;
        };
        if status != 0 {
            failed = Some(failed.map_or(seed, |failed: u64| failed.min(seed)));
        }
    }
    let Some(seed) = failed else {
        let count = next - first;
        let seconds = start.elapsed().as_secs();
        println!("{count} runs from seed {first} in {seconds} s: all is well");
        return true;
    };
    println!("seed {seed} has failed after {} s", start.elapsed().as_secs());
    let program = std::env::current_exe().expect("a program");
    let mut again = Command::new(program);
    let _ = again.env("SEED", seed.to_string()).stdin(Stdio::null()).status();
    false
}

//! Runs seeds, several in parallel, and reports those that fail.

use crate::kernel::Kernel;
use crate::{system, world};
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What `make test` runs: so many seeds at least, and for so long at least.
const LEAST_SEEDS: u64 = 1000;
const LEAST_TIME: Duration = Duration::from_secs(60);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty())?.parse().ok()
}

/// Runs one seed. Returns what went wrong, if anything, and the trace.
fn simulate(seed: u64, traced: bool) -> (Option<String>, Vec<String>) {
    system::enter(Kernel::new(seed, traced));
    let run = catch_unwind(AssertUnwindSafe(|| world::World::new(seed).run()));
    let kernel = system::leave().expect("the kernel that was entered");
    let wrong = match run {
        Ok(()) => kernel.violation,
        Err(_) => Some(kernel.violation.unwrap_or_else(|| "panic".to_owned())),
    };
    (wrong, kernel.trace.into_iter().flatten().collect())
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
    unsafe { libc::_exit(i32::from(found.0.is_some())) }
}

/// Runs a seed and prints its trace.
fn replay(seed: u64) -> bool {
    let (wrong, trace) = simulate(seed, true);
    let shown = setting("TRACE").unwrap_or(if wrong.is_some() { 200 } else { 0 }) as usize;
    let mut out = std::io::stdout().lock();
    for line in &trace[trace.len().saturating_sub(shown)..] {
        let _ = writeln!(out, "{line}");
    }
    let Some(wrong) = wrong else {
        let _ = writeln!(out, "seed {seed}: all is well");
        return true;
    };
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
    let (seeds, seconds) = (setting("SEEDS"), setting("SECONDS"));
    let limit = seconds.map(Duration::from_secs);
    let wanted = |done: u64| match (seeds, limit) {
        (None, None) => done < LEAST_SEEDS || start.elapsed() < LEAST_TIME,
        _ => {
            seeds.is_none_or(|seeds| done < seeds)
                && limit.is_none_or(|limit| start.elapsed() < limit)
        }
    };
    let first = setting("FIRST").unwrap_or(1);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = setting("JOBS").map_or(processors, |jobs| jobs as usize);
    let (mut next, mut running) = (first, std::collections::BTreeMap::new());
    let mut failed = None;
    loop {
        while running.len() < jobs && failed.is_none() && wanted(next - first) {
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

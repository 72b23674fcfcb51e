//! Simulation: a broker, workers, clients and remotes in one process and one thread, over a
//! simulated kernel. A seed determines everything that happens. `make simulate` runs it.
//!
//! SEEDS: how many seeds to run; SECONDS: for how long at most; with neither, 300 seeds at least and
//! for 60 s at least; FIRST: the first seed; SEED: only this one, and print the last TRACE (200) lines of what happened; JOBS:
//! how many seeds to run in parallel. Each seed runs in a process of its own, so that nothing
//! carries over to the next one and a crash counts as a failure.
//!
//! [`system`] replaces the system calls, and [`kernel`] answers them; [`processes`] has the broker
//! and its workers, [`clients`] both ends of the connections they relay. [`world`] moves all of
//! them at random, and checks after each step that the invariants hold.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod clients;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod kernel;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod processes;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod random;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod runs;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod system;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod weather;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod world;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn main() {
    if !runs::main() {
        std::process::exit(1);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main() {
    println!("SKIPPED: the simulated kernel is a Linux");
}

//! Simulation: a broker, workers, clients and remotes in one process and one thread, over a kernel
//! that a seed determines. `make simulate` runs it.
//!
//! SEEDS: so many; SECONDS: at most so long, 60 without either; FIRST: from this one on; SEED: this
//! one alone, with the last TRACE (200) lines of what happened; JOBS: so many at a time. Each run has
//! a process of its own, so that nothing is left over for the next, and a crash is found as well.
//!
//! [`system`] has the system calls, [`kernel`] what answers them, [`processes`] the broker and its
//! workers, [`clients`] both ends of what they relay, and [`world`] moves all of them by chance and
//! looks at each step whether what must hold does.

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

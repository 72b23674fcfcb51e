//! spawnd: the broker alone, for any worker program that speaks its protocol. See spawnd(8).

#[path = "../../ffi/program.rs"]
mod program;

fn main() {
    std::process::exit(program::run(program::SPAWND));
}

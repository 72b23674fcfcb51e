//! tcprelayctl: asks and changes a running relay. See tcprelayctl(8).

#[path = "../../ffi/program.rs"]
mod program;

fn main() {
    std::process::exit(program::run(program::TCPRELAYCTL));
}

//! tcprelay: broker and worker in one executable. See tcprelay(8).

#[path = "../../ffi/program.rs"]
mod program;

fn main() {
    std::process::exit(program::run(program::TCPRELAY));
}

//! mavistest: one query through a chain of MAVIS modules. See mavistest(1).

#[path = "../../ffi/program.rs"]
mod program;

fn main() {
    std::process::exit(program::run(program::MAVISTEST));
}

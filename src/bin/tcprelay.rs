//! tcprelay: broker and worker in one executable. See tcprelay(8).

fn main() {
    std::process::exit(tcprelay::program::main(tcprelay::program::Kind::Tcprelay));
}

//! spawnd: the broker alone, for any worker program that speaks its protocol. See spawnd(8).

fn main() {
    std::process::exit(tcprelay::program::main(tcprelay::program::Kind::Spawnd));
}

//! The code for other systems, run against emulations as strict as those systems.

use super::*;
use crate::os::address::Family;
use crate::os::process::{self, Ended, Fork};
use crate::os::socket::{self, Options, Socket};

/// Confines a child with `enter`, lets it do `work`, and returns how it ended.
fn confined(
    enter: fn(&Needs<'_>) -> io::Result<Confinement>,
    needs: &Needs<'_>,
    work: impl FnOnce(),
) -> Ended {
    match process::fork().unwrap() {
        Fork::Child => {
            let status = match enter(needs) {
                Ok(Confinement::Whole) => {
                    work();
                    0
                }
                _ => 1,
            };
            process::exit_now(status)
        }
        Fork::Parent(pid) => process::wait_for(pid).unwrap(),
    }
}

const FINE: Ended = Ended::Status(0);
/// How the emulations end a process that does what its system forbids.
const REFUSED: Ended = Ended::Status(134);

fn make_socket(family: Family) -> Socket {
    Socket::new(family, socket::Kind::Stream, socket::Protocol::Tcp).unwrap()
}

/// What every worker does.
fn relay() {
    drop(make_socket(Family::Ipv4));
    drop(std::fs::File::open("/dev/null").unwrap());
}

fn start_a_program() {
    let _ = process::fork();
}

fn write_a_file() {
    let _ = std::fs::File::create("/dev/null");
}

#[test]
fn freebsd_takes_the_rights_of_the_standard_descriptors() {
    assert_eq!(confined(capsicum::enter, &Needs::default(), relay), FINE);
}

#[test]
fn openbsd_takes_the_promises() {
    let (here, nowhere) = (Path::new("/tmp/socket"), Path::new("/nowhere/socket"));
    let needs = Needs { sockets: &[here, nowhere], ..Needs::default() };
    assert_eq!(confined(pledge::enter, &needs, relay), FINE);
    for work in [start_a_program, write_a_file] {
        assert_eq!(confined(pledge::enter, &needs, work), REFUSED);
    }
}

#[test]
fn openbsd_lets_modules_ask_in_a_routing_domain() {
    let choose_domain = || {
        let _ = make_socket(Family::Ipv4).set_vrf("lo");
    };
    let modules = Needs { modules: true, ..Needs::default() };
    assert_eq!(confined(pledge::enter, &modules, choose_domain), FINE);
    assert_eq!(confined(pledge::enter, &Needs::default(), choose_domain), REFUSED);
}

#[test]
fn illumos_takes_the_privileges() {
    assert_eq!(confined(privileges::enter, &Needs::default(), relay), FINE);
    for work in [start_a_program, write_a_file] {
        assert_eq!(confined(privileges::enter, &Needs::default(), work), REFUSED);
    }
    let path = Path::new("/tmp/socket");
    let needs = Needs { sockets: &[path], ..Needs::default() };
    assert_eq!(confined(privileges::enter, &needs, write_a_file), FINE);
}

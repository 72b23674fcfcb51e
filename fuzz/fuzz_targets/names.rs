//! Arbitrary writes where the monitor publishes the addresses of names. Whatever is there, workers have no
//! more remotes than a name may have, of usable addresses, and nothing panics or loops for ever.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mavis::config::relay::names::{Bound, Kind, Name, Origin, Place, Start};
use mavis::config::relay::{Relay, Remote};
use mavis::os::address::Address;
use mavis::upstream::balance::Tried;
use mavis::upstream::names::{identity, is_usable, MOST};
use mavis::upstream::registry::Registry;
use mavis::upstream::zone::Zone;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Writes a word anywhere after the layout word, the first.
    Scribble(u32, u64),
    /// Writes a word of the first slots of names: its identity, sequence and count, and addresses.
    ScribbleSlot(u8, u8, u64),
    /// The monitor publishes addresses of a name.
    Publish(bool, Vec<(u8, u16, u8)>),
    /// A new monitor starts, for one of the names.
    Keep(bool),
    Select,
    Release(u8),
    Wait(u16),
}

fn place(&(number, weight, tier): &(u8, u16, u8)) -> Place {
    Place { weight: weight.into(), tier: tier % 7, ..Place::new(([192, 0, 2, number], 80).into()) }
}

fuzz_target!(|steps: Vec<Step>| {
    let (_broker, fd) = Zone::create().expect("memory");
    let memory = File::from(fd.as_fd().try_clone_to_owned().expect("a copy"));
    let words = memory.metadata().expect("its size").len() / 8;
    let scribble = |place: u64, value: u64| {
        let place = 1 + place % (words - 1);
        memory.write_all_at(&value.to_ne_bytes(), 8 * place).expect("to write");
    };
    let mut settings = Relay::default();
    for index in 0..2 {
        let mut template = Remote::new(Address::Ip(([0, 0, 0, 0], 80).into()));
        template.host = Some(["a.example", "b.example"][index as usize].into());
        template.origin = Some(Origin { index, earlier: 0 });
        settings.remotes.push(place(&(index as u8 + 1, 0, 0)).remote(&template));
        let (kind, bound, start) = (Kind::Host, Bound::Usual, Start::Now);
        settings.names.push(Name { template, kind, bound, start });
    }
    let names: Vec<u64> = settings.names.iter().map(identity).collect();
    let mut registry = Registry::new(&settings, Vec::new());
    if !registry.join(Zone::join(&fd, 0).expect("a place")) {
        return;
    }
    let monitor = Zone::monitor(&fd).expect("the monitor's place");
    // The slots are the last thing in the zone.
    let slots = words - 256 * 4096;
    let (mut lent, mut now) = (Vec::new(), 0);
    for step in steps {
        match step {
            Step::Scribble(place, value) => scribble(place.into(), value),
            Step::ScribbleSlot(slot, place, value) => {
                let slot = slots + 4096 * u64::from(slot % 3);
                scribble(slot + u64::from(place % 48) - 1, value);
            }
            Step::Publish(name, places) => {
                let places: Vec<Place> = places.iter().map(place).collect();
                monitor.publish(names[usize::from(name)], &places);
            }
            Step::Keep(name) => monitor.keep_names(&names[..1 + usize::from(name)]),
            Step::Select => lent.extend(registry.select(None, None, &mut Tried::default(), now)),
            Step::Release(number) if !lent.is_empty() => {
                registry.release(lent.swap_remove(usize::from(number) % lent.len()));
            }
            Step::Release(_) => {}
            Step::Wait(time) => now += u64::from(time),
        }
        let known = registry.identities();
        assert!(known.len() <= 2 * MOST);
        for (id, _) in known {
            match registry.get(id).expect("a remote").address() {
                Address::Ip(address) => assert!(is_usable(*address)),
                Address::Unix(path) => panic!("{}", path.display()),
            }
        }
        assert!(lent.iter().all(|&id| registry.get(id).is_some()));
    }
    for id in lent {
        registry.release(id);
    }
});

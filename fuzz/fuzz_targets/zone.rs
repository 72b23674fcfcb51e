//! Arbitrary writes into the zone, as another process might make them. Whatever is in it, workers
//! select only remotes that exist, remotes come and go, and nothing panics or loops for ever.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mavis::config::check::Start;
use mavis::upstream::balance::{Balancer, Entry, Tried};
use mavis::upstream::health::Health;
use mavis::upstream::zone::counters::{General, OfListener, OfRemote, Place};
use mavis::upstream::zone::Zone;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Writes a word anywhere after the layout word, the first.
    Scribble(u32, u64),
    /// Writes a word of the header, of the first rows, or of what is announced to the first worker.
    ScribbleNear(u8, u64),
    Add(u8, Option<u8>, u64, u8),
    Remove(u8),
    Change(u8, u8),
    Select(Option<u8>),
    Failed(u8),
    Connected(u8),
    CutShort(u8),
    Release(u8),
    /// The monitor writes any word as a remote's health.
    Health(u8, u64),
    /// The monitor adds up counters.
    Figures(u16),
    /// The broker clears what a worker held, and moves its counters.
    Clear(u8),
    Wait(u16),
}

fuzz_target!(|steps: Vec<Step>| {
    let (broker, fd) = Zone::create().expect("memory");
    let memory = File::from(fd.as_fd().try_clone_to_owned().expect("a copy"));
    let words = memory.metadata().expect("its size").len() / 8;
    let scribble = |place: u64, value: u64| {
        let place = 1 + place % (words - 1);
        memory.write_all_at(&value.to_ne_bytes(), 8 * place).expect("to write");
    };
    let mut balancer = Balancer::new(&[1, 2, 3], 2, 10);
    balancer.set_fail_count(2);
    assert!(balancer.join(Zone::join(&fd, 0).expect("a place")));
    let monitor = Zone::monitor(&fd).expect("the monitor's place");
    let mut identity = 3;
    let mut present = 3_usize;
    let mut lent = Vec::new();
    let mut now = 0;
    for step in steps {
        let which = |number: u8, lent: &[usize]| {
            (!lent.is_empty()).then(|| usize::from(number) % lent.len())
        };
        match step {
            Step::Scribble(place, value) => scribble(place.into(), value),
            Step::ScribbleNear(place, value) => scribble(place.into(), value),
            Step::Add(weight, tag, known, kind) => {
                identity = identity.max(known % 1000) + 1;
                let tags = tag.map(u32::from).into_iter().collect();
                let check = [None, Some(Start::Up), Some(Start::Down)][usize::from(kind % 3)];
                let backup = kind & 4 != 0;
                let tier = kind >> 5;
                let entry = Entry {
                    weight: weight.into(),
                    tags,
                    identity,
                    check,
                    backup,
                    tier,
                    most: (kind >> 3 & 1).into(),
                };
                present += usize::from(balancer.add(&[entry]).is_some());
            }
            Step::Remove(index) => balancer.remove(usize::from(index) % present.max(1)),
            Step::Change(index, weight) => {
                identity += 1;
                let entry = Entry { weight: weight.into(), identity, ..Entry::default() };
                balancer.change(usize::from(index) % present.max(1), &entry);
            }
            Step::Select(tag) => {
                let found = balancer.select(tag.map(u32::from), &mut Tried::default(), now);
                assert!(found.is_none_or(|index| index < present));
                lent.extend(found);
            }
            Step::Failed(number) => {
                if let Some(place) = which(number, &lent) {
                    balancer.failed(lent.swap_remove(place), &mut Tried::default(), now);
                }
            }
            Step::Connected(number) => {
                if let Some(place) = which(number, &lent) {
                    balancer.connected(lent[place]);
                    balancer.proved(lent[place]);
                }
            }
            Step::CutShort(number) => {
                if let Some(place) = which(number, &lent) {
                    balancer.cut_short(lent[place], now);
                }
            }
            Step::Release(number) => {
                if let Some(place) = which(number, &lent) {
                    balancer.released(lent.swap_remove(place));
                }
            }
            Step::Health(row, word) => monitor.set_health(row.into(), Health::decode(word)),
            Step::Figures(row) => {
                let places = [
                    Place::General(General::Accepted),
                    Place::Listener(row.into(), OfListener::Arrived),
                    Place::Remote(row.into(), OfRemote::BytesDown),
                ];
                assert_eq!(monitor.figures(&places).len(), places.len());
            }
            Step::Clear(slot) => broker.clear(slot.into()),
            Step::Wait(time) => now += u64::from(time),
        }
    }
});

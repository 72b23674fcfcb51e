//! What workers, the monitor and a rogue process do to a zone.

use super::*;
use crate::upstream::health::{Health, Standing};
use crate::upstream::wish::{Lasting, Service, Wish};

#[test]
fn rows_are_found_by_what_remotes_are() {
    let (_broker, fd) = Zone::create().expect("memory");
    let [a, b] = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
    assert_eq!(a.take_rows(&[10, 20, 30]), Some(vec![0, 1, 2]));
    assert_eq!(b.take_rows(&[30, 40, 10]), Some(vec![2, 3, 0]));
    assert_eq!(a.take_rows(&[5, 5]), None);
    let many: Vec<u64> = (100..100 + REMOTES as u64).collect();
    assert_eq!(b.take_rows(&many), None);
    assert!(Zone::join(&fd, SLOTS).is_err());
}

#[test]
fn a_row_is_its_remotes_until_nobody_holds_it() {
    let (broker, fd) = Zone::create().expect("memory");
    let [a, b] = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
    assert_eq!(a.take_rows(&[10, 20]), Some(vec![0, 1]));
    assert_eq!(b.take_rows(&[20]), Some(vec![1]));
    a.set_retry_at(0, 500);
    a.set_retry_at(1, 600);
    a.leave_row(0);
    a.leave_row(1);
    // A dead mark stays for the next worker that takes the row,
    assert_eq!(b.take_rows(&[10]), Some(vec![0]));
    assert_eq!(b.state(0).retry_at, 500);
    b.leave_row(0);
    // but another remote starts afresh.
    assert_eq!(a.take_rows(&[30]), Some(vec![0]));
    assert_eq!(a.state(0), State::default());
    assert_eq!(a.take_rows(&[40]), Some(vec![2]));
    broker.clear(1);
    assert_eq!(a.take_rows(&[50]), Some(vec![1]));
    assert_eq!(a.state(1), State::default());
}

#[test]
fn who_dies_while_it_takes_rows_locks_nobody_out() {
    let (broker, fd) = Zone::create().expect("memory");
    let [a, b] = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
    a.words[LOCK].store(1, SeqCst);
    assert_eq!(b.take_rows(&[10]), None);
    broker.clear(1);
    assert_eq!(b.take_rows(&[10]), None);
    broker.clear(0);
    assert_eq!(b.take_rows(&[10]), Some(vec![0]));
}

#[test]
fn one_of_this_process_alone_grows() {
    let mut zone = Zone::own(1);
    assert_eq!(zone.take_rows(&[10]), Some(vec![0]));
    zone.set_used(0, 3);
    assert_eq!(zone.take_rows(&[20]), None);
    zone.make_room(1);
    assert_eq!(zone.take_rows(&[20]), Some(vec![1]));
    assert_eq!((zone.state(0).used, zone.state(1).used), (3, 0));
}

#[test]
fn others_learn_of_a_change_once() {
    let (broker, fd) = Zone::create().expect("memory");
    let [a, b] = [0, SLOTS - 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
    a.take_rows(&(1..=200).collect::<Vec<u64>>()).expect("rows");
    let changes = |zone: &Zone| {
        let mut rows = Vec::new();
        zone.changes(&mut rows);
        rows
    };
    for row in [130, 5, 130] {
        a.set_used(row, 2);
    }
    b.set_retry_at(7, 0);
    assert_eq!(changes(&a), [0; 0]);
    assert_eq!(changes(&b), [5, 130]);
    assert_eq!(changes(&b), [0; 0]);
    b.set_used(5, 1);
    assert_eq!(b.state(5), State { used: 3, ..State::default() });
    broker.clear(0);
    assert_eq!(changes(&b), [5, 130]);
    assert_eq!(b.state(5).used, 1);
    let a = Zone::join(&fd, 0).expect("the place again");
    broker.clear(SLOTS - 1);
    assert_eq!(changes(&a), [5]);
    assert_eq!(a.state(5).used, 0);
}

#[test]
fn what_the_monitor_says_outlives_it() {
    let (broker, fd) = Zone::create().expect("memory");
    let worker = Zone::join(&fd, 0).expect("a place");
    let monitor = Zone::monitor(&fd).expect("the monitor's place");
    assert_eq!(worker.take_rows(&[10, 20]), Some(vec![0, 1]));
    assert_eq!(monitor.take_rows(&[20]), Some(vec![1]));
    let down = Health { standing: Standing::Down, since: 7, ..Health::default() };
    monitor.set_health(1, down);
    let mut rows = Vec::new();
    worker.changes(&mut rows);
    assert_eq!((rows, worker.health(1)), (vec![1], down));
    broker.clear_monitor();
    broker.clear(0);
    // The next image of the broker goes on with it,
    let broker = Zone::adopt(&fd).expect("the same layout");
    assert_eq!(Zone::join(&fd, 1).expect("a place").take_rows(&[20]), Some(vec![1]));
    assert_eq!(Health::decode(broker.state(1).health), down);
    // until the row goes to another remote.
    broker.clear(1);
    let next = Zone::join(&fd, 1).expect("a place");
    assert_eq!(next.take_rows(&[30, 40]), Some(vec![0, 1]));
    assert_eq!(next.health(1), Health::default());
}

#[test]
fn what_operators_wish_outlives_a_reload_unless_it_was_to_pass() {
    let (broker, fd) = Zone::create().expect("memory");
    let worker = Zone::join(&fd, 0).expect("a place");
    let monitor = Zone::monitor(&fd).expect("the monitor's place");
    assert_eq!(worker.take_rows(&[10, 20]), Some(vec![0, 1]));
    let wish = Wish { service: Service::Drained, ..Wish::default() };
    monitor.set_wish(0, wish);
    let passing = Wish { service_lasts: Lasting::UntilReload, weight: Some(3), ..wish };
    monitor.set_wish(1, passing);
    let mut rows = Vec::new();
    worker.changes(&mut rows);
    assert_eq!(rows, [0, 1]);
    broker.clear_monitor();
    let broker = Zone::adopt(&fd).expect("the same layout");
    broker.end_passing_wishes();
    assert_eq!(worker.wish(0), wish);
    assert_eq!(worker.wish(1), Wish { weight: Some(3), ..Wish::default() });
    rows.clear();
    worker.changes(&mut rows);
    assert_eq!(rows, [1]);
}

#[test]
fn of_two_workers_one_may_try() {
    let (_broker, fd) = Zone::create().expect("memory");
    let [a, b] = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
    a.set_retry_at(0, 100);
    assert!(b.put_off(0, 100, 200));
    assert!(!a.put_off(0, 100, 200));
    assert!(a.report_down(0) && !b.report_down(0) && b.is_down(0) && b.report_up(0));
}

#[test]
fn nonsense_is_survived() {
    let (broker, fd) = Zone::create().expect("memory");
    let a = Zone::join(&fd, 0).expect("a place");
    (0..COUNTERS - 1).for_each(|place| broker.scribble(place, u64::MAX));
    let mut rows = Vec::new();
    a.changes(&mut rows);
    assert_eq!(rows.len(), REMOTES);
    let nonsense = State {
        used: u64::MAX,
        retry_at: FOREVER,
        turn: u64::MAX,
        health: u64::MAX,
        wish: u64::MAX,
    };
    assert_eq!(a.state(REMOTES - 1), nonsense);
    assert_eq!(a.take_rows(&[1]), None);
    a.set_used(9, 9);
    assert!(a.count_selection(4));
    broker.clear(5);
    broker.words[LAYOUT].store(1, SeqCst);
    assert!(Zone::join(&fd, 0).is_err());
}

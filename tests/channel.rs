//! The channel between broker and workers when it is full, or when its other end is gone. With the
//! emulations (`TCPRELAY_EVENT_SHIMS`) it behaves like that of the BSDs.

mod common;

use common::*;
use nix::sys::signal::Signal;
use std::time::Duration;

/// On the BSDs a full channel still polls as writable, so waiting for that would be a busy loop.
#[test]
fn a_broker_rests_while_a_channel_is_full() {
    for (mechanism, name) in mechanisms() {
        let (peer, port) = (Peer::echo(), free_port());
        let relay = Launch::simple(port, &peer.remote()).mechanism(mechanism).start();
        let worker = relay.workers()[0];
        ping(&mut connect(port), b"ping");
        kill(worker, Signal::SIGSTOP);
        // More than any channel holds.
        let mut clients: Vec<_> = (0..300).map(|_| connect(port)).collect();
        nothing_happens_for(Duration::from_millis(300));
        let before = cpu_ticks(relay.pid());
        nothing_happens_for(Duration::from_secs(1));
        let used = cpu_ticks(relay.pid()) - before;
        kill(worker, Signal::SIGCONT);
        assert!(used <= 20, "{name}: {used} ticks of a second's 100");
        for client in &mut clients {
            ping(client, b"ping");
        }
    }
}

/// There may be no event when the broker's end closes, and the worker's next message, which would
/// fail, is up to a minute away.
#[test]
fn workers_learn_at_once_that_their_broker_is_dead() {
    for (mechanism, name) in mechanisms() {
        let (peer, port) = (Peer::echo(), free_port());
        let mut relay = Launch::simple(port, &peer.remote()).mechanism(mechanism).start();
        let worker = relay.workers()[0];
        let mut client = connect(port);
        ping(&mut client, b"before");
        relay.signal(Signal::SIGKILL);
        relay.wait();
        ping(&mut client, b"after");
        drop(client);
        wait_for(&format!("the worker to end ({name})"), || is_gone(worker).then_some(()));
    }
}

//! A broker that C code has built from our parts (`mavis/spawnd_headers.h`).
//!
//! There is a second broker because the C interface requires it. C code keeps the listeners, the
//! workers and all counters in variables and arrays of its own, may change any of them between two
//! calls, and calls each part when it likes, from a loop of its own. So unlike
//! [`Broker`](super::life::Broker) this one keeps nothing between calls, and asks for the state
//! each time ([`Host`]). Decisions and log lines are the same in both: they come from [`Policy`],
//! the access list, the channel's [`BrokerSide`] and [`text`].

use super::connection::Connection;
use super::policy::{Choice, Limits, Policy, WorkerId};
use super::sticky::Key;
use super::{open_listener, receive_datagram, text};
use crate::channel::broker_side::{Act, BrokerSide};
use crate::channel::protocol::{Accept, BadMessage, FromWorker};
use crate::config::broker::Overload;
use crate::config::listen;
use crate::os::address::{Address, ScopedIp};
use crate::os::process::exit;
use crate::os::signals::{Arrived, Signal};
use crate::os::socket::{Blocking, Keepalive, Listener, Options};
use crate::os::{self, log};

/// The state of the C program's broker, as it is now.
pub trait Host {
    /// The configured bounds.
    fn limits(&self) -> Limits;
    /// How many connections there are.
    fn users(&self) -> usize;
    /// True while the limit of connections is reached.
    fn is_full(&self) -> bool;
    /// True if the access list permits the client.
    fn permits(&self, client: ScopedIp) -> bool;
    /// The workers that take connections, in the order of their start, and how many each has.
    fn workers(&self) -> Vec<(WorkerId, usize)>;
    /// Starts a worker, unless there are as many as there may be.
    fn start_worker(&mut self);
    /// The worker that a client had before.
    fn last(&mut self, client: &Key) -> Option<WorkerId>;
    /// Remembers the worker of a client.
    fn remember(&mut self, client: Key, worker: WorkerId);
    /// Gives the connection to the worker in this process; returns it if there is none.
    fn give_here(&mut self, connection: Connection) -> Option<Connection>;
    /// Sends a connection to a worker, and counts it if that succeeds.
    fn give(&mut self, worker: WorkerId, connection: &Connection) -> Given;
    /// Connections of a worker have ended.
    fn ended(&mut self, worker: WorkerId, count: usize);
    /// Lowers the most connections of each worker. False if it was that low already.
    fn cap(&mut self, most: usize) -> bool;
    /// Closes a worker's channel and forgets the worker.
    fn drop_worker(&mut self, worker: WorkerId);
    /// The same, and ends its process.
    fn kill_worker(&mut self, worker: WorkerId);
    /// Asks all workers to leave.
    fn dismiss(&mut self);
    /// Executes the program again. Returns only if that fails, with the reason.
    fn restart(&mut self) -> String;
    /// What happens to new connections while the limit is reached.
    fn overload(&self) -> Overload;
    /// The same, as the host words it.
    fn doing(&self) -> String;
    /// True while the listeners do not accept because of the limit.
    fn is_stopped(&self) -> bool;
    /// Makes all listeners do this.
    fn listen(&mut self, how: Listening);
    /// Shows in the process title that connections are accepted.
    fn show_accepting(&mut self);
    /// Shows in the process title that the limit is reached.
    fn show_full(&mut self);
}

/// The settings of a listener.
#[derive(Debug)]
pub struct Purpose {
    /// It receives datagrams.
    pub datagrams: bool,
    /// Set on each connection.
    pub keepalive: Keepalive,
    /// The traffic class that is set on each connection; 0 for none.
    pub class: u8,
    /// What workers are told about its connections.
    pub accept: Accept,
    /// The port by which clients are remembered, besides their address.
    pub port: u16,
    /// The protocol by which clients are remembered, besides their address.
    pub protocol: i32,
}

/// What happened to a connection that was sent to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The worker has it.
    Taken,
    /// The worker's channel is full; the worker itself may be well.
    Busy,
    /// The worker is gone.
    Gone,
}

/// What listeners do with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// They accept.
    Open,
    /// They accept, and close at once, with the backlog for overload.
    Refusing,
    /// Connections wait in the backlog for overload.
    Paused,
    /// They are closed.
    Closed,
}

/// Opens the socket of a listener; `again` if it was open before. `failed` tells whether a failure
/// has been logged: that is done once.
pub fn open(
    config: listen::Listener,
    address: &Address,
    again: bool,
    failed: &mut bool,
) -> Option<Listener> {
    let delay = config.retry_delay;
    match open_listener(config, address.clone()) {
        Ok(socket) => {
            opened(address, again);
            Some(socket)
        }
        Err((call, error)) => {
            if !std::mem::replace(failed, true) {
                log::message(&format!("{call}: {}", os::reason(&error)));
                log::message(&text::not_bound(address, delay));
            }
            None
        }
    }
}

/// Logs that a listener is open.
pub fn opened(address: &Address, again: bool) {
    match again {
        false => log::message(&text::bound(address)),
        // Limited, as clients can cause it by reaching the limit of connections.
        true => log::braked(log::Kind::Listener, || text::bound(address)),
    }
}

/// Exits: no listener could be opened.
pub fn nothing_bound() -> ! {
    log::message(&format!("{} Exiting.", text::NOTHING_BOUND));
    std::process::exit(exit::TEMPORARY)
}

/// A listener is ready: accepts a connection or datagram, and gives it to a worker.
pub fn accept(host: &mut impl Host, listener: &Listener, purpose: &Purpose) {
    let taken = match purpose.datagrams {
        true => receive_datagram(listener),
        false => listener.accept(Blocking::Yes).map(|socket| Some((socket, None))),
    };
    let (socket, datagram) = match taken {
        Ok(Some(taken)) => taken,
        Ok(None) => return,
        Err(error) if os::would_block(&error) => return,
        Err(error) => {
            return log::braked(log::Kind::Accept, || format!("accept: {}", os::reason(&error)))
        }
    };
    let connection =
        Connection { socket, listener: None, accept: purpose.accept, datagram, seat: None };
    let client = connection.client();
    if !admits(host, client) {
        return;
    }
    if !purpose.datagrams {
        // UNIX sockets have none of these options.
        let _ = connection.socket.set_keepalive();
        let _ = connection.socket.set_keepalive_parameters(purpose.keepalive);
        if purpose.class != 0 {
            let _ = connection.socket.set_traffic_class(purpose.class);
        }
    }
    if let Some(connection) = host.give_here(connection) {
        let Purpose { port, protocol, .. } = *purpose;
        hand_over(host, &connection, client.map(|address| Key { address, port, protocol }));
    }
    follow_limit(host);
}

/// True if a connection of this client may be served.
fn admits(host: &impl Host, client: Option<ScopedIp>) -> bool {
    if host.is_full() {
        return false;
    }
    // A client without an IP address is local, and permitted.
    let Some(client) = client.filter(|&client| !host.permits(client)) else {
        return true;
    };
    log::braked(log::Kind::Denied, || text::rejected(client));
    false
}

/// Gives a connection to the worker that [`Policy`] chooses.
fn hand_over(host: &mut impl Host, connection: &Connection, client: Option<Key>) {
    let last = client.as_ref().and_then(|client| host.last(client));
    let mut busy = Vec::new();
    let mut may_start = true;
    // Each turn returns, or excludes or starts a worker.
    for _ in 0..2 * (host.limits().instances_max + 1) {
        let workers = host.workers();
        let count = workers.len();
        let mut policy = Policy::with(host.limits(), workers);
        busy.iter().for_each(|&id| policy.set_blocked(id, true));
        let chosen = match policy.choose(last) {
            Choice::Start if may_start => {
                host.start_worker();
                // A worker that cannot be started must not keep the others from serving.
                may_start = host.workers().len() > count;
                continue;
            }
            Choice::Start => policy.fallback(),
            choice => choice,
        };
        let Choice::Worker(id) = chosen else {
            break;
        };
        match host.give(id, connection) {
            Given::Taken => {
                if let Some(client) = client {
                    host.remember(client, id);
                }
                return;
            }
            Given::Busy => busy.push(id),
            Given::Gone => host.drop_worker(id),
        }
    }
    log::braked(log::Kind::Accept, || "no worker takes the connection".to_owned());
}

/// A worker has sent a message. `has` is how many connections it has.
pub fn hear(
    host: &mut impl Host,
    worker: WorkerId,
    side: &mut BrokerSide,
    message: Result<FromWorker, BadMessage>,
    (has, now): (usize, u64),
) {
    let message = match message {
        // Not answered: only our own broker has the secrets to answer with.
        Ok(FromWorker::Hello(_) | FromWorker::Left(_)) => {
            Ok(FromWorker::Unknown(FromWorker::HELLO))
        }
        other => other,
    };
    match side.hear(message, has, now) {
        // Nobody is sent callers.
        Act::Nothing | Act::Answer | Act::Left | Act::Errand(_) => {}
        Act::Ended(count) => {
            host.ended(worker, count);
            resume(host);
            host.show_accepting();
        }
        Act::Limit(most) => {
            if most > 0 && host.cap(most) {
                log::braked(log::Kind::Channel, || text::limited(most));
                host.show_accepting();
            }
        }
        Act::Leaves => host.drop_worker(worker),
        Act::CannotStart => {
            log::message(text::BAD_CONFIGURATION);
            std::process::exit(exit::CONFIGURATION);
        }
        Act::Remark(text) => log::braked(log::Kind::Channel, || text),
        Act::Offence(offence) => {
            log::braked(log::Kind::Worker, || {
                text::killed(worker.0, &format!("has sent {offence}"))
            });
            host.kill_worker(worker);
        }
    }
}

/// A connection was given: stops accepting if the limit is reached now.
fn follow_limit(host: &mut impl Host) {
    if !host.is_full() {
        return host.show_accepting();
    }
    let (users, doing) = (host.users(), host.doing());
    log::braked(log::Kind::Limit, || text::full(users, &doing));
    host.show_full();
    host.listen(match host.overload() {
        Overload::Queue => Listening::Paused,
        Overload::Close => Listening::Refusing,
        Overload::Reset => Listening::Closed,
    });
}

/// Connections have ended: accepts again, if the limit had stopped that.
pub fn resume(host: &mut impl Host) {
    if host.is_stopped() && !host.is_full() {
        log::braked(log::Kind::Limit, || text::RESUMING.to_owned());
        host.listen(Listening::Open);
    }
}

/// Signals have arrived. A socket that was `inherited` cannot be opened again, so a restart means
/// the end.
pub fn signal(host: &mut impl Host, arrived: &Arrived, inherited: bool) {
    let restart = arrived.has(Signal::SIGHUP);
    let end = arrived.has(Signal::SIGTERM) || arrived.has(Signal::SIGINT);
    if end || (restart && inherited) {
        host.dismiss();
        log::message(text::EXITING);
        std::process::exit(0);
    }
    if restart {
        host.dismiss();
        log::message(text::RESTARTING);
        log::message(&host.restart());
        std::process::exit(exit::OS_ERROR);
    }
    if arrived.has(Signal::SIGUSR1) {
        for (worker, _) in host.workers() {
            host.drop_worker(worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::protocol::Abilities;
    use crate::os::Socket;
    use std::os::fd::OwnedFd;

    /// Workers by their number of connections; some are busy or gone.
    #[derive(Default)]
    struct Scene {
        users: Vec<usize>,
        busy: Vec<u32>,
        gone: Vec<u32>,
        cannot_start: bool,
        last: Option<WorkerId>,
        full: bool,
        denies: bool,
        listening: Option<Listening>,
    }

    impl Host for Scene {
        fn users(&self) -> usize {
            self.users.iter().sum()
        }
        fn is_full(&self) -> bool {
            self.full
        }
        fn permits(&self, _: ScopedIp) -> bool {
            !self.denies
        }
        fn give_here(&mut self, connection: Connection) -> Option<Connection> {
            Some(connection)
        }
        fn ended(&mut self, worker: WorkerId, count: usize) {
            self.users[worker.0 as usize] -= count;
        }
        fn cap(&mut self, _: usize) -> bool {
            true
        }
        fn dismiss(&mut self) {}
        fn restart(&mut self) -> String {
            String::new()
        }
        fn overload(&self) -> Overload {
            Overload::Close
        }
        fn doing(&self) -> String {
            text::doing(Overload::Close).to_owned()
        }
        fn is_stopped(&self) -> bool {
            self.listening.is_some_and(|how| how != Listening::Open)
        }
        fn listen(&mut self, how: Listening) {
            self.listening = Some(how);
        }
        fn show_accepting(&mut self) {}
        fn show_full(&mut self) {}
        fn limits(&self) -> Limits {
            Limits { instances_min: 1, instances_max: 3, users_min: 1, users_max: 2 }
        }
        fn workers(&self) -> Vec<(WorkerId, usize)> {
            let all =
                self.users.iter().enumerate().map(|(at, &users)| (WorkerId(at as u32), users));
            all.filter(|(id, _)| !self.gone.contains(&(id.0 + 100))).collect()
        }
        fn start_worker(&mut self) {
            if !self.cannot_start && self.users.len() < 3 {
                self.users.push(0);
            }
        }
        fn last(&mut self, _: &Key) -> Option<WorkerId> {
            self.last
        }
        fn remember(&mut self, _: Key, worker: WorkerId) {
            self.last = Some(worker);
        }
        fn give(&mut self, worker: WorkerId, _: &Connection) -> Given {
            if self.busy.contains(&worker.0) {
                return Given::Busy;
            }
            if self.gone.contains(&worker.0) {
                return Given::Gone;
            }
            self.users[worker.0 as usize] += 1;
            Given::Taken
        }
        fn drop_worker(&mut self, worker: WorkerId) {
            self.gone.push(worker.0 + 100);
        }
        fn kill_worker(&mut self, worker: WorkerId) {
            self.drop_worker(worker);
        }
    }

    fn client() -> Option<Key> {
        let address = "192.0.2.1".parse::<std::net::IpAddr>().unwrap().into();
        Some(Key { address, port: 1, protocol: 6 })
    }

    fn give(scene: &mut Scene, client: Option<Key>) {
        let socket = Socket::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let accept = Accept::default();
        let connection = Connection { socket, listener: None, accept, datagram: None, seat: None };
        hand_over(scene, &connection, client);
    }

    #[test]
    fn connections_go_where_the_policy_says() {
        let mut scene = Scene::default();
        (0..4).for_each(|_| give(&mut scene, None));
        assert_eq!(scene.users, [2, 1, 1]);
        scene.last = Some(WorkerId(2));
        give(&mut scene, client());
        assert_eq!(scene.users, [2, 1, 2]);
        (0..3).for_each(|_| give(&mut scene, None));
        assert_eq!(scene.users, [2, 2, 2]);
    }

    #[test]
    fn workers_that_take_nothing_are_passed_over() {
        let mut scene = Scene { busy: vec![0], gone: vec![1], ..Scene::default() };
        give(&mut scene, client());
        assert_eq!((scene.users, scene.last), (vec![0, 0, 1], Some(WorkerId(2))));
        let mut scene = Scene { users: vec![1], cannot_start: true, ..Scene::default() };
        give(&mut scene, None);
        assert_eq!(scene.users, [2]);
        let mut scene = Scene { cannot_start: true, ..Scene::default() };
        give(&mut scene, None);
        assert!(scene.users.is_empty());
    }

    #[test]
    fn who_may_come_in() {
        let client = Some(ScopedIp::from("192.0.2.1".parse::<std::net::IpAddr>().unwrap()));
        let scene = |full, denies| Scene { full, denies, ..Scene::default() };
        assert!(admits(&scene(false, true), None) && admits(&scene(false, false), client));
        assert!(!admits(&scene(false, true), client) && !admits(&scene(true, false), client));
    }

    #[test]
    fn listeners_follow_the_limit() {
        let mut scene = Scene { full: true, ..Scene::default() };
        follow_limit(&mut scene);
        assert_eq!(scene.listening, Some(Listening::Refusing));
        resume(&mut scene);
        assert!(scene.is_stopped());
        scene.full = false;
        resume(&mut scene);
        assert!(!scene.is_stopped());
    }

    #[test]
    fn workers_are_heard_as_those_of_our_broker() {
        let mut scene = Scene { users: vec![2], ..Scene::default() };
        let mut side = BrokerSide::new(crate::channel::Peer::Foreign);
        let mut say = |scene: &mut Scene, message| {
            let has = scene.users[0];
            hear(scene, WorkerId(0), &mut side, Ok(message), (has, 0));
        };
        // HELLO is not answered, and changes nothing.
        say(&mut scene, FromWorker::Hello(Abilities::ALL));
        say(&mut scene, FromWorker::Done(3));
        assert_eq!((&*scene.users, &*scene.gone), (&[0][..], &[][..]));
        // It serves, so BAD_CFG no longer ends the broker, only the worker.
        say(&mut scene, FromWorker::BadConfiguration);
        assert_eq!(scene.gone, [100]);
    }
}

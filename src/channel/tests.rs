//! Both sides of a channel together: in whatever order they run, nothing is lost, said twice or
//! said out of place. The channel itself loses nothing and keeps the order, as a socket pair does.

use super::broker_side::{Act, BrokerSide, Stage};
use super::protocol::{secrets_length, secrets_message, Abilities, Accept, FromBroker, FromWorker};
use super::worker_side::{Exit, Order, WorkerSide, ANSWER_PATIENCE};
use super::Peer;
use proptest::prelude::*;
use std::collections::VecDeque;

/// The number of a connection, in place of its descriptor.
type Connection = u32;
/// Stands for the descriptor of the zone.
const ZONE: Connection = u32::MAX;

/// Which programs are at the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pair {
    /// Our broker and our worker.
    Ours,
    /// Our broker and our worker, which `exec` names: the broker recognises it by its HELLO.
    Named,
    /// Our broker, and a worker that knows no HELLO and need not say MAX.
    ForeignWorker,
    /// A broker that sends connections at once and does not answer HELLO, and our worker.
    ForeignBroker,
    /// The same, but our worker knows: its environment does not say that the broker is ours.
    KnownForeignBroker,
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The broker has this many connections for the worker.
    Give(u8),
    /// The broker reads a message.
    Hear,
    /// The broker asks the worker to leave.
    Dismiss,
    /// The worker goes on with its start, or reads a message.
    Work,
    /// The worker sends what is due.
    Say,
    /// A session ends.
    End,
    /// The worker wants to leave.
    Leave,
    /// The keep-alive timer of the worker expires.
    KeepAlive,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..4).prop_map(Step::Give),
        4 => Just(Step::Hear),
        1 => Just(Step::Dismiss),
        6 => Just(Step::Work),
        4 => Just(Step::Say),
        3 => Just(Step::End),
        1 => Just(Step::Leave),
        1 => Just(Step::KeepAlive),
    ]
}

fn pair() -> impl Strategy<Value = Pair> {
    use Pair::*;
    prop_oneof![
        Just(Ours),
        Just(Named),
        Just(ForeignWorker),
        Just(ForeignBroker),
        Just(KnownForeignBroker)
    ]
}

/// How far the worker process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    /// It is reading its configuration.
    Reads,
    /// It is waiting for the answer to HELLO.
    Asks,
    /// It has the answer, and is starting.
    Comes,
    /// It serves.
    Serves,
    /// It has ended.
    Ended,
}

struct World {
    pair: Pair,
    now: u64,
    broker: BrokerSide,
    worker: WorkerSide<Connection>,
    process: Process,
    /// Messages on their way, and whether the worker has closed the channel for the broker.
    down: VecDeque<(Vec<u8>, VecDeque<Connection>)>,
    up: VecDeque<FromWorker>,
    closed: bool,
    /// Connections: the next one, those that other workers got, those that were served, open
    /// sessions.
    next: Connection,
    elsewhere: Vec<Connection>,
    served: Vec<Connection>,
    sessions: usize,
    /// How many connections the broker has counted.
    has: usize,
    told: usize,
    secrets: Vec<u8>,
}

impl World {
    fn new(pair: Pair, can_close: bool) -> World {
        let peer = if pair == Pair::Ours { Peer::Ours } else { Peer::Foreign };
        let broker = match pair {
            Pair::KnownForeignBroker | Pair::ForeignWorker => Peer::Foreign,
            _ => Peer::Ours,
        };
        World {
            pair,
            now: 0,
            broker: BrokerSide::new(peer),
            worker: WorkerSide::new(broker, can_close),
            process: Process::Reads,
            down: VecDeque::new(),
            up: VecDeque::new(),
            closed: false,
            next: 0,
            elsewhere: Vec::new(),
            served: Vec::new(),
            sessions: 0,
            has: 0,
            told: 0,
            secrets: (0..4000).map(|byte| byte as u8).collect(),
        }
    }

    fn broker_is_ours(&self) -> bool {
        !matches!(self.pair, Pair::ForeignBroker | Pair::KnownForeignBroker)
    }

    fn send(&mut self, message: &[u8], connections: VecDeque<Connection>) -> bool {
        let open = !self.closed && self.process != Process::Ended;
        if open {
            self.down.push_back((message.to_vec(), connections));
        }
        open
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Give(count) => self.give(count.into()),
            Step::Hear => self.hear(),
            Step::Dismiss => self.dismiss(),
            Step::Work => self.work(),
            Step::Say => self.say(),
            Step::End if self.sessions > 0 => {
                self.sessions -= 1;
                self.worker.ended(1);
            }
            Step::Leave if self.process == Process::Serves => {
                let stays = !self.worker.is_leaving();
                assert_eq!(self.worker.leave(self.now), stays);
            }
            Step::KeepAlive => self.worker.keep_alive(),
            Step::End | Step::Leave => {}
        }
    }

    fn give(&mut self, count: u32) {
        // Our own workers say when they are ready; other programs' workers may never.
        let waits = self.pair == Pair::Ours && self.broker.stage() != Stage::Ready;
        if self.broker.is_leaving() || waits {
            return;
        }
        let accept = Accept { protocol: 6, ..Accept::default() };
        let numbers: VecDeque<_> = (self.next..self.next + count).collect();
        self.next += count;
        if self.broker.takes_connections() {
            let message = accept.encode_connections(numbers.len());
            match self.send(&message, numbers.clone()) {
                true => self.has += numbers.len(),
                false => self.elsewhere.extend(numbers),
            }
            return;
        }
        for number in numbers {
            match self.send(&accept.encode(), VecDeque::from([number])) {
                true => self.has += 1,
                false => self.elsewhere.push(number),
            }
        }
    }

    fn hear(&mut self) {
        let Some(message) = self.up.pop_front() else {
            return;
        };
        let before = self.broker.stage();
        match self.broker.hear(Ok(message), self.has, self.now) {
            Act::Answer if self.broker_is_ours() => {
                self.told += 1;
                self.send(&FromBroker::zone(7), VecDeque::from([ZONE]));
                let mut sent = 0;
                while sent < self.secrets.len() {
                    let part = secrets_message(&self.secrets, sent);
                    sent += secrets_length(&part);
                    self.send(&part, VecDeque::new());
                }
            }
            Act::Answer => {}
            Act::Ended(count) => self.has -= count,
            Act::Leaves if self.broker_is_ours() => {
                self.send(&FromBroker::may_die(), VecDeque::new());
            }
            Act::Limit(_) => assert!(matches!(before, Stage::Starting | Stage::Told)),
            Act::Nothing | Act::Leaves => {}
            act => panic!("{act:?} about {message:?} of an honest worker"),
        }
    }

    fn dismiss(&mut self) {
        if !self.broker.is_leaving() {
            self.broker.dismissed();
            self.send(&FromBroker::may_die(), VecDeque::new());
        }
    }

    fn work(&mut self) {
        match self.process {
            Process::Reads => {
                self.process = match self.worker.ask(self.now) {
                    Some(hello) => {
                        self.up.push_back(hello);
                        Process::Asks
                    }
                    None => Process::Comes,
                };
            }
            Process::Asks if self.down.is_empty() && !self.broker_is_ours() => {
                self.now = self.worker.answer_due().expect("a deadline");
                self.worker.unanswered();
                self.process = Process::Comes;
            }
            Process::Asks | Process::Serves => self.read(),
            Process::Comes => {
                let early = self.worker.ready(100);
                self.process = Process::Serves;
                for (message, mut connections) in early {
                    let order = self.worker.take(message);
                    self.obey(order, &mut connections);
                }
            }
            Process::Ended => {}
        }
    }

    fn read(&mut self) {
        match self.down.pop_front() {
            Some((message, mut connections)) => {
                let order = self.worker.hear(&message, &mut connections, self.now);
                self.obey(order, &mut connections);
            }
            None if self.sessions == 0 && self.process == Process::Serves => self.try_to_end(),
            None => {}
        }
    }

    fn obey(&mut self, order: Order<Connection>, connections: &mut VecDeque<Connection>) {
        match order {
            Order::Serve { count, .. } => {
                assert!(self.process == Process::Serves && connections.len() == count);
                self.sessions += count;
                self.served.extend(connections.drain(..));
            }
            Order::Told(answer) => {
                assert_eq!(*answer.secrets, *self.secrets);
                assert_eq!(answer.zone, Some((ZONE, 7)));
                assert_eq!(self.process, Process::Asks);
                self.process = Process::Comes;
            }
            Order::Unneeded => self.end(),
            Order::Nothing | Order::Drain => {}
            order => panic!("{order:?} of an honest broker"),
        }
    }

    fn try_to_end(&mut self) {
        let unread = self.up.len();
        match self.worker.exit(|| unread, self.now) {
            Exit::Stay => {}
            Exit::Close => {
                self.closed = true;
                self.worker.closed();
            }
            Exit::Now if self.worker.due().is_some() => self.say(),
            Exit::Now => self.end(),
        }
    }

    /// The worker process ends: no connection may be left behind.
    fn end(&mut self) {
        let mut left = self.down.iter().flat_map(|(_, connections)| connections);
        assert!(left.all(|&connection| connection == ZONE), "connections are left in the channel");
        assert_eq!(self.worker.waiting(), 0);
        self.process = Process::Ended;
    }

    fn say(&mut self) {
        if !matches!(self.process, Process::Serves) {
            return;
        }
        if let Some(message) = self.worker.due() {
            self.worker.said(message);
            self.up.push_back(message);
        }
    }

    /// Both sides go on until nothing is left to do.
    fn finish(&mut self) {
        for round in 0..10_000 {
            if round == 50 {
                self.dismiss();
            }
            for step in [Step::Work, Step::Say, Step::End, Step::Hear] {
                self.step(step);
            }
            self.now += 10;
            if self.process == Process::Ended && self.up.is_empty() {
                return;
            }
        }
        panic!("it does not end: {:?} {:?}", self.process, self.worker);
    }

    fn check(&mut self) {
        let mut all: Vec<_> = self.served.iter().chain(&self.elsewhere).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..self.next).collect::<Vec<_>>(), "each connection once");
        assert_eq!(self.has, 0, "the broker's count");
        assert!(self.told <= 1, "keys are told once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whichever programs are at the ends: each connection is served once, here or by another
    /// worker, the counts agree in the end, and no honest worker is killed.
    #[test]
    fn nothing_is_lost_between_the_sides(
        pair in pair(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(pair, true);
        for step in steps {
            world.now += 1;
            world.step(step);
        }
        world.finish();
        world.check();
    }

    /// The same where a channel cannot be closed for the broker: our own broker answers DYING.
    #[test]
    fn a_farewell_is_answered_where_channels_cannot_be_closed(
        named: bool,
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let pair = if named { Pair::Named } else { Pair::Ours };
        let mut world = World::new(pair, false);
        for step in steps {
            world.now += 1;
            world.step(step);
        }
        world.finish();
        world.check();
    }

    /// Whatever a broker sends, in whatever order: the worker serves every connection once, takes
    /// one answer to HELLO, and says everything in its order.
    #[test]
    fn a_worker_bears_any_broker(
        known: bool,
        messages in prop::collection::vec((0u8..9, prop::collection::vec(any::<u8>(), 0..60)), 0..60),
        ready_at in 0usize..60,
        leaves_at in prop::option::of(0usize..60),
    ) {
        let peer = if known { Peer::Ours } else { Peer::Foreign };
        let mut worker = WorkerSide::<Connection>::new(peer, true);
        let asked = worker.ask(0).is_some();
        prop_assert_eq!(asked, known);
        let (mut given, mut served, mut told, mut ready) = (0usize, 0usize, 0, false);
        let mut count = |order: Order<Connection>, sockets: &VecDeque<Connection>| match order {
            Order::Serve { .. } => served += sockets.len(),
            Order::Told(_) => told += 1,
            _ => {}
        };
        for (index, (kind, noise)) in messages.into_iter().enumerate() {
            if index == ready_at {
                for (message, sockets) in worker.ready(9) {
                    let order = worker.take(message);
                    count(order, &sockets);
                }
                ready = true;
            }
            if ready && leaves_at == Some(index) {
                worker.leave(0);
            }
            let accept = Accept::default();
            let (message, sockets) = match kind {
                0 | 1 => (accept.encode().to_vec(), 1),
                2 => (accept.encode_connections(3).to_vec(), 3),
                3 => (FromBroker::may_die().to_vec(), 0),
                4 => (FromBroker::zone(1).to_vec(), 1),
                5 => (secrets_message(b"key", 0), 0),
                6 => (FromBroker::probe().to_vec(), 0),
                _ => (noise, 0),
            };
            let noise = kind > 6 && matches!(
                FromBroker::decode(&message),
                Ok(FromBroker::Accept(_) | FromBroker::Connections(..) | FromBroker::Datagram)
            );
            // While it is starting, it reads nothing.
            if noise || !ready && worker.answer_due().is_none() {
                continue;
            }
            let sockets: VecDeque<Connection> = (0..sockets).collect();
            given += if kind < 3 { sockets.len() } else { 0 };
            let mut left = sockets.clone();
            let order = worker.hear(&message, &mut left, 0);
            if matches!(order, Order::Unneeded) {
                return Ok(());
            }
            count(order, &left);
        }
        prop_assert_eq!(served + worker.waiting(), given);
        prop_assert!(told <= 1);
        let mut order = Vec::new();
        while let Some(message) = worker.due() {
            worker.said(message);
            order.push(message);
        }
        let max = order.iter().position(|message| matches!(message, FromWorker::Max(_)));
        prop_assert!(max.is_none_or(|at| at == 0));
        let dying = order.iter().position(|message| matches!(message, FromWorker::Dying));
        prop_assert!(dying.is_none_or(|at| at + 1 == order.len()));
    }
}

#[test]
fn a_broker_that_does_not_answer_is_another_program() {
    let mut worker = WorkerSide::<Connection>::new(Peer::Ours, true);
    assert_eq!(worker.ask(5), Some(FromWorker::Hello(Abilities::ALL)));
    assert_eq!(worker.answer_due(), Some(5 + ANSWER_PATIENCE));
    // Each part of the answer extends the deadline.
    let part = secrets_message(&[0; 2000], 0);
    assert!(matches!(worker.hear(&part, &mut VecDeque::new(), 100), Order::Nothing));
    assert_eq!(worker.answer_due(), Some(100 + ANSWER_PATIENCE));
    let mut connection = VecDeque::from([1]);
    let accept = Accept::default().encode();
    assert!(matches!(worker.hear(&accept, &mut connection, 100), Order::Nothing));
    worker.unanswered();
    assert_eq!((worker.peer(), worker.waiting()), (Peer::Foreign, 1));
    assert_eq!(worker.cannot_start(), Some(FromWorker::BadConfiguration));
    assert_eq!(worker.ready(3).len(), 1);
    assert_eq!(worker.cannot_start(), None);
}

#[test]
fn what_the_channel_does_not_take_is_said_later_and_in_order() {
    let mut worker = WorkerSide::<Connection>::new(Peer::Foreign, true);
    assert_eq!(worker.ask(0), None);
    worker.ready(3);
    worker.ended(2);
    worker.leave(0);
    // It was not sent, so it is still due.
    assert_eq!(worker.due(), Some(FromWorker::Max(3)));
    worker.said(FromWorker::Max(3));
    worker.ended(1);
    assert_eq!(worker.due(), Some(FromWorker::Done(3)));
    worker.said(FromWorker::Done(3));
    assert_eq!(worker.due(), Some(FromWorker::Dying));
    worker.said(FromWorker::Dying);
    assert_eq!(worker.due(), None);
}

#[test]
fn a_broker_that_is_gone_ends_a_worker_that_is_idle() {
    let mut worker = WorkerSide::<Connection>::new(Peer::Foreign, true);
    worker.ask(0);
    worker.ready(3);
    worker.ended(1);
    assert!(matches!(worker.lost(), Order::Drain));
    assert!(matches!(worker.lost(), Order::Nothing));
    assert!(worker.is_leaving() && worker.is_cut() && worker.due().is_none());
    assert_eq!(worker.exit(|| 1, 0), Exit::Close);
}

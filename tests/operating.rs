//! Everything that is there for operators switched on at once, under load, and a monitor that dies
//! every second.

mod common;

use common::dns::{ask, ip, open, Backends, Dns};
use common::launch::{monitor, serving};
use common::load::Load;
use common::metrics::{check_growth, figures, sum, Figures};
use common::*;
use nix::sys::signal::Signal;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How many clients come in a second.
const RATE: u32 = 300;
const PORT: u16 = 8000;
const STATUS: u16 = 9404;

/// Reads the metrics all the time: nothing may run backwards, whoever answers.
struct Scraper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Scraper {
    fn start() -> Scraper {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let (mut before, mut answers) = (Figures::new(), 0);
            while !stopped.load(SeqCst) {
                if let Some(now) = figures(STATUS) {
                    check_growth(&before, &now);
                    before.extend(now);
                    answers += 1;
                }
                pace(Duration::from_millis(100));
            }
            answers
        });
        Scraper { stop, thread }
    }

    /// How many answers there were.
    fn end(self) -> usize {
        self.stop.store(true, SeqCst);
        self.thread.join().expect("counters that only grow")
    }
}

/// Runs tcprelayctl, which must succeed.
fn control(socket: &Path, arguments: &[&str]) -> String {
    let mut command = ours(env!("CARGO_BIN_EXE_tcprelayctl"));
    text(&run(command.arg("-s").arg(socket).args(arguments)))
}

/// Kills so many monitors. Returns how many sessions there were in a second; `None` if the machine
/// lacks what this needs.
fn monitors_die(count: u32) -> Option<f64> {
    let dns = Dns::start()?;
    let directory = Directory::new();
    let socket = directory.file("control");
    let mut backends = Backends::new();
    backends.set(&(1..=5).collect());
    // Of three addresses one leaves in each turn, and another one joins.
    let tell = |turn: u32| {
        dns.set([0, 1, 2].map(|step| ("db.test", ip(((turn + step) % 4) as u8 + 1))));
    };
    tell(0);
    let check = r#"check = send check send = "?" check expect = "." check interval = 1"#;
    let remotes = [("db.test", "moving"), ("127.0.1.5", "fixed")].map(|(address, tag)| {
        format!("remote = {{ address = {address} port = 7000 tag = {tag} {check} }}\n")
    });
    let broker =
        format!("status = {{ port = {STATUS} }} control = {{ path = {} }}", socket.display());
    let section = format!("balance = round-robin {}", remotes.concat());
    let relay = relay(&section).port(PORT).workers(2).broker(&broker).start().0;
    let workers = serving(&relay);
    let first = wait_for("the metrics", || figures(STATUS));
    assert_eq!(sum(&first, "tcprelay_connections_accepted_total"), 0.0);
    let scraper = Scraper::start();
    let mut long: Vec<_> = (0..10).map(|_| open(PORT).expect("a session")).collect();
    let (begun, mut drained) = (Instant::now(), 0);
    let load = Load::start(RATE, || open(PORT).map(|(_, number)| number.into()));
    for turn in 1..=count {
        let pid = wait_for("a monitor", || monitor(&relay));
        tell(turn);
        assert!(control(&socket, &["show"]).contains("[127.0.1.5]:7000"));
        for (stream, number) in &mut long {
            assert_eq!(ask(stream), Ok(*number));
        }
        // What an operator has decided does not depend on who has heard it.
        match turn {
            2 => {
                assert_eq!(control(&socket, &["drain", "fixed"]), "[127.0.1.5]:7000 drains\n");
                load.wait_for(3, 5);
                load.wait_for(4, 5);
            }
            // The last one that began before has been told by now.
            3 => drained = load.served_by(5),
            5 => {
                assert_eq!(load.served_by(5), drained);
                control(&socket, &["enable", "fixed"]);
            }
            _ => {}
        }
        pace((begun + Duration::from_secs(turn.into())).saturating_duration_since(Instant::now()));
        kill(pid, Signal::SIGKILL);
        wait_for("its end", || is_gone(pid).then_some(()));
    }
    load.wait_for(5, 10);
    let seen = load.end();
    let rate = seen.sessions() as f64 / begun.elapsed().as_secs_f64();
    // Nothing has failed, nothing was lost, and nobody else has died.
    let sessions = seen.without_errors() + long.len();
    wait_for("figures that agree", || {
        let now = figures(STATUS)?;
        (sum(&now, "tcprelay_connections_accepted_total") == sessions as f64).then_some(())
    });
    wait_for("open sessions that agree", || {
        let now = figures(STATUS)?;
        (sum(&now, "tcprelay_open_sessions") == long.len() as f64).then_some(())
    });
    let last = wait_for("the metrics", || figures(STATUS));
    assert_eq!(sum(&last, "tcprelay_connections_refused_total"), 0.0);
    assert_eq!(sum(&last, "tcprelay_workers_died_total"), 0.0);
    assert_eq!(sum(&last, "tcprelay_monitors_started_total"), f64::from(count + 1));
    assert!(scraper.end() > 0);
    for (stream, number) in &mut long {
        assert_eq!(ask(stream), Ok(*number));
    }
    assert_eq!(serving(&relay), workers);
    let log = relay.log();
    assert!(!log.contains(" is down") && !log.contains("connect to"), "{log}");
    Some(rate)
}

#[test]
fn monitors_that_die_disturb_nothing() {
    monitors_die(6);
}

#[test]
#[ignore = "needs a machine that can serve so many clients"]
fn a_minute_of_monitors_that_die() {
    if let Some(rate) = monitors_die(60) {
        eprintln!("{rate:.0} sessions a second");
        assert!(rate > 0.9 * f64::from(RATE), "{rate}");
    }
}

/// Workers or a broker of another program take no part in any of this, and the log says what has no
/// effect.
#[test]
fn what_another_program_cannot_do_is_said() {
    let directory = Directory::new();
    let socket = directory.file("control");
    let relay = Launch::new(format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {} }}\n\
         status = {{ port = {} }} control = {{ path = {} }}\n\
         spawn {{ exec = /bin/cat }} }}\n",
        free_port(),
        free_port(),
        socket.display()
    ))
    .program(SPAWND)
    .ready(None)
    .start();
    relay.expect_log(":2: 'status' has no effect: workers of another program report nothing");
    relay.expect_log("control: only workers of this program can be controlled");
    assert!(!socket.exists());
    // A broker without a monitor, as the C program's is.
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::new(format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }}\n\
         spawn {{ exec = @BIN@ instances min = 1 instances max = 1 users max = 100 }} }}\n\
         id = tcprelay {{ remote = {{ address = localhost port = {} check = tcp \
         check start = down resolve = 5 }} }}\n",
        peer.port
    ))
    .program(SPAWND)
    .start();
    relay.expect_log(
        "remotes are not checked, and names not looked up again: the broker has no monitor",
    );
    ping(&mut connect(port), b"served");
    assert_eq!(monitor(&relay), None);
}

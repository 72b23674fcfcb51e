//! Reads the table, runs the cases in a thread pool, and reports the verdict.

use crate::{config, support, syslog};
use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How many cases run at the same time.
const THREADS: usize = 8;

/// How long one case may take. Cases that wait for the minute of a keep-alive are started first.
const DEADLINE: Duration = Duration::from_secs(120);

/// The id and the function of a case that is not data.
pub(crate) type Entry = (&'static str, fn());

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) area: &'static str,
    pub(crate) setup: &'static str,
    pub(crate) expected: &'static str,
}

/// Cases that are never run, each with the reason.
const DEVIATIONS: &[(&str, &str)] = &[
    ("C248", "a byte order mark is skipped"),
    ("C066", "tcp bufsize may stand in listen, where spawnd's document has it"),
    ("C318", "--help is a question: it is answered on standard output, with exit 0"),
    ("C145", "remotes may be host names: the name is resolved"),
    ("C020", NO_CERTIFICATE),
    ("C023", NO_CERTIFICATE),
    ("C024", NO_CERTIFICATE),
    ("C029", NO_CERTIFICATE),
    ("C030", NO_CERTIFICATE),
];
const NO_CERTIFICATE: &str =
    "a TLS listener without a certificate is refused by -P as well (relay contract, section 7)";

/// Cases that take about a minute, so they are started first.
const SLOW: &[&str] = &["P008", "P009", "P010", "S017"];

/// Cases that need a system without a syslog socket, so they run before it is made.
const WITHOUT_SYSLOG: &[&str] = &["B032"];

enum Verdict {
    Passed,
    Failed(String),
    Excluded(String),
}

struct Excluded(String);

/// Leaves out the case that is running.
pub(crate) fn exclude(why: &str) -> ! {
    panic::panic_any(Excluded(why.to_owned()))
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn table() -> Vec<Case> {
    let text = include_str!("../conformance.tsv");
    let rows = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.map(|line| {
        let fields: Vec<&'static str> = line.split('\t').collect();
        let [id, area, setup, expected, _] = fields[..] else {
            panic!("five columns expected: {line:?}");
        };
        Case { id, area, setup, expected }
    })
    .collect()
}

fn runner(id: &str) -> Option<fn()> {
    let modules: [&[Entry]; 16] = [
        crate::cli::CASES,
        crate::crash::CASES,
        crate::distribution::CASES,
        crate::failover::CASES,
        crate::listeners::CASES,
        crate::logging::CASES,
        crate::overload::CASES,
        crate::protocol::CASES,
        crate::relay::CASES,
        crate::signals::CASES,
        crate::source::CASES,
        crate::start::CASES,
        crate::timeouts::CASES,
        crate::titles::CASES,
        crate::tls::CASES,
        config::CASES,
    ];
    modules.iter().flat_map(|cases| cases.iter()).find(|(name, _)| *name == id).map(|(_, f)| *f)
}

/// The function that runs a case, if it has one.
fn job(case: &Case) -> Option<Box<dyn FnOnce() + Send>> {
    if let Some(function) = runner(case.id) {
        return Some(Box::new(function));
    }
    let case = case.clone();
    config::is_data(&case).then(|| Box::new(move || config::run(&case)) as Box<_>)
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Runs a case in a thread of its own, until the deadline at most.
fn run(case: &Case) -> Verdict {
    if let Some((_, why)) = DEVIATIONS.iter().find(|(id, _)| *id == case.id) {
        return Verdict::Excluded((*why).into());
    }
    let Some(job) = job(case) else {
        return Verdict::Failed("there is neither a runner nor a reason to leave it out".into());
    };
    let (sender, receiver) = mpsc::channel();
    let thread = thread::Builder::new().name(format!("case {}", case.id)).spawn(move || {
        let result = panic::catch_unwind(panic::AssertUnwindSafe(job));
        let verdict = match result {
            Ok(()) => Verdict::Passed,
            Err(payload) => match payload.downcast::<Excluded>() {
                Ok(why) => Verdict::Excluded(why.0),
                Err(payload) => {
                    let told = PANIC.with(|place| place.borrow_mut().take());
                    Verdict::Failed(told.unwrap_or_else(|| message(&*payload)))
                }
            },
        };
        let _ = sender.send(verdict);
    });
    thread.expect("a thread");
    match receiver.recv_timeout(DEADLINE) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => Verdict::Failed(format!("not done after {DEADLINE:?}")),
        Err(RecvTimeoutError::Disconnected) => Verdict::Failed("the thread is gone".into()),
    }
}

/// Joins a message's lines and cuts it to length: it may contain a relay's whole log.
fn one_line(text: &str) -> String {
    let line = text.lines().collect::<Vec<_>>().join(" | ");
    match line.char_indices().nth(1500) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

fn run_all(cases: Vec<Case>, threads: usize, done: &Mutex<Vec<(Case, Verdict)>>) {
    let queue = Mutex::new(VecDeque::from(cases));
    let take = || queue.lock().expect("the queue").pop_front();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = take() {
                    let begin = Instant::now();
                    let verdict = run(&case);
                    if let Verdict::Failed(why) = &verdict {
                        println!("FAILED {}: {}", case.id, one_line(why));
                    }
                    if std::env::var_os("TCPRELAY_CONFORMANCE_TIMES").is_some() {
                        println!("{} took {:?}", case.id, begin.elapsed());
                    }
                    done.lock().expect("the verdicts").push((case, verdict));
                }
            });
        }
    });
}

/// True if `cargo test` was asked to run other tests, or to list them.
fn not_wanted() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("conformance: test");
        return true;
    }
    let mut names = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    names.peek().is_some() && !names.any(|name| "conformance".contains(name.as_str()))
}

pub(crate) fn main() -> ExitCode {
    if not_wanted() {
        return ExitCode::SUCCESS;
    }
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let text = format!("{place}: {}", message(info.payload()));
        PANIC.with(|told| *told.borrow_mut() = Some(text));
    }));
    support::adopt_orphans();
    let filter = std::env::var("TCPRELAY_CONFORMANCE").unwrap_or_default();
    let words: Vec<&str> = filter.split(',').filter(|word| !word.is_empty()).collect();
    let mut cases: Vec<Case> = table()
        .into_iter()
        .filter(|case| words.is_empty() || words.iter().any(|word| case.id.starts_with(word)))
        .collect();
    cases.sort_by_key(|case| !SLOW.contains(&case.id));
    let (first, rest): (Vec<Case>, Vec<Case>) =
        cases.into_iter().partition(|case| WITHOUT_SYSLOG.contains(&case.id));
    let done = Mutex::new(Vec::new());
    run_all(first, 1, &done);
    syslog::start();
    run_all(rest, THREADS, &done);
    syslog::stop();
    support::kill_descendants();
    report(done.into_inner().expect("the verdicts"))
}

fn report(mut done: Vec<(Case, Verdict)>) -> ExitCode {
    done.sort_by_key(|(case, _)| case.id);
    let count = |wanted: fn(&Verdict) -> bool| done.iter().filter(|(_, v)| wanted(v)).count();
    let passed = count(|verdict| matches!(verdict, Verdict::Passed));
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    let excluded = count(|verdict| matches!(verdict, Verdict::Excluded(_)));
    println!("conformance: {passed} passed, {failed} failed, {excluded} excluded");
    for (case, verdict) in &done {
        if let Verdict::Excluded(why) = verdict {
            println!("excluded {}: {why}", case.id);
        }
    }
    for (case, verdict) in &done {
        if let Verdict::Failed(_) = verdict {
            println!("failed {}", case.id);
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

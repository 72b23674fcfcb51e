//! Questions to a chain that may be answered later: tracks who asked, and collects the answers.
//!
//! A module calls back when it has an answer (`answered`), which must be fetched at once. That can
//! happen wherever C code runs, so the answer waits here until its owner takes it
//! ([`Queries::next_answer`]).

use super::attributes::{self, value, Attributes};
use super::chain::{self, Query, Verdict};
use super::passes;
use crate::event::Loop;
use crate::os::malloc::Owned;
use crate::os::module::{self, Chain, Head};
use crate::os::{common_data, log};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::c_void;

/// How many forgotten questions may be unanswered, in addition to twice the number that somebody
/// still waits for. Beyond that, new questions are refused: the backend is busy with the forgotten
/// ones.
const MOST_FORGOTTEN: usize = 1000;
/// Milliseconds after which a forgotten question that has had no answer is given up as lost.
const LOST: u64 = 600_000;

/// The outcome of a question that was answered later.
#[derive(Debug)]
pub struct Answer {
    /// The owner of the question.
    pub owner: u32,
    /// The result of the question.
    pub verdict: Verdict,
    /// The answer, if there is one.
    pub answer: Query,
}

/// The state of the questions, by number. To modules, the number is the question's name.
#[derive(Default)]
struct State {
    head: Option<Head>,
    /// Questions that have no answer yet.
    asked: HashSet<usize>,
    /// Answers that have been fetched from modules.
    answers: VecDeque<(usize, Verdict, Query)>,
    strange_call_seen: bool,
}

thread_local! {
    /// A process has one chain to ask.
    static STATE: RefCell<State> = RefCell::default();
}

/// Called by a module, at any time, when it has the answer to the question called `name`. Its type
/// is that of the callback of av_new (mavis(3)).
extern "C" fn answered(name: *mut c_void) {
    let number = name as usize;
    let head = STATE.with_borrow(|state| state.head.filter(|_| state.asked.contains(&number)));
    let Some(head) = head else {
        // Do not fetch an answer twice: it would make modules follow null pointers.
        let seen =
            STATE.with_borrow_mut(|state| std::mem::replace(&mut state.strange_call_seen, true));
        if !seen {
            log::braked(log::Kind::Module, || {
                "mavis: a module has answered twice, or a question that was not asked".to_owned()
            });
        }
        return;
    };
    let mut answer: Query = None;
    // The module runs during this call, and may call back here with another answer.
    let verdict = chain::receive(Some(head), &mut answer, name);
    if verdict != Verdict::DEFERRED {
        STATE.with_borrow_mut(|state| {
            if state.asked.remove(&number) {
                state.answers.push_back((number, verdict, answer));
            }
        });
    }
}

/// The questions of one process to its chain.
pub struct Queries {
    chain: Chain,
    /// All modules of the chain can cancel a question.
    cancels: bool,
    next: usize,
    /// Who waits for the answer to a question, and the reverse.
    owners: HashMap<usize, u32>,
    by_owner: HashMap<u32, usize>,
    /// Forgotten questions, with the time when each was forgotten.
    forgotten: VecDeque<(u64, usize)>,
    prefix: String,
}

impl Queries {
    /// Starts the modules of `chain`; `None` if one of them fails to start. `cancels`: all of them
    /// can cancel a question.
    pub fn start(mut chain: Chain, cancels: bool, events: &mut Loop) -> Option<Queries> {
        common_data::refresh_clock();
        if events.lend(|| chain.start()) != 0 {
            return None;
        }
        STATE.with_borrow_mut(|state| state.head = chain.head());
        let (pid, now) = (crate::os::process::id(), crate::os::wall_clock());
        Some(Queries {
            chain,
            cancels,
            next: 1,
            owners: HashMap::new(),
            by_owner: HashMap::new(),
            forgotten: VecDeque::new(),
            prefix: format!("tcprelay-{pid}-{now}-"),
        })
    }

    /// Asks a question for `owner`, who may have only one at a time. Returns the answer, or `None`
    /// if it comes later.
    pub fn ask(
        &mut self,
        events: &mut Loop,
        mut question: Attributes,
        owner: u32,
    ) -> Option<(Verdict, Query)> {
        if self.is_overrun(events.now()) {
            return Some((Verdict::IGNORE, None));
        }
        let number = self.next;
        self.next += 1;
        let name = module::opaque(number);
        // Makes the question unique: modules treat two with the same contents as one.
        question.set(attributes::TIMESTAMP, format!("{}{number}", self.prefix).as_bytes());
        let callback: extern "C" fn(*mut c_void) = answered;
        question.callback = callback as *mut c_void;
        question.context = name;
        STATE.with_borrow_mut(|state| state.asked.insert(number));
        let mut query = Some(Owned::new(question));
        let head = self.chain.head();
        common_data::refresh_clock();
        let verdict = events.lend(|| chain::send(head, &mut query));
        if verdict == Verdict::DEFERRED {
            self.owners.insert(number, owner);
            self.by_owner.insert(owner, number);
            return None;
        }
        // It has been answered: a later callback for it is ignored.
        STATE.with_borrow_mut(|state| state.asked.remove(&number));
        Some((verdict, query))
    }

    /// True if too many forgotten questions are unanswered.
    fn is_overrun(&mut self, now: u64) -> bool {
        let most = MOST_FORGOTTEN + 2 * self.by_owner.len();
        while let Some(&(since, number)) = self.forgotten.front() {
            let answered = !STATE.with_borrow(|state| state.asked.contains(&number));
            if !answered && now.saturating_sub(since) < LOST {
                break;
            }
            STATE.with_borrow_mut(|state| state.asked.remove(&number));
            passes::end(module::opaque(number));
            self.forgotten.pop_front();
        }
        if self.forgotten.len() > most {
            // Answers come in any order: there may be answered questions behind the first.
            STATE.with_borrow(|state| self.forgotten.retain(|(_, n)| state.asked.contains(n)));
        }
        self.forgotten.len() > most
    }

    /// Forgets the question of `owner`. When its answer comes, it is fetched all the same, as the
    /// module expects, and dropped.
    pub fn forget(&mut self, events: &mut Loop, owner: u32) {
        let Some(number) = self.by_owner.remove(&owner) else {
            return;
        };
        self.owners.remove(&number);
        let on_its_way = STATE.with_borrow(|state| state.asked.contains(&number));
        if !on_its_way {
            return;
        }
        self.forgotten.push_back((events.now(), number));
        if let (true, Some(head)) = (self.cancels, self.chain.head()) {
            events.lend(|| chain::cancel(head, module::opaque(number)));
        }
    }

    /// The next answer that an owner still waits for.
    pub fn next_answer(&mut self) -> Option<Answer> {
        loop {
            let (number, verdict, answer) =
                STATE.with_borrow_mut(|state| state.answers.pop_front())?;
            if let Some(owner) = self.owners.remove(&number) {
                self.by_owner.remove(&owner);
                return Some(Answer { owner, verdict, answer });
            }
        }
    }

    /// Shuts the modules down.
    pub fn end(self, events: &mut Loop) {
        STATE.with_borrow_mut(|state| *state = State::default());
        events.lend(|| self.chain.end());
    }
}

/// The question whether a client may connect.
#[derive(Clone, Debug, Default)]
pub struct Host<'a> {
    /// The client's address.
    pub client: String,
    /// The address it has connected to.
    pub server: String,
    /// `realm` of the listener.
    pub realm: &'a [u8],
    /// The subject of its certificate, and other data about it.
    pub certificate: Option<(&'a str, &'a str)>,
}

impl Host<'_> {
    /// The question as attributes, in the form of the `HOST` look-ups that backends of the TACACS+
    /// family understand.
    pub fn question(&self) -> Attributes {
        let mut question = Attributes::default();
        question.set(attributes::TYPE, value::TACPLUS);
        question.set(attributes::TACTYPE, value::HOST);
        question.set(attributes::USER, self.client.as_bytes());
        question.set(attributes::IPADDR, self.client.as_bytes());
        question.set(attributes::SERVERIP, self.server.as_bytes());
        if !self.realm.is_empty() {
            question.set(attributes::REALM, self.realm);
        }
        if let Some((subject, data)) = self.certificate {
            question.set(attributes::CERTSUBJ, subject.as_bytes());
            question.set(attributes::CERTDATA, data.as_bytes());
        }
        question
    }
}

/// The modules' decision about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may connect, to remotes with this tag if there is one.
    Admit(Option<String>),
    /// It may not, for this reason if there is one.
    Deny(Option<String>),
    /// No module could decide, for this reason.
    Unknown(String),
}

impl Decision {
    /// Derives the decision from an answer.
    pub fn of(verdict: Verdict, answer: &Query) -> Decision {
        let text = |attribute| answer.as_ref()?.text(attribute).map(|text| text.lossy());
        let unknown = |what: &str| {
            Decision::Unknown(match text(attributes::COMMENT) {
                Some(comment) => format!("{what} ({comment})"),
                None => what.to_owned(),
            })
        };
        match verdict {
            Verdict::FINAL => {}
            Verdict::TIMEOUT => return unknown("the module gave up waiting"),
            Verdict::IGNORE => return unknown("the question was dropped"),
            Verdict(code) => return unknown(&format!("unknown result {code}")),
        }
        match text(attributes::RESULT).as_deref().map(str::as_bytes) {
            Some(value::ACK) => {
                Decision::Admit(text(attributes::CUSTOM_0).filter(|t| !t.is_empty()))
            }
            Some(value::NAK | value::NFD) => Decision::Deny(text(attributes::COMMENT)),
            Some(value::ERR) => unknown("error"),
            Some(_) => unknown("unknown RESULT"),
            None => unknown("no RESULT"),
        }
    }
}

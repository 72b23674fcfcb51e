//! Queries to a chain of modules.

use super::attributes::{self, value, Attributes};
use super::passes;
use crate::os::log;
use crate::os::malloc::Owned;
use crate::os::module::Head;
use std::ffi::c_void;

/// The version of the interface between library and modules.
pub const API_VERSION: &str = "6";
/// The digest of the token table: modules have token numbers compiled in.
pub const TOKEN_VERSION: &str = "a4cf21de3aea318d7fe186cb4b1e49a0";

/// A query on its way: the modules may hold it, change it, or replace it.
pub type Query = Option<Owned<Attributes>>;

/// What becomes of a query (MAVIS_FINAL and on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Verdict(pub i32);

impl Verdict {
    /// The answer is there.
    pub const FINAL: Verdict = Verdict(0);
    /// The answer comes later, through the callback.
    pub const DEFERRED: Verdict = Verdict(1);
    /// There will be no answer.
    pub const IGNORE: Verdict = Verdict(2);
    /// The module gave up waiting.
    pub const TIMEOUT: Verdict = Verdict(3);
    /// The answer is there, and its scripts have run.
    pub const FINAL_DEFERRED: Verdict = Verdict(4);
}

/// Compares what a caller was compiled with against this library; each difference is said once per
/// call, and false given.
pub fn check_version(api: &str, token: &str) -> bool {
    let complain = |what: &str, theirs: &str, ours: &str| {
        let text = format!("Warning: MAVIS {what} mismatch ({theirs} vs. {ours}). Expect trouble.");
        log::message(&text);
        log::stderr(&text);
        false
    };
    if api != API_VERSION {
        return complain("library API version", api, API_VERSION);
    }
    token == TOKEN_VERSION || complain("token hash", token, TOKEN_VERSION)
}

/// True if modules can do something with a query.
fn is_valid(query: &Attributes) -> bool {
    let set = |attributes: &[usize]| attributes.iter().all(|&a| query.get(a).is_some());
    match query.get(attributes::TYPE) {
        Some(value::FTP) => set(&[attributes::USER, attributes::PASSWORD, attributes::IPADDR]),
        Some(value::TACPLUS) => set(&[attributes::USER, attributes::TACTYPE]),
        Some(value::LOGSTATS) => true,
        _ => false,
    }
}

/// Submits a query. With [`Verdict::DEFERRED`] it is the chain's, and `query` empty.
pub fn send(head: Option<Head>, query: &mut Query) -> Verdict {
    let (Some(head), Some(attributes)) = (head, query.as_mut()) else {
        return Verdict::IGNORE;
    };
    if !is_valid(attributes) {
        attributes.set(attributes::RESULT, value::ERR);
        attributes.set(attributes::COMMENT, b"invalid request");
        return Verdict::IGNORE;
    }
    let again = attributes.get(attributes::CURRENT_MODULE).is_some();
    if again && !passes::may_pass(attributes.context) {
        attributes.unset(attributes::CURRENT_MODULE);
        attributes.set(attributes::RESULT, value::ERR);
        attributes.set(attributes::COMMENT, b"the chain passes the query on without end");
        return Verdict::FINAL;
    }
    let name = attributes.context;
    if !again {
        passes::begin(name);
    }
    attributes.add_serial();
    if attributes.is(attributes::TYPE, value::LOGSTATS) {
        attributes.set(attributes::RESULT, value::ACK);
    }
    let verdict = Verdict(head.send(query));
    if let (Verdict::FINAL, Some(answer)) = (verdict, query.as_mut()) {
        if answer.get(attributes::RESULT).is_none() {
            answer.set(attributes::RESULT, value::NFD);
        }
    }
    if !again && verdict != Verdict::DEFERRED {
        passes::end(name);
    }
    verdict
}

/// Fetches the answer to the query that its owner calls `name`; to be called from its callback.
pub fn receive(head: Option<Head>, answer: &mut Query, name: *mut c_void) -> Verdict {
    let Some(head) = head else {
        return Verdict::IGNORE;
    };
    let verdict = match Verdict(head.receive(answer, name)) {
        Verdict::FINAL_DEFERRED => Verdict::FINAL,
        verdict => verdict,
    };
    if verdict != Verdict::DEFERRED {
        passes::end(name);
    }
    verdict
}

/// Forgets the query that its owner calls `name`; what the modules say about it.
pub fn cancel(head: Head, name: *mut c_void) -> i32 {
    passes::end(name);
    head.cancel(name)
}

//! Sending queries down a chain of modules.

use super::attributes::{self, value, Attributes};
use super::passes;
use crate::os::log;
use crate::os::malloc::Owned;
use crate::os::module::Head;
use std::ffi::c_void;

/// The version of the interface between library and modules.
pub const API_VERSION: &str = "6";
/// The digest of the token table, because modules have token numbers compiled in.
pub const TOKEN_VERSION: &str = "a4cf21de3aea318d7fe186cb4b1e49a0";

/// A query in progress: modules may keep it, change it, or replace it.
pub type Query = Option<Owned<Attributes>>;

/// The result of sending a query (MAVIS_FINAL and so on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Verdict(pub i32);

impl Verdict {
    /// There is an answer.
    pub const FINAL: Verdict = Verdict(0);
    /// The answer will come later; the callback says when.
    pub const DEFERRED: Verdict = Verdict(1);
    /// There will be no answer.
    pub const IGNORE: Verdict = Verdict(2);
    /// The module gave up waiting.
    pub const TIMEOUT: Verdict = Verdict(3);
    /// There is an answer, and its scripts have run.
    pub const FINAL_DEFERRED: Verdict = Verdict(4);
}

/// Compares the versions that a caller was compiled with against this library's. Reports the first
/// difference to the log and to standard error, and returns false.
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

/// True if the query has the attributes that modules need for its type.
fn is_valid(query: &Attributes) -> bool {
    let set = |attributes: &[usize]| attributes.iter().all(|&a| query.get(a).is_some());
    match query.get(attributes::TYPE) {
        Some(value::FTP) => set(&[attributes::USER, attributes::PASSWORD, attributes::IPADDR]),
        Some(value::TACPLUS) => set(&[attributes::USER, attributes::TACTYPE]),
        Some(value::LOGSTATS) => true,
        _ => false,
    }
}

/// Submits a query. After [`Verdict::DEFERRED`], the chain has the query, and `query` is empty.
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

/// Fetches the answer to the query called `name`; for use in the query's callback.
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

/// Tells the modules to forget the query called `name`; returns their result.
pub fn cancel(head: Head, name: *mut c_void) -> i32 {
    passes::end(name);
    head.cancel(name)
}

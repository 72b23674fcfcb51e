//! What the readers of one configuration share: aliases, the texts of its files, and where
//! including files go on.
//!
//! A reader's own state is [`Sym`](super::Sym) alone, which C modules copy to look ahead. What it
//! refers to is kept here until the configuration is done with, so that a copy stays good.

use super::effect::Effect;
use super::rules::DEBUG_PARSE;
use super::source::Source;
use super::system::{Nowhere, Overlay, System};
use super::token::Code;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::{c_char, c_void, OsStr, OsString};
use std::ptr;
use std::rc::Rc;

/// Tells a worker that reads its configuration from shared memory what `$CONFDIR` is.
pub const DIRECTORY_VARIABLE: &str = "TCPRELAY_CONFDIR";

/// A token of an alias.
#[derive(Clone, Debug)]
pub(super) struct AliasToken {
    pub(super) code: Code,
    pub(super) text: Vec<u8>,
    pub(super) quoted: bool,
}

/// The tokens an alias stands for.
pub(super) type AliasTokens = Rc<[AliasToken]>;

/// A place in an alias that is being read from.
#[derive(Clone, Debug)]
pub(super) struct Expansion {
    pub(super) name: Rc<[u8]>,
    pub(super) tokens: AliasTokens,
    pub(super) next: usize,
    /// The alias in which this one was found.
    pub(super) outer: Handle,
}

/// Where an including file goes on.
#[derive(Clone)]
pub(super) struct Suspended {
    /// The text, or a copy of it if it is C code's.
    pub(super) source: Rc<Source>,
    /// Where the text is, and its name, for C readers.
    pub(super) input: *const u8,
    pub(super) filename: *const c_char,
    pub(super) start: usize,
    pub(super) tlen: i32,
    pub(super) ch: [u8; 4],
    pub(super) chlen: u8,
    pub(super) line: u32,
    pub(super) outer: Handle,
    /// How many includes lead to that file.
    pub(super) depth: usize,
}

/// Names an entry of a table below, in a pointer field of [`Sym`](super::Sym): null for none. It
/// is no address and never followed.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle(*mut c_void);

impl Handle {
    pub(super) const NONE: Handle = Handle(ptr::null_mut());

    fn of(index: usize) -> Handle {
        Handle(ptr::without_provenance_mut(index + 1))
    }

    fn index(self) -> Option<usize> {
        (self.0 as usize).checked_sub(1)
    }

    /// What C code has put there is a pointer of its own, which no table is long enough for.
    pub(super) fn address(self) -> Option<*mut c_void> {
        const LONGEST_TABLE: usize = 1 << 24;
        (self.0 as usize > LONGEST_TABLE).then_some(self.0)
    }
}

/// What the readers of one configuration share.
#[derive(Default)]
pub struct Environment {
    /// Who answers what only the system knows.
    system: Option<Rc<dyn System>>,
    /// What `setenv` has said.
    pub(super) overlay: Overlay,
    /// What was read so far does besides giving settings, as far as it is not applied.
    pub(super) effects: Vec<Effect>,
    /// The debug mask.
    pub(super) debug: u32,
    pub(super) case: Case,
    /// What is said once.
    pub(super) said: HashSet<&'static str>,
    sources: Vec<Rc<Source>>,
    suspended: Vec<Suspended>,
    expansions: Vec<Expansion>,
    pub(super) aliases: HashMap<Rc<[u8]>, AliasTokens>,
    /// An alias that stands for nothing was used.
    pub(super) used_empty_alias: bool,
    /// What `$CONFDIR/` stands for.
    pub(super) directory: String,
}

/// An environment as its readers hold it.
pub type Shared = Rc<RefCell<Environment>>;

thread_local! {
    /// The environment of the configuration that is being read, or was read last: that of readers
    /// which C code has made.
    static CURRENT: RefCell<Shared> = RefCell::default();
}

impl Environment {
    /// For the configuration called `name`.
    pub(super) fn new(name: &str, system: Rc<dyn System>, debug: u32) -> Environment {
        let directory = directory(name, &*system);
        Environment { directory, debug, system: Some(system), ..Environment::default() }
    }

    /// Who answers what only the system knows.
    pub(super) fn system(&self) -> Rc<dyn System> {
        self.system.clone().unwrap_or_else(|| Rc::new(Nowhere))
    }

    /// Before C code reads on: who answers if nobody does yet, and what C code may have changed, the
    /// debug mask and for which blocks case matters.
    pub fn resume(&mut self, system: &Rc<dyn System>, debug: u32, case: u64) {
        self.system.get_or_insert_with(|| Rc::clone(system));
        (self.debug, self.case) = (debug, Case(case));
    }

    /// For which blocks case matters.
    pub fn case(&self) -> u64 {
        self.case.0
    }

    /// Notes a token, if they are wanted.
    pub(super) fn trace(&mut self, text: impl FnOnce() -> String) {
        if self.debug & DEBUG_PARSE != 0 {
            self.effects.push(Effect::Trace(text()));
        }
    }

    /// The environment variable as the text sees it.
    pub(super) fn variable(&self, name: &OsStr) -> Option<OsString> {
        self.overlay.get(name, &*self.system())
    }

    /// That of readers which C code has made.
    pub fn current() -> Shared {
        CURRENT.with(|current| Rc::clone(&current.borrow()))
    }

    /// Makes `environment` the current one.
    pub fn enter(environment: &Shared) {
        CURRENT.with(|current| *current.borrow_mut() = Rc::clone(environment));
    }

    pub(super) fn add_source(&mut self, source: Rc<Source>) {
        self.sources.push(source);
    }

    /// The source whose text begins at `input`.
    pub(super) fn source_at(&self, input: *const u8) -> Option<Rc<Source>> {
        self.sources.iter().rev().find(|source| source.text.as_ptr() == input).map(Rc::clone)
    }

    pub(super) fn suspend(&mut self, place: Suspended) -> Handle {
        self.suspended.push(place);
        Handle::of(self.suspended.len() - 1)
    }

    pub(super) fn suspended(&self, handle: Handle) -> Option<&Suspended> {
        self.suspended.get(handle.index()?)
    }

    /// `None` if aliases stand for more than any configuration needs.
    pub(super) fn expand(&mut self, expansion: Expansion) -> Option<Handle> {
        const MOST: usize = 1 << 20;
        if self.expansions.len() >= MOST {
            return None;
        }
        self.expansions.push(expansion);
        Some(Handle::of(self.expansions.len() - 1))
    }

    /// Another reader begins. Of those before it, in a program that makes many, none is in the
    /// middle of an alias any more.
    pub(super) fn begin(&mut self) {
        const MANY: usize = 1 << 16;
        if self.expansions.len() > MANY {
            self.expansions = Vec::new();
        }
        if self.suspended.len() > MANY {
            self.suspended = Vec::new();
        }
    }

    pub(super) fn expansion(&self, handle: Handle) -> Option<&Expansion> {
        self.expansions.get(handle.index()?)
    }

    /// Defines an alias that stands for nothing so far.
    pub fn add_alias(&mut self, name: &[u8]) {
        self.aliases.insert(name.into(), Rc::new([]));
    }

    pub(super) fn add_token_to_alias(&mut self, name: &[u8], token: AliasToken) {
        let before = self.aliases.get(name).map_or(&[][..], |tokens| tokens);
        let tokens = before.iter().cloned().chain([token]).collect();
        self.aliases.insert(name.into(), tokens);
    }
}

/// The folder of a configuration, with a slash at the end.
pub fn directory(name: &str, system: &dyn System) -> String {
    match name.rfind('/') {
        // A copy in shared memory stands for a file elsewhere.
        _ if name.starts_with("ipc://") => {
            let told = system.variable(OsStr::new(DIRECTORY_VARIABLE));
            told.and_then(|told| told.into_string().ok()).unwrap_or_else(|| "./".to_owned())
        }
        Some(slash) => name[..=slash].to_owned(),
        None => "./".to_owned(),
    }
}

/// Whether regular expressions ignore case: a bit for each open brace, innermost lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Case(pub(super) u64);

impl Case {
    /// An opening brace: what is inside starts with what holds outside.
    pub(super) fn open(&mut self) {
        self.0 = self.0 << 1 | self.0 & 1;
    }

    /// A closing brace: what held outside holds again. The outermost level is never lost.
    pub(super) fn close(&mut self) {
        self.0 = self.0 >> 1 | self.0 & 1 << 63;
    }

    /// `regex-match-case = BOOL`
    pub(super) fn matters(&mut self, yes: bool) {
        self.0 = self.0 & !1 | u64::from(!yes);
    }

    /// Case is ignored in the innermost block.
    pub(super) fn is_ignored(self) -> bool {
        self.0 & 1 != 0
    }
}

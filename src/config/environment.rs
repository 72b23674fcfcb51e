//! State shared by the readers of one configuration: aliases, the texts of its files, and where to
//! resume in the files that include others.
//!
//! A reader's own state is just a [`Sym`](super::Sym), which C modules copy to look ahead. The data
//! it refers to is kept here until reading has ended, so that copies stay valid.

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

/// Tells a worker that reads its configuration from shared memory the value of `$CONFDIR`.
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

/// A position in an alias whose tokens are being read.
#[derive(Clone, Debug)]
pub(super) struct Expansion {
    pub(super) name: Rc<[u8]>,
    pub(super) tokens: AliasTokens,
    pub(super) next: usize,
    /// The alias in which this one was found.
    pub(super) outer: Handle,
}

/// Where to resume in a file that includes another.
#[derive(Clone)]
pub(super) struct Suspended {
    /// The text, or a copy if C code owns it.
    pub(super) source: Rc<Source>,
    /// Address and name of the text, for C readers.
    pub(super) input: *const u8,
    pub(super) filename: *const c_char,
    pub(super) start: usize,
    pub(super) tlen: i32,
    pub(super) ch: [u8; 4],
    pub(super) chlen: u8,
    pub(super) line: u32,
    pub(super) outer: Handle,
    /// How many includes led to that file.
    pub(super) depth: usize,
}

/// An index into a table of [`Environment`], stored in a pointer field of [`Sym`](super::Sym); null
/// for none. Not an address, and never followed.
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

    /// The pointer, if C code has stored one of its own: those are beyond the index of any table.
    pub(super) fn address(self) -> Option<*mut c_void> {
        const LONGEST_TABLE: usize = 1 << 24;
        (self.0 as usize > LONGEST_TABLE).then_some(self.0)
    }
}

/// State shared by the readers of one configuration.
#[derive(Default)]
pub struct Environment {
    /// The system that answers the parser's questions.
    system: Option<Rc<dyn System>>,
    /// Changes by `setenv` and `unsetenv`.
    pub(super) overlay: Overlay,
    /// Effects recorded so far that have not been applied.
    pub(super) effects: Vec<Effect>,
    /// The debug mask.
    pub(super) debug: u32,
    pub(super) case: Case,
    /// Messages that are given only once, and have been.
    pub(super) said: HashSet<&'static str>,
    sources: Vec<Rc<Source>>,
    suspended: Vec<Suspended>,
    expansions: Vec<Expansion>,
    pub(super) aliases: HashMap<Rc<[u8]>, AliasTokens>,
    /// An empty alias was used.
    pub(super) used_empty_alias: bool,
    /// The value of `$CONFDIR/`.
    pub(super) directory: String,
}

/// An environment as its readers hold it.
pub type Shared = Rc<RefCell<Environment>>;

thread_local! {
    /// The environment of the configuration being read, or read last. Readers that C code makes use
    /// it.
    static CURRENT: RefCell<Shared> = RefCell::default();
}

impl Environment {
    /// An environment for the configuration called `name`.
    pub(super) fn new(name: &str, system: Rc<dyn System>, debug: u32) -> Environment {
        let directory = directory(name, &*system);
        Environment { directory, debug, system: Some(system), ..Environment::default() }
    }

    /// The system that answers the parser's questions.
    pub(super) fn system(&self) -> Rc<dyn System> {
        self.system.clone().unwrap_or_else(|| Rc::new(Nowhere))
    }

    /// Prepares for reading on with a reader that C code holds: sets the system if there is none
    /// yet, and takes over the debug mask and the case flags, which C code may have changed.
    pub fn resume(&mut self, system: &Rc<dyn System>, debug: u32, case: u64) {
        self.system.get_or_insert_with(|| Rc::clone(system));
        (self.debug, self.case) = (debug, Case(case));
    }

    /// The case flags: see [`Effect::Case`].
    pub fn case(&self) -> u64 {
        self.case.0
    }

    /// Records a token for the trace, if tracing is on.
    pub(super) fn trace(&mut self, text: impl FnOnce() -> String) {
        if self.debug & DEBUG_PARSE != 0 {
            self.effects.push(Effect::Trace(text()));
        }
    }

    /// An environment variable as the text sees it.
    pub(super) fn variable(&self, name: &OsStr) -> Option<OsString> {
        self.overlay.get(name, &*self.system())
    }

    /// The environment of readers that C code makes.
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

    /// `None` if there are more expansions than any sane configuration needs.
    pub(super) fn expand(&mut self, expansion: Expansion) -> Option<Handle> {
        const MOST: usize = 1 << 20;
        if self.expansions.len() >= MOST {
            return None;
        }
        self.expansions.push(expansion);
        Some(Handle::of(self.expansions.len() - 1))
    }

    /// Called when a new reader starts. Frees the tables if they are large: in a program that makes
    /// that many readers, no earlier one is still inside an alias or include.
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

    /// Defines an empty alias.
    pub fn add_alias(&mut self, name: &[u8]) {
        self.aliases.insert(name.into(), Rc::new([]));
    }

    pub(super) fn add_token_to_alias(&mut self, name: &[u8], token: AliasToken) {
        let before = self.aliases.get(name).map_or(&[][..], |tokens| tokens);
        let tokens = before.iter().cloned().chain([token]).collect();
        self.aliases.insert(name.into(), tokens);
    }
}

/// The folder of a configuration, with a trailing slash.
pub fn directory(name: &str, system: &dyn System) -> String {
    match name.rfind('/') {
        // Shared memory is a copy of a file elsewhere.
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
    /// An opening brace: the block inherits the setting.
    pub(super) fn open(&mut self) {
        self.0 = self.0 << 1 | self.0 & 1;
    }

    /// A closing brace: restores the setting outside. The outermost level is never lost.
    pub(super) fn close(&mut self) {
        self.0 = self.0 >> 1 | self.0 & 1 << 63;
    }

    /// `regex-match-case = BOOL`
    pub(super) fn matters(&mut self, yes: bool) {
        self.0 = self.0 & !1 | u64::from(!yes);
    }

    /// True if case is ignored in the innermost block.
    pub(super) fn is_ignored(self) -> bool {
        self.0 & 1 != 0
    }
}

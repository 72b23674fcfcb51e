//! How a configuration is read, as the command line and the program want it.

/// The debug bit of the token trace.
pub const DEBUG_PARSE: u32 = 1;

/// What becomes of names that syslog does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownNames {
    /// A mistake.
    #[default]
    Refused,
    /// Reported and left aside: programs of others did not mind them so far.
    Ignored,
}

/// What reading depends on besides the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `-P`: reading goes on behind a mistake, and nothing is redirected.
    pub parse_only: bool,
    /// Whether names that are not known are mistakes.
    pub unknown_names: UnknownNames,
    /// The debug mask to begin with.
    pub debug: u32,
}

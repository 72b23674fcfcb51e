//! How to read a configuration: options from the command line and the program.

/// The debug bit of the token trace.
pub const DEBUG_PARSE: u32 = 1;

/// What to do about severities and facilities that syslog does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownNames {
    /// A mistake.
    #[default]
    Refused,
    /// Warned about and ignored: other programs have accepted them so far.
    Ignored,
}

/// Options that reading depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `-P`: reading goes on after a mistake, and `debug redirect` to a file is ignored.
    pub parse_only: bool,
    /// Whether unknown names are mistakes.
    pub unknown_names: UnknownNames,
    /// The initial debug mask.
    pub debug: u32,
}

//! Severities and facilities of syslog, by number and by name.

/// syslog severities (RFC 5424 section 6.2.1, the numbers of syslog.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Severity(pub(super) i32);

impl Severity {
    /// LOG_ERR
    pub const ERROR: Severity = Severity(libc::LOG_ERR);
    /// LOG_WARNING
    pub const WARNING: Severity = Severity(libc::LOG_WARNING);
    /// LOG_INFO
    pub const INFO: Severity = Severity(libc::LOG_INFO);
    /// LOG_DEBUG
    pub const DEBUG: Severity = Severity(libc::LOG_DEBUG);

    /// The number in syslog.h.
    pub fn number(self) -> i32 {
        self.0
    }

    /// The severity with this number in syslog.h.
    pub fn of(number: i32) -> Severity {
        Severity(number & 7)
    }

    /// The name, as the log has it.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 8] =
            ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];
        NAMES[(self.0 & 7) as usize]
    }

    /// By name, case-insensitive.
    pub fn parse(name: &str) -> Option<Severity> {
        const NAMES: [(&str, i32); 8] = [
            ("EMERG", libc::LOG_EMERG),
            ("ALERT", libc::LOG_ALERT),
            ("CRIT", libc::LOG_CRIT),
            ("ERR", libc::LOG_ERR),
            ("WARNING", libc::LOG_WARNING),
            ("NOTICE", libc::LOG_NOTICE),
            ("INFO", libc::LOG_INFO),
            ("DEBUG", libc::LOG_DEBUG),
        ];
        lookup(&NAMES, name).map(Severity)
    }
}

/// syslog facilities, shifted as in syslog.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(pub(super) i32);

impl Facility {
    /// The number in syslog.h.
    pub fn number(self) -> i32 {
        self.0
    }

    /// By name, case-insensitive.
    pub fn parse(name: &str) -> Option<Facility> {
        // Solaris does not define LOG_AUTHPRIV and LOG_FTP; these are the usual numbers.
        const AUTHPRIV: i32 = 10 << 3;
        const FTP: i32 = 11 << 3;
        const NAMES: [(&str, i32); 20] = [
            ("AUTH", libc::LOG_AUTH),
            ("AUTHPRIV", AUTHPRIV),
            ("CRON", libc::LOG_CRON),
            ("DAEMON", libc::LOG_DAEMON),
            ("FTP", FTP),
            ("KERN", libc::LOG_KERN),
            ("LOCAL0", libc::LOG_LOCAL0),
            ("LOCAL1", libc::LOG_LOCAL1),
            ("LOCAL2", libc::LOG_LOCAL2),
            ("LOCAL3", libc::LOG_LOCAL3),
            ("LOCAL4", libc::LOG_LOCAL4),
            ("LOCAL5", libc::LOG_LOCAL5),
            ("LOCAL6", libc::LOG_LOCAL6),
            ("LOCAL7", libc::LOG_LOCAL7),
            ("LPR", libc::LOG_LPR),
            ("MAIL", libc::LOG_MAIL),
            ("NEWS", libc::LOG_NEWS),
            ("SYSLOG", libc::LOG_SYSLOG),
            ("USER", libc::LOG_USER),
            ("UUCP", libc::LOG_UUCP),
        ];
        lookup(&NAMES, name).map(Facility)
    }
}

fn lookup(names: &[(&str, i32)], name: &str) -> Option<i32> {
    names.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, number)| number)
}

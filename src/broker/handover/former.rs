//! The next image, or a child that checks the configuration, learns why it was started.

use super::environment::{adopt, inherited, variable, REPORT_VARIABLE};
use super::Handover;
use crate::os::anonymous::Bytes;
use crate::os::process::{self, Pid};
use std::io::PipeWriter;

/// Why a process was started, by its environment.
pub enum Former {
    /// The user started it.
    None,
    /// It is the next image of a broker.
    Image(Box<Handover>),
    /// It checks the configuration for a broker that wants to reload.
    Check {
        /// The broker serves sockets without a `listen` block, so the configuration needs none.
        activated: bool,
        /// Where it writes what it has read.
        report: Option<PipeWriter>,
    },
}

const CHECK: &str = "check";
const CHECK_ACTIVATED: &str = "check activated";

/// The value of [`VARIABLE`] for a child that checks the configuration.
pub(in crate::broker) fn check_value(activated: bool) -> &'static str {
    if activated {
        CHECK_ACTIVATED
    } else {
        CHECK
    }
}

impl Handover {
    /// Takes what the former image left, if there was one. The variables are removed, and believed
    /// only if they were meant for this process.
    pub fn take() -> Former {
        let mut text = String::new();
        for number in 0.. {
            let name = variable(number);
            let Ok(part) = std::env::var(&name) else {
                break;
            };
            std::env::remove_var(name);
            text += &part;
        }
        let report = inherited(REPORT_VARIABLE);
        match text.as_str() {
            CHECK => Former::Check { activated: false, report },
            CHECK_ACTIVATED => Former::Check { activated: true, report },
            text => Handover::decode(text)
                .map_or(Former::None, |former| Former::Image(Box::new(former))),
        }
    }

    fn decode(text: &str) -> Option<Handover> {
        let lines = lines_for_us(text)?;
        if let Some(number) = lines.clone().next().and_then(|line| line.strip_prefix("file ")) {
            let file = Bytes::from(adopt(number.parse().ok()?)?);
            let text = String::from_utf8(file.read().ok()?).ok()?;
            return Some(Handover::from_lines(lines_for_us(&text)?));
        }
        Some(Handover::from_lines(lines))
    }
}

/// The lines after the first, which names the process they are for; `None` if that is another
/// process.
fn lines_for_us(text: &str) -> Option<std::str::Split<'_, char>> {
    let mut lines = text.split('\n');
    let pid: Pid = lines.next()?.strip_prefix("pid ")?.parse().ok()?;
    (pid == process::id()).then_some(lines)
}

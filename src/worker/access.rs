//! The access log: a line for each session.

use super::session::{End, Phase, Session};
use crate::config::relay::Remote;

/// How a session ended, for the access log.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Closed,
    Broken(End),
    Idle,
    Drained,
    NoRemote,
    Failed(String),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Closed => out.write_str("closed"),
            Outcome::Broken(End::Client) => out.write_str("broken by client"),
            Outcome::Broken(End::Peer) => out.write_str("broken by remote"),
            Outcome::Idle => out.write_str("idle timeout"),
            Outcome::Drained => out.write_str("drain timeout"),
            Outcome::NoRemote => out.write_str("no remote available"),
            Outcome::Failed(why) => out.write_str(why),
        }
    }
}

/// The line of a session that has ended; empty if the log is off.
pub(super) fn line(session: &Session, remotes: &[Remote], outcome: &Outcome, now: u64) -> String {
    let Some(access) = &session.access else {
        return String::new();
    };
    let remote = match session.remote {
        Some(index) if matches!(session.phase, Phase::Relaying | Phase::Breaking(_)) => {
            remotes[index as usize].address.to_string()
        }
        _ => "none".to_owned(),
    };
    let elapsed = now.saturating_sub(access.started);
    format!(
        "access: client {} listener {} remote {remote} sent {} received {} seconds {}.{:03} \
             {outcome}{}",
        access.client,
        access.listener,
        session.up.bytes.saturating_sub(session.up.unwritten() as u64),
        session.down.bytes.saturating_sub(session.down.unwritten() as u64),
        elapsed / 1000,
        elapsed % 1000,
        tls_part(session),
    )
}

/// What the access log says about TLS.
fn tls_part(session: &Session) -> String {
    let mut text = String::new();
    if let Some(summary) = session.client_summary().filter(|summary| !summary.version.is_empty()) {
        text += &format!(" tls {} {}", summary.version, summary.cipher);
        if summary.resumed {
            text += " resumed";
        }
        let named = [
            ("sni", &summary.server_name),
            ("alpn", &summary.protocol),
            ("subject", &summary.subject),
            ("issuer", &summary.issuer),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                text += &format!(" {name} {value:?}");
            }
        }
    }
    if let Some(trouble) = session.tls.as_ref().and_then(|tls| tls.trouble.as_ref()) {
        text += &format!(" ({trouble})");
    }
    text
}

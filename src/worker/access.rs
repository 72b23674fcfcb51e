//! The access log: one line per session.

use super::allotment::Limit;
use super::pair::{End, Pair};
use crate::os::address::Address;
use crate::os::log::{self, Field, Value};
use crate::os::socket::Addressed;
use crate::os::Socket;
use crate::tls::hello::Hello;
use crate::tls::summary::Summary;
use crate::upstream::proxy::{Header, Origin};
use crate::upstream::registry::Registry;
use crate::upstream::zone::counters::Refusal;
use std::cell::OnceCell;

/// What the access log records of a session; allocated only if the log is on.
#[derive(Debug)]
pub(super) struct Access {
    client: String,
    /// The proxy that has introduced the client.
    sender: Option<String>,
    listener: String,
    started: u64,
    /// Names the session to remotes, and to proxies before us.
    pub(super) id: OnceCell<String>,
    /// What a client asks for in TLS that is passed on.
    hello: Option<String>,
    /// The route that has decided, and why.
    pub(super) route: Option<String>,
    /// It has had to wait for its bandwidth.
    pub(super) throttled: bool,
    /// What went wrong with TLS.
    pub(super) trouble: Option<String>,
}

impl Access {
    pub(super) fn new(client: &Socket, now: u64) -> Access {
        let name = |address: Option<Address>| {
            address.map_or_else(|| "local".to_owned(), |address| address.to_string())
        };
        Access {
            client: name(client.peer_address()),
            sender: None,
            listener: name(client.local_address()),
            started: now,
            id: OnceCell::new(),
            hello: None,
            route: None,
            throttled: false,
            trouble: None,
        }
    }
}

impl Access {
    /// A proxy has introduced the client.
    pub(super) fn introduced(&mut self, header: &Header) {
        if let Origin::Client { source, .. } = &header.origin {
            self.sender = Some(std::mem::replace(&mut self.client, source.to_string()));
        }
        if let Some(id) = &header.unique_id {
            let _ = self.id.set(String::from_utf8_lossy(id).into_owned());
        }
    }
}

impl Access {
    /// The first bytes of the client were read to see what it asks for.
    pub(super) fn inspected(&mut self, hello: &Hello) {
        self.hello = Some(match hello {
            Hello::Tls(offer) => {
                let mut text = match &offer.server_name {
                    Some(name) => format!("sni {name:?}"),
                    None => "without sni".to_owned(),
                };
                for protocol in &offer.protocols {
                    text += &format!(" alpn {:?}", String::from_utf8_lossy(protocol));
                }
                text
            }
            Hello::Ssl2 => "SSL 2".to_owned(),
            Hello::Malformed => "no valid ClientHello".to_owned(),
            Hello::Partial | Hello::Plain => "no TLS".to_owned(),
        });
    }
}

/// How a session ended, for the access log.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Closed,
    Broken(End),
    Limited(Limit),
    Drained,
    /// Probes have found the remote down.
    Down,
    /// An operator has disabled the remote.
    Disabled,
    /// An operator has ended it.
    Ended,
    NoRemote,
    /// All remotes that would do have as many sessions as they may.
    Full,
    /// It cannot be served.
    Refused(Refusal, String),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Closed => out.write_str("closed"),
            Outcome::Broken(End::Client) => out.write_str("broken by client"),
            Outcome::Broken(End::Upstream) => out.write_str("broken by remote"),
            Outcome::Limited(limit) => write!(out, "{limit}"),
            Outcome::Drained => out.write_str("drain timeout"),
            Outcome::Down => out.write_str("remote is down"),
            Outcome::Ended => out.write_str("ended by hand"),
            Outcome::Disabled => out.write_str("remote is disabled"),
            Outcome::NoRemote => out.write_str("no remote available"),
            Outcome::Full => out.write_str("remotes are full"),
            Outcome::Refused(_, why) => out.write_str(why),
        }
    }
}

/// What a session has relayed.
struct Relayed {
    remote: Option<String>,
    sent: u64,
    received: u64,
    /// In milliseconds.
    elapsed: u64,
}

impl Access {
    /// Logs a session that has ended: how many bytes it relayed, if it got that far, and what was
    /// negotiated with its client.
    pub(super) fn log(
        &self,
        pair: Option<&Pair>,
        client: Option<&Summary>,
        registry: &Registry,
        outcome: &Outcome,
        now: u64,
    ) {
        let remote = pair.and_then(|pair| registry.get(pair.remote));
        let relayed = Relayed {
            remote: remote.map(|remote| remote.address().to_string()),
            sent: pair.map_or(0, |pair| pair.up.bytes.saturating_sub(pair.up.unwritten() as u64)),
            received: pair
                .map_or(0, |pair| pair.down.bytes.saturating_sub(pair.down.unwritten() as u64)),
            elapsed: now.saturating_sub(self.started),
        };
        log::record(
            "access",
            || self.line(&relayed, client, outcome),
            || self.fields(&relayed, client, outcome),
        );
    }

    fn line(&self, relayed: &Relayed, client: Option<&Summary>, outcome: &Outcome) -> String {
        let Relayed { remote, sent, received, elapsed } = relayed;
        let remote = remote.as_deref().unwrap_or("none");
        format!(
            "access: client {} listener {} remote {remote} sent {sent} received {received} seconds \
             {}.{:03} {outcome}{}",
            self.client,
            self.listener,
            elapsed / 1000,
            elapsed % 1000,
            self.details(client),
        )
    }

    /// The parts of the line, for a log of objects. What there is not is left out.
    fn fields(&self, relayed: &Relayed, client: Option<&Summary>, outcome: &Outcome) -> Vec<Field> {
        let mut fields = vec![
            ("client", Value::Text(self.client.clone())),
            ("listener", Value::Text(self.listener.clone())),
            ("sent", Value::Number(relayed.sent)),
            ("received", Value::Number(relayed.received)),
            ("seconds", Value::Seconds(relayed.elapsed)),
            ("reason", Value::Text(outcome.to_string())),
        ];
        let summary = client.filter(|summary| !summary.version.is_empty());
        if let Some(summary) = summary {
            fields.extend([
                ("tls", Value::Text(summary.version.to_string())),
                ("cipher", Value::Text(summary.cipher.to_string())),
                ("records", Value::Text(summary.handler.to_string())),
                ("resumed", Value::Bool(summary.resumed)),
            ]);
        }
        if self.throttled {
            fields.push(("throttled", Value::Bool(true)));
        }
        let named = |part: fn(&Summary) -> &Option<String>| {
            summary.and_then(|summary| part(summary).as_ref())
        };
        let texts = [
            ("remote", relayed.remote.as_ref()),
            ("route", self.route.as_ref()),
            ("via", self.sender.as_ref()),
            ("id", self.id.get()),
            ("hello", self.hello.as_ref()),
            ("sni", named(|summary| &summary.server_name)),
            ("alpn", named(|summary| &summary.protocol)),
            ("subject", named(|summary| &summary.subject)),
            ("issuer", named(|summary| &summary.issuer)),
            ("trouble", self.trouble.as_ref()),
        ];
        for (name, text) in texts {
            fields.extend(text.map(|text| (name, Value::Text(text.clone()))));
        }
        fields
    }

    /// What the access log says besides: its bandwidth and route, who has introduced the client, the session's
    /// id, and about TLS.
    fn details(&self, client: Option<&Summary>) -> String {
        let mut text = String::new();
        if self.throttled {
            text += " throttled";
        }
        if let Some(route) = &self.route {
            text += &format!(" route {route}");
        }
        if let Some(sender) = &self.sender {
            text += &format!(" via {sender}");
        }
        if let Some(id) = self.id.get() {
            text += &format!(" id {id:?}");
        }
        if let Some(hello) = &self.hello {
            text += &format!(" {hello}");
        }
        if let Some(summary) = client.filter(|summary| !summary.version.is_empty()) {
            let (version, cipher, handler) = (&summary.version, &summary.cipher, summary.handler);
            text += &format!(" tls {version} {cipher} records {handler}");
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
        if let Some(trouble) = &self.trouble {
            text += &format!(" ({trouble})");
        }
        text
    }
}

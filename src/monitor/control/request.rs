//! Requests: what a line of JSON asks for.

use super::change::Change;
use super::sessions::{Id, Job, Wanted, MOST_SHOWN};
use crate::channel::protocol::Wants;
use crate::monitor::view::Part;
use crate::upstream::wish::{Lasting, Service, MOST_WEIGHT};
use crate::upstream::zone::mail::Order;
use serde_json::{Map, Value};

/// What a client wants.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request {
    /// The broker does that.
    Broker(Wants),
    /// To see these parts of the overview.
    Show(&'static [Part]),
    /// Something of the workers.
    Work(Job),
    /// To change the remotes that a word stands for.
    Change {
        /// An address, a host name or a tag.
        remote: String,
        change: Change,
        lasts: Lasting,
    },
}

/// All requests, for messages.
const KNOWN: &str = "disable, drain, enable, errors, former, kill, listeners, reload, remotes, \
                     sessions, show, stop, weight, workers";

impl Request {
    /// Parses a line; the error says what is wrong with it.
    pub(super) fn parse(line: &[u8]) -> Result<Request, String> {
        let value: Value =
            serde_json::from_slice(line).map_err(|error| format!("this is no JSON: {error}"))?;
        let Value::Object(fields) = value else {
            return Err("a request is a JSON object".to_owned());
        };
        let mut fields = Fields(fields);
        let request = match fields.text("do")?.as_deref() {
            Some("former") => Request::Broker(Wants::Former),
            Some("reload") => Request::Broker(Wants::Reload),
            Some("stop") => Request::Broker(Wants::Stop),
            Some("show") => Request::Show(Part::ALL),
            Some("remotes") => Request::Show(&[Part::Remotes]),
            Some("listeners") => Request::Show(&[Part::Listeners]),
            Some("workers") => Request::Show(&[Part::Processes]),
            Some("errors") => Request::Show(&[Part::Errors]),
            Some("sessions") => Request::Work(Job::List(fields.wanted()?)),
            Some("kill") => match fields.text("session")?.as_deref().map(Id::parse) {
                Some(Some(id)) => Request::Work(Job::End(id)),
                _ => return Err("\"session\" must be an id that \"sessions\" has shown".to_owned()),
            },
            Some("drain") => fields.change(Change::Service(Service::Drained))?,
            Some("disable") => fields.change(Change::Service(Service::Disabled))?,
            Some("enable") => fields.change(Change::Service(Service::Normal))?,
            Some("weight") => {
                let weight = fields.weight()?;
                fields.change(Change::Weight(weight))?
            }
            Some(other) => return Err(format!("unknown request '{other}', known are: {KNOWN}")),
            None => return Err(format!("\"do\" is missing, which is one of: {KNOWN}")),
        };
        fields.end()?;
        Ok(request)
    }

    /// True if only those may ask for it who may change things.
    pub(super) fn changes(&self) -> bool {
        match self {
            Request::Broker(wants) => *wants != Wants::Former,
            Request::Change { .. } | Request::Work(Job::End(_)) => true,
            Request::Show(_) | Request::Work(Job::List(_)) => false,
        }
    }
}

/// The fields of a request that were not looked at yet.
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("\"{name}\" must be a text")),
        }
    }

    fn wanted(&mut self) -> Result<Wanted, String> {
        let order = match self.text("sort")?.as_deref() {
            None | Some("age") => Order::Age,
            Some("idle") => Order::Idle,
            Some("bytes") => Order::Bytes,
            Some(_) => return Err("\"sort\" must be age, bytes or idle".to_owned()),
        };
        let top = match self.0.remove("top") {
            None => MOST_SHOWN,
            Some(value) => match value.as_u64() {
                Some(top @ 1..) => usize::try_from(top).unwrap_or(usize::MAX).min(MOST_SHOWN),
                _ => return Err("\"top\" must be a positive number".to_owned()),
            },
        };
        let (remote, client) = (self.text("remote")?, self.text("client")?);
        Ok(Wanted { remote, client, order, top })
    }

    /// The weight; `None` for the configured one.
    fn weight(&mut self) -> Result<Option<u32>, String> {
        let wrong = || Err(format!("\"weight\" must be null, or a number from 1 to {MOST_WEIGHT}"));
        match self.0.remove("weight") {
            Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(weight @ 1..) if weight <= MOST_WEIGHT.into() => Ok(Some(weight as u32)),
                _ => wrong(),
            },
            None => wrong(),
        }
    }

    fn change(&mut self, change: Change) -> Result<Request, String> {
        let Some(remote) = self.text("remote")? else {
            return Err("\"remote\" is missing: an address, a host name or a tag".to_owned());
        };
        let lasts = match self.0.remove("until-reload") {
            None | Some(Value::Bool(false)) => Lasting::Always,
            Some(Value::Bool(true)) => Lasting::UntilReload,
            Some(_) => return Err("\"until-reload\" must be true or false".to_owned()),
        };
        Ok(Request::Change { remote, change, lasts })
    }

    /// Refuses what nobody has asked for: a misspelt field must not be ignored.
    fn end(self) -> Result<(), String> {
        match self.0.keys().next() {
            Some(name) => Err(format!("unknown field \"{name}\"")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_line_is_answered(line: Vec<u8>) {
            let _ = Request::parse(&line);
        }
    }

    #[test]
    fn requests_are_understood() {
        let parse = |line: &str| Request::parse(line.as_bytes());
        assert_eq!(parse("{\"do\":\"stop\"}\n"), Ok(Request::Broker(Wants::Stop)));
        let weight = parse(r#"{"do":"weight","remote":"a","weight":3,"until-reload":true}"#);
        let (remote, lasts) = ("a".to_owned(), Lasting::UntilReload);
        let change = Change::Weight(Some(3));
        assert_eq!(weight, Ok(Request::Change { remote, change, lasts }));
        assert!(weight.is_ok_and(|request| request.changes()));
        let sessions = parse(r#"{"do":"sessions","sort":"bytes","top":5,"client":"192."}"#);
        let client = Some("192.".to_owned());
        let wanted = Wanted { remote: None, client, order: Order::Bytes, top: 5 };
        assert_eq!(sessions, Ok(Request::Work(Job::List(wanted))));
        assert!(parse(r#"{"do":"kill","session":"1.2.a"}"#).is_ok_and(|kill| kill.changes()));
        for wrong in [
            r#"{"do":"kill"}"#,
            r#"{"do":"kill","session":"1"}"#,
            r#"{"do":"sessions","sort":"size"}"#,
            r#"{"do":"sessions","top":0}"#,
            r#"{"do":"weight","remote":"a"}"#,
            r#"{"do":"weight","remote":"a","weight":0}"#,
            r#"{"do":"weight","remote":"a","weight":-1}"#,
            r#"{"do":"weight","remote":"a","weight":1e99}"#,
            r#"{"do":"weight","remote":"a","weight":4294967296}"#,
            r#"{"do":"drain"}"#,
            r#"{"do":"drain","remote":7}"#,
            r#"{"do":"drain","remote":"a","until-reload":1}"#,
            r#"{"do":"drain","remote":"a","until":true}"#,
            r#"{"do":"show"} x"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

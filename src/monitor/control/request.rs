//! Requests: what a line of JSON asks for.

use crate::channel::protocol::Wants;
use serde_json::{Map, Value};

/// What a client wants.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request {
    /// The broker does that.
    Broker(Wants),
}

/// All requests, for messages.
const KNOWN: &str = "former, reload, stop";

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
            Some(other) => return Err(format!("unknown request '{other}', known are: {KNOWN}")),
            None => return Err(format!("\"do\" is missing, which is one of: {KNOWN}")),
        };
        fields.end()?;
        Ok(request)
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

    /// Refuses what nobody has asked for: a misspelt field must not be ignored.
    fn end(self) -> Result<(), String> {
        match self.0.keys().next() {
            Some(name) => Err(format!("unknown field \"{name}\"")),
            None => Ok(()),
        }
    }
}

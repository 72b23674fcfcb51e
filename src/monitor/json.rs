//! Writes JSON (RFC 8259) in the order in which values are given, as text at once. A value of
//! `serde_json`, with which short answers are made and requests are read, sorts its names, and would
//! be a tree of all remotes that is thrown away.

use crate::os::log;

/// A JSON text that is being written.
#[derive(Debug, Default)]
pub(super) struct Json {
    text: String,
    /// Something stands before, in this object or array.
    follows: bool,
}

impl Json {
    /// A text with one object.
    pub(super) fn of(write: impl FnOnce(&mut Json)) -> String {
        let mut json = Json::default();
        json.object(write);
        json.text
    }

    /// The name of the value that comes next, in an object.
    pub(super) fn name(&mut self, name: &str) -> &mut Json {
        self.string(name);
        self.text.push(':');
        self.follows = false;
        self
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.follows, true) {
            self.text.push(',');
        }
    }

    fn nested(&mut self, [open, close]: [char; 2], write: impl FnOnce(&mut Json)) {
        self.begin();
        self.text.push(open);
        self.follows = false;
        write(self);
        self.text.push(close);
        self.follows = true;
    }

    /// An object; `write` gives names and values.
    pub(super) fn object(&mut self, write: impl FnOnce(&mut Json)) {
        self.nested(['{', '}'], write);
    }

    /// An array; `write` gives values.
    pub(super) fn array(&mut self, write: impl FnOnce(&mut Json)) {
        self.nested(['[', ']'], write);
    }

    /// A text.
    pub(super) fn string(&mut self, text: &str) {
        self.begin();
        log::json_string(&mut self.text, text);
    }

    /// A number.
    pub(super) fn number(&mut self, number: u64) {
        self.raw(&number.to_string());
    }

    /// A number, or null.
    pub(super) fn number_or_null(&mut self, number: Option<u64>) {
        match number {
            Some(number) => self.number(number),
            None => self.raw("null"),
        }
    }

    /// A number of seconds, from milliseconds.
    pub(super) fn seconds(&mut self, milliseconds: u64) {
        self.raw(&format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000));
    }

    /// True or false.
    pub(super) fn boolean(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    fn raw(&mut self, text: &str) {
        self.begin();
        self.text.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_nest() {
        let text = Json::of(|json| {
            json.name("a").array(|json| {
                json.number(1);
                json.object(|_| {});
                json.object(|json| json.name("x").boolean(true));
                json.seconds(1005);
            });
            json.name("b").string("\"\\\n\u{85}é");
            json.name("c").number_or_null(None);
            json.name("d").number_or_null(Some(2));
        });
        assert_eq!(text, r#"{"a":[1,{},{"x":true},1.005],"b":"\"\\\u000a\u0085é","c":null,"d":2}"#);
    }
}

//! Grammar that only other programs use, for the sections of their own: values, blocks and
//! conditions.

use super::token::Code;
use super::token::{
    S_and, S_closebra, S_comma, S_deny, S_eof, S_equal, S_leftbra, S_openbra, S_or, S_permit,
    S_rightbra, S_slash, S_string, S_tilde,
};
use super::{ConfigError, Parser};

impl Parser<'_> {
    /// Any number of commas; true if there was one.
    pub fn commas(&mut self) -> Result<bool, ConfigError> {
        let mut found = false;
        while self.accept(S_comma)? {
            found = true;
        }
        Ok(found)
    }

    /// `permit` or `deny`.
    pub fn permission(&mut self) -> Result<Code, ConfigError> {
        let code = self.code();
        if code != S_permit && code != S_deny {
            return Err(self.expected(&[S_permit, S_deny]));
        }
        self.advance()?;
        Ok(code)
    }

    /// `umask = OCTAL`, with the keyword current.
    pub fn umask(&mut self) -> Result<u32, ConfigError> {
        self.advance()?;
        self.expect(S_equal)?;
        self.octal()
    }

    /// `timespec = NAME { SPECIFICATION ... }`, with the keyword current. Calls `add` with the name
    /// alone, then once for each specification. `add` fails with the text of a message.
    pub fn timespec(
        &mut self,
        mut add: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), String>,
    ) -> Result<(), ConfigError> {
        self.advance()?;
        self.accept(S_equal)?;
        let name = self.text().to_vec();
        self.advance()?;
        self.expect(S_openbra)?;
        add(&name, None).map_err(|text| self.error(text))?;
        while self.code() != S_closebra {
            if self.code() == S_eof {
                return Err(self.expected(&[S_closebra]));
            }
            add(&name, Some(self.text())).map_err(|text| self.error(text))?;
            self.advance()?;
        }
        self.advance()
    }

    /// The text of a parenthesised condition, with more parentheses that make the precedence of its
    /// operators explicit. Ends on the token after it.
    pub fn parenthesised(&mut self) -> Result<Vec<u8>, ConfigError> {
        let mut text = Vec::new();
        let mut depth = 0;
        loop {
            let code = self.code();
            match code {
                S_eof => return Err(self.error("EOF unexpected")),
                S_openbra | S_closebra => {
                    let got = self.text_lossy();
                    let message = format!("Got '{got}' -- did you omit a ')' somewhere?");
                    return Err(self.error(message));
                }
                // The trick of early FORTRAN compilers: the weaker an operator binds, the more
                // parentheses it closes and opens.
                S_leftbra => text.extend_from_slice(b"((("),
                S_rightbra => text.extend_from_slice(b")))"),
                S_and => text.extend_from_slice(b") && ("),
                S_or => text.extend_from_slice(b")) || (("),
                S_slash => {
                    text.push(b'/');
                    for &byte in self.text() {
                        if byte == b'/' {
                            text.push(b'\\');
                        }
                        text.push(byte);
                    }
                    text.push(b'/');
                }
                S_string if self.is_quoted() => quote(self.text(), &mut text),
                _ => text.extend_from_slice(self.text()),
            }
            // Separates the tokens. After a tilde, a slash begins a PCRE.
            text.push(b' ');
            depth += i32::from(code == S_leftbra) - i32::from(code == S_rightbra);
            if code == S_tilde {
                self.set_parses_pcre(true);
            }
            let advanced = self.advance();
            self.set_parses_pcre(false);
            advanced?;
            if depth == 0 {
                return Ok(text);
            }
        }
    }
}

fn quote(value: &[u8], text: &mut Vec<u8>) {
    text.push(b'"');
    for &byte in value {
        match byte {
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', byte]),
            0..=31 => text.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => text.push(byte),
        }
    }
    text.push(b'"');
}

//! Finds the paths that Rust source names, as far as possible without a compiler: `crate::`,
//! `super::` and `self::`, in `use` lines and elsewhere, groups included.

/// Finds the paths in the source of `module`: each from the crate's root, with the module that
/// names it (which may be an inline one).
pub fn paths(source: &str, module: &[String]) -> Vec<Reference> {
    let tokens = tokens(source);
    let mut reader = Reader { tokens: &tokens, at: 0 };
    let mut modules = vec![(module.to_vec(), 0)];
    let (mut depth, mut found) = (0, Vec::new());
    while let Some(token) = reader.next() {
        match token {
            "{" => depth += 1,
            "}" => {
                if modules.last().is_some_and(|(_, opened)| *opened == depth) && modules.len() > 1 {
                    modules.pop();
                }
                depth -= 1;
            }
            "mod" if reader.peek(1) == Some("{") => {
                let name = reader.next().unwrap_or_default().to_owned();
                reader.next();
                depth += 1;
                let inner = [&modules[modules.len() - 1].0[..], &[name]].concat();
                modules.push((inner, depth));
            }
            // Without `::` it is `pub(crate)` or `pub(super)`, which name no path.
            "crate" | "super" | "self" if reader.peek(0) == Some("::") => {
                let here = &modules[modules.len() - 1].0;
                let start = match token {
                    "crate" => Vec::new(),
                    "self" => here.clone(),
                    _ => here[..here.len().saturating_sub(1)].to_vec(),
                };
                let mut all = Vec::new();
                reader.next();
                reader.tree(start, &mut all);
                let from = here.clone();
                found.extend(all.into_iter().map(|to| Reference { from: from.clone(), to }));
            }
            _ => {}
        }
    }
    found
}

/// A path that a module names.
#[derive(Clone)]
pub struct Reference {
    pub from: Vec<String>,
    pub to: Vec<String>,
}

struct Reader<'a> {
    tokens: &'a [&'a str],
    at: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.at += 1;
        self.tokens.get(self.at - 1).copied()
    }

    fn peek(&self, ahead: usize) -> Option<&'a str> {
        self.tokens.get(self.at + ahead).copied()
    }

    /// Parses what follows `start::`.
    fn tree(&mut self, mut path: Vec<String>, all: &mut Vec<Vec<String>>) {
        loop {
            match self.peek(0) {
                Some("{") => {
                    self.next();
                    while let Some(token) = self.peek(0) {
                        match token {
                            "}" => {
                                self.next();
                                return;
                            }
                            "," => {
                                self.next();
                            }
                            "as" => {
                                self.next();
                                self.next();
                            }
                            _ => self.tree(path.clone(), all),
                        }
                    }
                    return;
                }
                Some("super") => {
                    path.pop();
                    self.next();
                }
                Some(word) if word == "self" || is_word(word) => {
                    if word != "self" {
                        path.push(word.to_owned());
                    }
                    self.next();
                }
                // `*`, or a generic argument.
                _ => {
                    if self.peek(0) == Some("*") {
                        self.next();
                    }
                    all.push(path);
                    return;
                }
            }
            if self.peek(0) != Some("::") {
                all.push(path);
                return;
            }
            self.next();
        }
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Splits source into words, `::` and single characters, without comments and literals.
fn tokens(source: &str) -> Vec<&str> {
    let bytes = source.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &source[at..];
        at += match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'"' => text_length(rest),
            b'\'' => character_length(rest),
            b'r' | b'b' if raw_length(rest).is_some() && !follows_word(source, at) => {
                raw_length(rest).unwrap_or(1)
            }
            b':' if rest.starts_with("::") => {
                tokens.push("::");
                2
            }
            first if first.is_ascii_alphanumeric() || first == b'_' => {
                let end = rest.find(|next: char| !next.is_alphanumeric() && next != '_');
                let end = end.unwrap_or(rest.len());
                tokens.push(&rest[..end]);
                end
            }
            first if first.is_ascii_whitespace() => 1,
            first if first.is_ascii() => {
                tokens.push(&rest[..1]);
                1
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    tokens
}

fn follows_word(source: &str, at: usize) -> bool {
    source[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
}

/// The length of a string literal, quotes included.
fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal; 1 if it is a lifetime.
fn character_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => rest[2..].find('\'').map_or(1, |end| {
            // '\'' is one character longer.
            let end = end + 3;
            end + usize::from(rest.as_bytes().get(2) == Some(&b'\''))
        }),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The length of a raw string literal, if there is one.
fn raw_length(rest: &str) -> Option<usize> {
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = raw.bytes().take_while(|&byte| byte == b'#').count();
    raw[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = rest.len() - raw.len() + hashes + 1;
    Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()))
}

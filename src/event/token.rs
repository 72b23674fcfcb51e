//! The names of descriptors and timers, which their owners choose.

/// Names the owner of a descriptor or timer: a kind of five bits and an index of 27 bits. The owner
/// chooses both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub(super) u32);

impl Token {
    const INDEX_BITS: u32 = 27;

    /// Kinds are below this.
    pub const KINDS: u8 = 31;

    /// Indices are below this.
    pub const INDICES: u32 = 1 << Token::INDEX_BITS;

    /// Marks descriptors of C modules. [`Token::new`] refuses it as a kind.
    const FOREIGN: u8 = Token::KINDS;

    pub(super) fn foreign() -> Token {
        Token(u32::from(Token::FOREIGN) << Token::INDEX_BITS)
    }

    /// Panics if `kind` or `index` do not fit, which is a programming error.
    pub const fn new(kind: u8, index: u32) -> Token {
        assert!(kind < Token::KINDS && index < Token::INDICES);
        Token((kind as u32) << Token::INDEX_BITS | index)
    }

    /// The kind given to [`Token::new`].
    pub const fn kind(self) -> u8 {
        (self.0 >> Token::INDEX_BITS) as u8
    }

    /// The index given to [`Token::new`].
    pub const fn index(self) -> u32 {
        self.0 & (Token::INDICES - 1)
    }
}

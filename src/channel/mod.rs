//! What processes say to each other: the messages of broker and worker ([`protocol`]), and what may
//! come when ([`conduct`]).

#![forbid(unsafe_code)]

pub mod conduct;
pub mod protocol;

//! What processes say to each other: the messages of broker and worker ([`protocol`]), what may come
//! when ([`conduct`]), and the calls that take their place in single-process mode ([`local`]).

#![forbid(unsafe_code)]

pub mod conduct;
pub mod local;
pub mod protocol;

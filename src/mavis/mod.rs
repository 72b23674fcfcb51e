//! MAVIS: asking modules about users and hosts.
//!
//! A query is a set of [attributes], sent down a [chain] of modules until one answers. [`script`]s
//! belong to modules and change the attributes that go in and out. [`search`] finds modules by
//! name.

#![forbid(unsafe_code)]
// Token constants carry the names of the C enumeration.
#![allow(non_upper_case_globals)]

pub mod attributes;
pub mod chain;
pub mod evaluate;
mod passes;
pub mod queries;
pub mod script;
pub mod search;

//! The grammars of single values: what stands between the quotes.

pub(crate) mod command;
pub(crate) mod duration;
pub(crate) mod labels;
pub(crate) mod name;
pub(crate) mod path;
pub(crate) mod size;
pub(crate) mod url;

//! Tables and sentences for people. At most 80 columns, whatever is in them.

mod table;
mod words;

pub(crate) use table::{Table, fields, shortened};
pub(crate) use words::{WIDTH, remaining, when, wrapped};

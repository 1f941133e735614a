//! HPACK (RFC 7541): how heads are written.

pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod field;
mod integer;
mod statics;

/// Why a header block cannot be read; it ends the connection, since what both
/// ends remember differs from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// It ends within a field.
    #[error("a header block ends within a field")]
    Short,
    /// A number is too large.
    #[error("a number in a header block is too large")]
    Integer,
    /// There is nothing at this place of the tables.
    #[error("a header block names a place of the tables where nothing is")]
    Index,
    /// A string is not what the Huffman code allows.
    #[error("a string in a header block is not in the Huffman code")]
    Huffman,
    /// The table was made larger than was allowed, or at the wrong place.
    #[error("a header block changes the table's size as it may not")]
    TableSize,
}

/// What the dynamic tables hold, until the settings say otherwise.
pub(crate) const TABLE_SIZE: usize = 4096;
/// What an entry costs beside its text (RFC 7541, 4.1).
pub(crate) const ENTRY_OVERHEAD: usize = 32;

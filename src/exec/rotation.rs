//! A rotary embedding, ready for use.

use crate::arch::{Rope, VectorId};
use crate::error::Result;
use crate::kernel::rope::RopeTable;
use crate::operations::Pairing;

pub struct Rotation {
    pairing: Pairing,
    usual: RopeTable,
    /// For sessions with room for more tokens than this.
    beyond: Option<(usize, RopeTable)>,
}

impl Rotation {
    pub fn new<'a>(rope: &Rope, vector: impl Fn(VectorId) -> &'a [f32]) -> Result<Rotation> {
        let table = |divisors: Option<VectorId>| -> Result<RopeTable> {
            let mut table = RopeTable::new(rope.dims, rope.base, rope.scaling, divisors.map(&vector))?;
            if let Some(interleaved) = rope.interleaved {
                table.keep(|pair| interleaved.rotates(pair));
            }
            Ok(table)
        };
        let beyond = rope.beyond.map(|(tokens, divisors)| Ok((tokens as usize, table(Some(divisors))?)));
        Ok(Rotation { pairing: rope.pairing, usual: table(rope.divisors)?, beyond: beyond.transpose()? })
    }

    /// Memory of that for `rope`, in bytes.
    pub fn memory_bytes(rope: &Rope) -> usize {
        rope.dims / 2 * size_of::<f64>() * if rope.beyond.is_some() { 2 } else { 1 }
    }

    pub fn pairing(&self) -> Pairing {
        self.pairing
    }

    /// The angles of a session with room for `context` tokens.
    pub fn table(&self, context: usize) -> &RopeTable {
        match &self.beyond {
            Some((tokens, table)) if context > *tokens => table,
            _ => &self.usual,
        }
    }
}

//! Schedules for tests.

use crate::gguf::Tensor;
use crate::quant::Format;
use crate::weights::frames::granule;
use crate::weights::schedule::{Builder, MatrixId, Page, Schedule, Use};

/// Marks the layer of a matrix that a pass may be routed to.
pub const ROUTED: u32 = 1 << 30;

/// With [`ROUTED`]: the matrix is of the same expert as the one before.
pub const SAME: u32 = 1 << 29;

/// A schedule of F32 matrices given as (layer, bytes per row, rows), laid end to end in one file; the last that every
/// pass uses is the head. Routed ones are experts of their own unless they are
/// marked as of the [`SAME`].
pub fn schedule_of(matrices: &[(u32, u64, u64)]) -> Schedule {
    let mut builder = Builder::new(vec![0]);
    let (mut offset, mut last, mut layers, mut uses, mut expert) = (64, MatrixId(0), 0, Vec::new(), 0);
    for (i, &(layer, row_bytes, rows)) in matrices.iter().enumerate() {
        let tensor = Tensor {
            name: format!("m{i}"),
            format: Format::F32,
            dims: [row_bytes / 4, rows, 1, 1],
            dim_count: 2,
            file: 0,
            offset,
            bytes: row_bytes * rows,
        };
        let when = match layer {
            Page::TABLE => Use::Table,
            layer if layer & ROUTED != 0 => {
                expert += u32::from(layer & SAME == 0);
                Use::Routed { layer: layer & !(ROUTED | SAME), expert }
            }
            layer => Use::Always { layer },
        };
        let id = builder.add(&tensor.name.as_str().into(), &tensor, 0, rows).unwrap();
        uses.push((id, when));
        if let Use::Always { layer } = when {
            last = id;
            layers = layers.max(layer + 1);
        }
        offset += tensor.bytes;
    }
    builder.finish(&uses, layers, Some(last), granule()).unwrap()
}

#[test]
fn pages_cover_every_row_once_and_in_order() {
    let s = schedule_of(&[(0, 4096, 5000), (0, 4096, 7), (1, 8192, 3000), (Page::TABLE, 4096, 1000), (1, 4096, 100)]);
    for m in &s.matrices {
        let mut row = 0;
        for p in m.pages() {
            assert_eq!(s.pages[p].first_row as usize, row);
            row += s.pages[p].rows as usize;
            assert!((s.pages[p].extent_offset | s.pages[p].extent_bytes).is_multiple_of(4096));
            assert!(s.pages[p].padding() as u64 + s.pages[p].bytes <= s.pages[p].extent_bytes);
        }
        assert_eq!(row, m.rows);
    }
    assert_eq!(s.pages[s.sweep_len].layer, Page::TABLE);
    assert_eq!(s.layer_pages(1).end, s.sweep_len);
    assert_eq!(s.head_start, s.matrices[4].pages().start);
}

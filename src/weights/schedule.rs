//! The schedule: every page in the order in which a pass uses it.
//!
//! A page is a run of whole rows of one matrix, the unit of reading, of residency and of arithmetic. The pages of every
//! pass come first, layer 0 to the output head: the cyclic part. Those of experts follow, each of one expert: a pass takes those
//! that its tokens are routed to, at the route point of their layer. Table pages (a token embedding of its own) come last: no pass
//! sweeps over them, rows are taken from them singly.

use crate::order;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gguf::Tensor;
use crate::quant::Format;
use crate::sys::heap;

/// What memory is for, in errors.
const WHAT: &str = "the schedule of pages";

/// Pages are about this large: two reads of the size at which storage is fastest (2 MiB), and some 150 µs of arithmetic.
const PAGE_TARGET: u64 = 4 << 20;
/// Small models get smaller pages, so that their floor is small too.
const MIN_PAGE_TARGET: u64 = 1 << 20;
/// Rows of a page are a multiple of this, so that the kernels' row groups do not straddle pages.
const ROW_GROUP: u64 = 16;

/// When a pass uses a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// In every pass.
    Always { layer: u32 },
    /// In passes of which a token is routed to this expert of the layer, after what its layer always uses.
    Routed { layer: u32, expert: u32 },
    /// A row of it now and then.
    Table,
    /// The same, and it has no pages: it is never held, rows are read from the file.
    Rows,
}

impl Use {
    fn layer(self) -> u32 {
        match self {
            Use::Always { layer } | Use::Routed { layer, .. } => layer,
            Use::Table | Use::Rows => Page::TABLE,
        }
    }

    /// Where its pages stand among the others.
    fn rank(self) -> u32 {
        match self {
            Use::Always { .. } => 0,
            Use::Routed { .. } => 1,
            Use::Table => 2,
            Use::Rows => 3,
        }
    }
}

/// A matrix of the schedule, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixId(pub u32);

/// A weight matrix of `rows` × `columns`, y = W·x has `rows` outputs: a tensor, or some of its rows.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The tensor's.
    pub name: Arc<str>,
    /// Of the tensor's rows.
    pub first_row: u64,
    pub format: Format,
    pub rows: usize,
    pub columns: usize,
    pub row_bytes: usize,
    file: u32,
    /// Absolute offset of its first row.
    offset: u64,
    pages: Range<u32>,
}

impl Matrix {
    /// The pages that hold it, in row order.
    pub fn pages(&self) -> Range<usize> {
        self.pages.start as usize..self.pages.end as usize
    }

    /// Where a row lies: file and absolute offset.
    pub fn row_place(&self, row: usize) -> (usize, u64) {
        (self.file as usize, self.offset + row as u64 * self.row_bytes as u64)
    }
}

/// A run of whole rows of one matrix.
#[derive(Clone, Debug)]
pub struct Page {
    pub matrix: MatrixId,
    /// Layer that uses it; the output head counts with the last layer, tables with none ([`Page::TABLE`]).
    pub layer: u32,
    pub file: u32,
    pub first_row: u32,
    pub rows: u32,
    /// Absolute offset of its first byte.
    pub offset: u64,
    pub bytes: u64,
    /// What is read for it: the smallest aligned stretch around its bytes.
    pub extent_offset: u64,
    pub extent_bytes: u64,
    /// Its expert's number in [`Schedule::experts`]; [`Page::NO_EXPERT`] where it is not an expert's.
    expert: u32,
}

impl Page {
    pub const TABLE: u32 = u32::MAX;
    const NO_EXPERT: u32 = u32::MAX;

    /// Where the page's bytes begin in its extent.
    pub fn padding(&self) -> usize {
        (self.offset - self.extent_offset) as usize
    }

    /// Its expert's number in [`Schedule::experts`].
    pub fn expert(&self) -> Option<usize> {
        (self.expert != Page::NO_EXPERT).then_some(self.expert as usize)
    }
}

/// An expert of a layer: all its matrices.
#[derive(Clone, Debug)]
pub struct Expert {
    pub layer: u32,
    /// Frame bytes of its pages.
    pub extent_bytes: u64,
    pages: Range<u32>,
}

impl Expert {
    /// Its pages, in the order of use.
    pub fn pages(&self) -> Range<usize> {
        self.pages.start as usize..self.pages.end as usize
    }
}

/// Layers whose experts are equally large, so that one can take the frames of another.
#[derive(Clone, Debug)]
pub struct ExpertGroup {
    /// The experts of each layer, by number in [`Schedule::experts`].
    pub layers: Vec<Range<u32>>,
    /// Bytes that hold any one of them.
    pub frame_bytes: u64,
    /// Frame bytes of all of them.
    pub extent_bytes: u64,
}

impl ExpertGroup {
    /// How many experts it has.
    pub fn count(&self) -> usize {
        self.layers.iter().map(|l| l.len()).sum()
    }
}

/// All pages of a model. See the module's description.
#[derive(Debug)]
pub struct Schedule {
    pub matrices: Vec<Matrix>,
    pub pages: Vec<Page>,
    /// How many of `pages` every full pass sweeps over: the cyclic part.
    pub sweep_len: usize,
    /// Where the pages of experts end, which follow the cyclic part; the rest are tables.
    pub routed_end: usize,
    /// Places of the cyclic part before which routed pages are taken, ascending.
    pub route_points: Vec<u32>,
    /// Of how many experts (second) a token is routed to how many (first).
    pub routed_share: (u64, u64),
    /// Where the output head begins, if there is one: a pass without logits ends there.
    pub head_start: usize,
    pub layer_count: u32,
    /// By layer, then by number in the layer.
    pub experts: Vec<Expert>,
    pub expert_groups: Vec<ExpertGroup>,
    /// Pages of each layer.
    layers: Vec<Range<u32>>,
}

impl Schedule {
    /// Pages of layer `layer`; the last layer includes the output head.
    pub fn layer_pages(&self, layer: u32) -> Range<usize> {
        let r = &self.layers[layer as usize];
        r.start as usize..r.end as usize
    }

    pub fn matrix(&self, id: MatrixId) -> &Matrix {
        &self.matrices[id.0 as usize]
    }

    pub fn largest_extent(&self) -> u64 {
        self.pages[..self.routed_end].iter().map(|p| p.extent_bytes).max().unwrap_or(0)
    }

    /// Frame bytes that all pages of the cyclic part need.
    pub fn sweep_bytes(&self) -> u64 {
        self.pages[..self.sweep_len].iter().map(|p| p.extent_bytes).sum()
    }

    /// Frame bytes that all experts need.
    pub fn routed_bytes(&self) -> u64 {
        self.pages[self.sweep_len..self.routed_end].iter().map(|p| p.extent_bytes).sum()
    }

    /// Frame bytes of the experts that one token is routed to.
    pub fn working_set_bytes(&self) -> u64 {
        let (used, of) = self.routed_share;
        (u128::from(self.routed_bytes()) * u128::from(used) / u128::from(of.max(1))) as u64
    }

    /// The number of a matrix's expert in [`Schedule::experts`].
    pub fn expert_of(&self, matrix: MatrixId) -> Option<usize> {
        self.pages.get(self.matrix(matrix).pages().start)?.expert()
    }

    /// Frame bytes that everything a pass takes pages of needs: the cyclic part and all experts.
    pub fn streamable_bytes(&self) -> u64 {
        self.sweep_bytes() + self.routed_bytes()
    }

    /// Frame bytes that the tables need.
    pub fn table_bytes(&self) -> u64 {
        self.pages[self.routed_end..].iter().map(|p| p.extent_bytes).sum()
    }

    /// Frame bytes of the largest layer, without its experts.
    pub fn largest_layer_bytes(&self) -> u64 {
        let bytes = |l: u32| self.pages[self.layer_pages(l)].iter().map(|p| p.extent_bytes).sum();
        (0..self.layer_count).map(bytes).max().unwrap_or(0)
    }

    /// The same with all experts of a layer.
    pub fn largest_layer_with_experts(&self) -> u64 {
        let mut routed = vec![0u64; self.layer_count as usize];
        for page in &self.pages[self.sweep_len..self.routed_end] {
            routed[page.layer as usize] += page.extent_bytes;
        }
        self.largest_layer_bytes() + routed.into_iter().max().unwrap_or(0)
    }

    /// Groups the layers by the sizes of their experts.
    fn group_experts(&mut self) {
        self.experts.shrink_to_fit();
        let mut sizes: Vec<u64> = Vec::new();
        let mut first = 0;
        while first < self.experts.len() {
            let layer = self.experts[first].layer;
            let count = self.experts[first..].iter().take_while(|e| e.layer == layer).count();
            let here = first..first + count;
            let mut size = 0;
            for e in &mut self.experts[here.clone()] {
                let pages = &self.pages[e.pages()];
                e.extent_bytes = pages.iter().map(|p| p.extent_bytes).sum();
                size = size.max(pages.iter().map(|p| p.bytes).sum());
            }
            let i = sizes.iter().position(|&known| known == size).unwrap_or_else(|| {
                sizes.push(size);
                self.expert_groups.push(ExpertGroup { layers: Vec::new(), frame_bytes: 0, extent_bytes: 0 });
                sizes.len() - 1
            });
            let group = &mut self.expert_groups[i];
            let extents = || self.experts[here.clone()].iter().map(|e| e.extent_bytes);
            group.frame_bytes = group.frame_bytes.max(extents().max().unwrap_or(0));
            group.extent_bytes += extents().sum::<u64>();
            group.layers.push(here.start as u32..here.end as u32);
            first += count;
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.pages.capacity() * size_of::<Page>()
            + self.matrices.capacity() * size_of::<Matrix>()
            + self.matrices.iter().filter(|m| m.first_row == 0).map(|m| m.name.len()).sum::<usize>()
            + self.route_points.capacity() * size_of::<u32>()
            + self.layers.capacity() * size_of::<Range<u32>>()
            + self.experts.capacity() * size_of::<Expert>()
            + self.expert_groups.iter().map(|g| size_of::<ExpertGroup>() + g.layers.len() * 8).sum::<usize>()
    }
}

/// Collects the matrices of a model, in any order. Their order of use comes with [`Builder::finish`].
pub struct Builder {
    matrices: Vec<Matrix>,
    starts: Vec<u64>,
}

impl Builder {
    /// `starts`: where the model begins in each of its files.
    pub fn new(starts: Vec<u64>) -> Self {
        Builder { matrices: Vec::new(), starts }
    }

    /// Adds `rows` rows from `first_row` of a checked tensor called `name`, the rows of all its planes counted on, as a
    /// matrix.
    pub fn add(&mut self, name: &Arc<str>, tensor: &Tensor, first_row: u64, rows: u64) -> Result<MatrixId> {
        let columns = tensor.dims[0];
        let too_large = || Error::unsupported(format!("{}: {columns} × {rows} is too large", tensor.name));
        let row_bytes = tensor.format.row_bytes(columns as usize).ok_or_else(too_large)?;
        let id = MatrixId(self.matrices.len() as u32);
        let rows32 = u32::try_from(rows).map_err(|_| too_large())?;
        let matrix = Matrix {
            name: name.clone(),
            first_row,
            format: tensor.format,
            rows: rows32 as usize,
            columns: columns as usize,
            row_bytes,
            file: tensor.file,
            offset: self.starts[tensor.file as usize] + tensor.offset + first_row * row_bytes as u64,
            pages: 0..0,
        };
        heap::push(&mut self.matrices, matrix, WHAT)?;
        Ok(id)
    }

    /// A matrix that was added. It has no pages yet.
    pub fn matrix(&self, id: MatrixId) -> &Matrix {
        &self.matrices[id.0 as usize]
    }

    /// Cuts the matrices into pages and lays these in the order of `uses`, which names every matrix once. `alignment` is
    /// that of the sources; `head` is the last matrix of a pass that leaves logits.
    ///
    /// # Panics
    /// If `uses` does not name every matrix once.
    pub fn finish(
        self,
        uses: &[(MatrixId, Use)],
        layer_count: u32,
        head: Option<MatrixId>,
        alignment: u64,
    ) -> Result<Schedule> {
        let bytes = |m: &Matrix| m.rows as u64 * m.row_bytes as u64;
        let paged = uses.iter().filter(|(_, when)| *when != Use::Rows);
        let total: u64 = paged.map(|(id, _)| bytes(&self.matrices[id.0 as usize])).sum();
        let target = (total / 128).clamp(MIN_PAGE_TARGET, PAGE_TARGET);
        let mut schedule = Schedule {
            matrices: self.matrices,
            pages: Vec::new(),
            sweep_len: 0,
            routed_end: 0,
            route_points: Vec::new(),
            routed_share: (1, 1),
            head_start: usize::MAX,
            layer_count,
            experts: Vec::new(),
            expert_groups: Vec::new(),
            layers: heap::filled(0..0, layer_count as usize, WHAT)?,
        };
        assert_eq!(uses.len(), schedule.matrices.len(), "a schedule has every matrix once");
        // The expert that pages are being laid for: its layer and number.
        let mut expert = None;
        // Each kind stays in the order of use.
        let mut order = heap::collected(0..uses.len(), WHAT)?;
        order::sort_indices(&mut order, &mut |a, b| uses[a].1.rank().cmp(&uses[b].1.rank()));
        for (id, when) in order.into_iter().map(|i| uses[i]) {
            let m = &mut schedule.matrices[id.0 as usize];
            assert!(m.pages.is_empty(), "a schedule has every matrix once: {}", m.name);
            if when == Use::Rows {
                continue;
            }
            let layer = when.layer();
            let first = schedule.pages.len() as u32;
            if head == Some(id) {
                schedule.head_start = first as usize;
            }
            if let Use::Routed { layer, expert: number } = when {
                if expert.replace((layer, number)) != Some((layer, number)) {
                    heap::push(&mut schedule.experts, Expert { layer, extent_bytes: 0, pages: first..first }, WHAT)?;
                }
            } else {
                expert = None;
            }
            let count = bytes(m).div_ceil(target).max(1);
            let rows_per_page = (m.rows as u64).div_ceil(count).next_multiple_of(ROW_GROUP);
            let mut row = 0;
            while row < m.rows as u64 {
                let rows = rows_per_page.min(m.rows as u64 - row);
                let offset = m.offset + row * m.row_bytes as u64;
                let end = offset + rows * m.row_bytes as u64;
                let extent_offset = offset & !(alignment - 1);
                let page = Page {
                    matrix: id,
                    layer,
                    file: m.file,
                    first_row: row as u32,
                    rows: rows as u32,
                    offset,
                    bytes: end - offset,
                    extent_offset,
                    extent_bytes: end.next_multiple_of(alignment) - extent_offset,
                    expert: expert.map_or(Page::NO_EXPERT, |_| schedule.experts.len() as u32 - 1),
                };
                heap::push(&mut schedule.pages, page, WHAT)?;
                row += rows;
            }
            m.pages = first..schedule.pages.len() as u32;
            if let (Some(_), Some(expert)) = (expert, schedule.experts.last_mut()) {
                expert.pages.end = m.pages.end;
            }
            if when != Use::Table {
                schedule.routed_end = schedule.pages.len();
            }
            if let Use::Always { .. } = when {
                schedule.sweep_len = schedule.pages.len();
                let l = &mut schedule.layers[layer as usize];
                *l = if l.start == l.end { m.pages.clone() } else { l.start..m.pages.end };
            }
        }
        let mut swept = 0;
        for (id, when) in uses {
            match when {
                Use::Always { .. } => swept = schedule.matrices[id.0 as usize].pages.end,
                Use::Routed { .. } if schedule.route_points.last() != Some(&swept) => schedule.route_points.push(swept),
                Use::Routed { .. } | Use::Table | Use::Rows => {}
            }
        }
        schedule.head_start = schedule.head_start.min(schedule.sweep_len);
        schedule.group_experts();
        schedule.pages.shrink_to_fit();
        schedule.matrices.shrink_to_fit();
        if schedule.largest_extent() > u32::MAX as u64 {
            return Err(Error::unsupported("a single row of a weight matrix exceeds 4 GiB"));
        }
        Ok(schedule)
    }
}

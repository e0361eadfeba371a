//! Low-rank adapters: what is added to the products of a model's matrices, y += scale · B·(A·x).

use std::sync::Arc;

use super::program::{Program, Step, Weight};
use crate::error::{Error, Result};
use crate::kernel::matmul::{Form, activation_bytes};
use crate::quant::Format;
use crate::sys::heap;
use crate::sys::sync::Mutex;
use crate::weights::frames::Memory;
use crate::weights::{MatrixId, Schedule};

/// Rows of a chunk are taken in blocks of at most so many, and of so many that their products take no more than so many
/// numbers: the memory for them is small, and results do not depend on it.
const BLOCK_ROWS: usize = 16;
const BLOCK_NUMBERS: usize = 1 << 18;

/// A matrix of an adapter in its memory.
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    pub format: Format,
    pub rows: usize,
    pub columns: usize,
    pub row_bytes: usize,
    /// Of its first row.
    pub offset: usize,
}

/// What is added to the products of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub matrix: MatrixId,
    /// [rank][columns]
    pub a: Factor,
    /// [rows][rank]
    pub b: Factor,
    /// alpha / rank.
    pub factor: f32,
    /// Of a table rows are taken: A has a row of the rank for each of the table's, x is what it has for a token.
    pub table: bool,
}

/// The matrices of an adapter.
pub struct AdapterWeights {
    /// By matrix.
    pairs: Vec<Pair>,
    memory: Memory,
}

impl AdapterWeights {
    pub fn new(mut pairs: Vec<Pair>, memory: Memory) -> AdapterWeights {
        pairs.sort_unstable_by_key(|pair| pair.matrix.0);
        AdapterWeights { pairs, memory }
    }

    pub fn pair(&self, matrix: MatrixId) -> Option<&Pair> {
        let at = self.pairs.binary_search_by_key(&matrix.0, |pair| pair.matrix.0).ok()?;
        Some(&self.pairs[at])
    }

    /// Frees the matrices.
    pub fn clear(&mut self) {
        self.pairs.clear();
        if let Ok(empty) = Memory::new(0) {
            self.memory = empty;
        }
    }

    /// The rows of a matrix of it.
    pub fn bytes(&self, factor: &Factor) -> &[u8] {
        &self.memory.bytes()[factor.offset..][..factor.rows * factor.row_bytes]
    }
}

/// Bytes that the weights of so many pairs take beside what the file holds.
pub fn table_bytes(pairs: usize) -> u64 {
    (pairs * size_of::<Pair>() + size_of::<AdapterWeights>()) as u64
}

/// The adapters of a session, and the memory in which their products are made.
pub struct AdapterSet {
    /// In the order in which they are added, with their scales.
    adapters: Vec<(Arc<AdapterWeights>, f32)>,
    work: Mutex<Memory>,
}

/// Parts of the memory for one pair, in bytes.
pub struct Work {
    /// Rows that are taken together.
    pub rows: usize,
    /// Where inputs end, their form, what A makes of them, its form, and what B makes of it.
    pub ends: [usize; 5],
}

impl Work {
    pub fn of(pair: &Pair) -> Work {
        let (a, b) = (&pair.a, &pair.b);
        if pair.table {
            let inner = (a.columns * size_of::<f32>()).next_multiple_of(64);
            let form = activation_bytes(Form::of(b.format), b.columns, 1);
            let products = (b.rows * size_of::<f32>()).next_multiple_of(64);
            return Work { rows: 1, ends: [0, 0, inner, inner + form, inner + form + products] };
        }
        let rows = (BLOCK_NUMBERS / a.columns.max(b.rows)).clamp(1, BLOCK_ROWS);
        let numbers = |width: usize| (rows * width * size_of::<f32>()).next_multiple_of(64);
        let form = |factor: &Factor| activation_bytes(Form::of(factor.format), factor.columns, rows);
        let mut end = 0;
        let ends = [numbers(a.columns), form(a), numbers(a.rows), form(b), numbers(b.rows)].map(|bytes| {
            end += bytes;
            end
        });
        Work { rows, ends }
    }

    fn bytes(&self) -> usize {
        self.ends[4]
    }
}

impl AdapterSet {
    /// Bytes that [`AdapterSet::new`] takes.
    pub fn memory_bytes(adapters: &[(Arc<AdapterWeights>, f32)]) -> u64 {
        Memory::taken_by(Self::work_bytes(adapters)) + size_of_val(adapters) as u64
    }

    fn work_bytes(adapters: &[(Arc<AdapterWeights>, f32)]) -> u64 {
        let pairs = adapters.iter().flat_map(|(weights, _)| &weights.pairs);
        pairs.map(|pair| Work::of(pair).bytes() as u64).max().unwrap_or(0)
    }

    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn new(adapters: &[(Arc<AdapterWeights>, f32)]) -> Result<Arc<AdapterSet>> {
        let work = Memory::of(Self::work_bytes(adapters), "the products of adapters")?;
        let adapters = heap::collected(adapters.iter().cloned(), "a session's adapters")?;
        Ok(Arc::new(AdapterSet { adapters, work: Mutex::new(work) }))
    }

    pub fn adapts(&self, matrix: MatrixId) -> bool {
        self.adapters.iter().any(|(weights, _)| weights.pair(matrix).is_some())
    }

    /// What is added to the products of a matrix, in order, each with its factor.
    pub fn of(&self, matrix: MatrixId) -> impl Iterator<Item = (&AdapterWeights, &Pair, f32)> {
        self.adapters.iter().filter_map(move |(weights, scale)| {
            let pair = weights.pair(matrix)?;
            Some((&**weights, pair, scale * pair.factor))
        })
    }

    /// The memory to make products in.
    pub fn work(&self) -> &Mutex<Memory> {
        &self.work
    }
}

impl std::fmt::Debug for AdapterSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} adapters", self.adapters.len())
    }
}

/// What can be added to of a tensor.
pub enum Adaptable {
    /// The products of all of it, or of its parts.
    Products(Vec<MatrixId>),
    /// The rows of a table of embeddings.
    Table(MatrixId),
}

/// What can be added to of a tensor of the model.
///
/// # Errors
/// `UNSUPPORTED`: passes use the tensor in another way. `NOT_FOUND`: the model has no such matrix.
pub fn adaptable(program: &Program, schedule: &Schedule, tensor: &str) -> Result<Adaptable> {
    let named = |id: &MatrixId| &*schedule.matrix(*id).name == tensor;
    let mut found: Vec<MatrixId> = Vec::new();
    let mut embedded = None;
    for step in &program.steps {
        let ids = match step {
            Step::Multiply { weight: Weight::Fixed(_), .. } => step.matrices(),
            Step::MultiplyThree { .. } | Step::MultiplyGated { .. } | Step::Head(_) => step.matrices(),
            Step::Embed(embed) => {
                embedded = embedded.or(Some(embed.table).filter(named));
                continue;
            }
            _ => continue,
        };
        let fresh = ids.into_iter().filter(named).filter(|id| !found.contains(id)).collect::<Vec<_>>();
        found.extend(fresh);
    }
    let count = (0..schedule.matrices.len() as u32).map(MatrixId).filter(named).count();
    match (embedded, found.len()) {
        _ if count == 0 => Err(Error::not_found(format!("the model has no matrix {tensor:?}"))),
        (Some(table), 0) => Ok(Adaptable::Table(table)),
        (Some(_), _) => Err(Error::unsupported(format!(
            "adapters of {tensor:?} are not supported where it is the output head as well"
        ))),
        (None, products) if products == count => Ok(Adaptable::Products(found)),
        _ => Err(Error::unsupported(format!(
            "adapters of {tensor:?} are not supported: of experts, latent attention, classifiers and positions there are none"
        ))),
    }
}

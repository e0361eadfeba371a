//! What each layer of a model remembers, in which form, and where in a sequence's memory it lies.

use super::recurrent::{StateLayer, States};
use crate::arch::{Description, Heads, Projection};
use crate::error::{Error, Result};
use crate::kernel::attention::{BLOCK, Q8_0_BLOCK, Q8_0_BYTES};

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// Half floats.
    #[default]
    F16,
    /// Signed bytes in blocks of 32 with a scale, at 17/32 of the memory of half floats. Results differ a little. Heads
    /// must be whole blocks. Models whose passes are sequences of their own keep half floats.
    Q8_0,
}

impl KvType {
    /// Half floats' room that a row of `dim` elements takes.
    fn row_words(self, dim: usize) -> usize {
        match self {
            KvType::F16 => dim,
            KvType::Q8_0 => dim / Q8_0_BLOCK * (Q8_0_BYTES / 2),
        }
    }
}

/// What of the earlier tokens' keys and values a layer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keys and values of all positions.
    Full,
    /// Keys and values of the positions that later tokens can see: the last `window - 1`, and some before them.
    Windowed { window: usize },
    /// One key for all heads, of which the value is a part: the elements from `value_start` on.
    Compressed { value_start: usize },
}

/// The memory of a layer. Keys are [heads][capacity] rows; then the values, where they are not a part of the keys.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub kind: Kind,
    pub kv_type: KvType,
    /// Positions it has room for.
    pub capacity: usize,
    /// The absolute position of the first row.
    pub first: usize,
    /// Where it begins, in half floats.
    pub start: usize,
    pub heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
}

/// The keys or the values of a layer, [heads][capacity][row_words], in half floats.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub start: usize,
    pub heads: usize,
    pub capacity: usize,
    pub row_words: usize,
}

impl Part {
    pub fn words(&self) -> usize {
        self.heads * self.capacity * self.row_words
    }

    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.words()
    }

    /// Where rows of a head lie, by their places.
    pub fn rows(&self, head: usize, places: std::ops::Range<usize>) -> std::ops::Range<usize> {
        debug_assert!(places.end <= self.capacity);
        let at = |place| self.start + (head * self.capacity + place) * self.row_words;
        at(places.start)..at(places.end)
    }
}

impl Layer {
    pub fn keys(&self) -> Part {
        let row_words = self.kv_type.row_words(self.key_dim);
        Part { start: self.start, heads: self.heads, capacity: self.capacity, row_words }
    }

    /// None: they are a part of the keys.
    pub fn values(&self) -> Option<Part> {
        if let Kind::Compressed { .. } = self.kind {
            return None;
        }
        let row_words = self.kv_type.row_words(self.value_dim);
        Some(Part { start: self.keys().range().end, heads: self.heads, capacity: self.capacity, row_words })
    }

    pub fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        [Some(self.keys()), self.values()].into_iter().flatten()
    }

    /// Half floats' room of one position.
    pub fn position_words(&self) -> usize {
        self.parts().map(|part| part.heads * part.row_words).sum()
    }

    /// The first position that the token at `position` may see.
    pub fn first_seen(&self, position: usize) -> usize {
        match self.kind {
            Kind::Windowed { window } => position.saturating_sub(window - 1),
            Kind::Full | Kind::Compressed { .. } => 0,
        }
    }
}

/// The memory of a sequence with room for `context` tokens: its layers, and their size.
#[derive(Clone, Debug)]
pub struct MemoryLayout {
    /// Those of the model's layers that have attention.
    pub layers: Vec<Layer>,
    /// Those that are recurrent. A layer can be both.
    pub states: Vec<StateLayer>,
    pub context: usize,
    /// Half floats' room of all layers.
    pub words: u64,
    /// The most that a snapshot of what passes may drop takes, in half floats' room.
    pub undo_words: u64,
}

impl MemoryLayout {
    /// A layer with a window keeps the window, rounded up to a block of attention, and room for a chunk, where that is
    /// less than the context.
    ///
    /// # Errors
    /// `UNSUPPORTED`: heads are not whole blocks of the type.
    pub fn new(d: &Description, context: usize, chunk: usize, kv_type: KvType) -> Result<MemoryLayout> {
        let kv_type = if d.causal { kv_type } else { KvType::F16 };
        let room = chunk.min(context).next_multiple_of(BLOCK);
        let (mut words, mut undo_words) = (0u64, 0u64);
        let mut layers = Vec::with_capacity(d.cached_layers());
        for attention in d.attention().take(d.cached_layers()) {
            let Heads { kv_count: heads, key_dim, value_dim, .. } = attention.heads;
            let kind = match (&attention.projection, attention.window) {
                (Projection::Latent(latent), None) => Kind::Compressed { value_start: latent.rotated },
                (_, Some(window)) if d.causal => Kind::Windowed { window },
                _ => Kind::Full,
            };
            if kv_type == KvType::Q8_0 {
                whole_blocks(key_dim, "elements of a key")?;
                whole_blocks(value_dim, "elements of a value")?;
                if let Kind::Compressed { value_start } = kind {
                    whole_blocks(value_start, "rotated elements of a key")?;
                }
            }
            let capacity = match kind {
                Kind::Windowed { window } => {
                    window.checked_next_multiple_of(BLOCK).map_or(context, |w| w.saturating_add(room).min(context))
                }
                Kind::Full | Kind::Compressed { .. } => context,
            };
            let start = usize::try_from(words).unwrap_or(usize::MAX);
            let layer = Layer { kind, kv_type, capacity, first: 0, start, heads, key_dim, value_dim };
            let per_position = Layer { start: 0, capacity: 0, ..layer }.position_words() as u64;
            words = words.saturating_add(per_position.saturating_mul(capacity as u64));
            if capacity < context {
                undo_words = undo_words.saturating_add(per_position.saturating_mul(layer.first_kept(context) as u64));
            }
            layers.push(layer);
        }
        let (mut states, mut end) = (Vec::new(), 0usize);
        for recurrent in d.layers.iter().filter_map(|l| l.recurrent.as_ref()) {
            let start = end;
            end = end.saturating_add(recurrent.state_len());
            states.push(StateLayer(start..end));
        }
        states.shrink_to_fit();
        Ok(MemoryLayout { layers, states, context, words, undo_words })
    }

    /// That of no layers.
    pub fn none() -> MemoryLayout {
        MemoryLayout { layers: Vec::new(), states: Vec::new(), context: 0, words: 0, undo_words: 0 }
    }

    /// All memory of a sequence: what the layers keep, the tables of the layers, and what a pass keeps of windows and
    /// states before it, so that it can be undone.
    pub fn bytes(&self) -> u64 {
        // Of a layer, and of its positions in what undoes a pass.
        let table = self.layers.capacity() * (size_of::<Layer>() + size_of::<std::ops::Range<usize>>());
        let tables = table + self.states.capacity() * size_of::<StateLayer>();
        let positions = self.words.saturating_add(self.undo_words).saturating_mul(2);
        positions.saturating_add(States::bytes(&self.states)).saturating_add(tables as u64)
    }

    /// Whether a layer may drop positions.
    pub fn drops(&self, layer: &Layer) -> bool {
        layer.capacity < self.context
    }
}

impl Layer {
    /// How many of `position` positions a later token can see at most.
    fn first_kept(&self, position: usize) -> usize {
        position - self.first_seen(position)
    }
}

fn whole_blocks(elements: usize, what: &str) -> Result<()> {
    if elements.is_multiple_of(Q8_0_BLOCK) {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "a q8_0 cache holds blocks of {Q8_0_BLOCK} elements, and this model has {elements} {what}: use f16"
    )))
}

//! The form of a state, as the description in `state` has it: what its parts say, checked on their own.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::exec::memory::{Kind, KvType, Layer};
use crate::kernel::attention::{Q8_0_BLOCK, Q8_0_BYTES};

const MAGIC: &[u8; 8] = b"LAYRSESS";
/// With the tokens of the sequence.
const VERSION: u32 = 3;
/// Without: what is written too where they are not known.
const VERSION_WITHOUT_TOKENS: u32 = 2;
pub const HEADER_BYTES: usize = 72;
pub const LAYER_BYTES: usize = 16;
pub const CHECKSUM_BYTES: usize = 16;

/// What a state begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The tokens of the sequence are there.
    pub has_tokens: bool,
    pub rotations: u32,
    pub fingerprint: u128,
    /// Layers, heads, elements of a key, of a value, vocabulary.
    pub sizes: [u32; 5],
    pub logit_rows: u32,
    pub tokens: u64,
}

impl Header {
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        let version = if self.has_tokens { VERSION } else { VERSION_WITHOUT_TOKENS };
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.rotations.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.fingerprint.to_le_bytes());
        for (to, size) in bytes[32..52].chunks_exact_mut(4).zip(self.sizes) {
            to.copy_from_slice(&size.to_le_bytes());
        }
        bytes[52..56].copy_from_slice(&self.logit_rows.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.tokens.to_le_bytes());
        let sum = xxh3_64(&bytes[..64]);
        bytes[64..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Fails with `FORMAT`, and with `UNSUPPORTED` for another version.
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Header> {
        if &bytes[..8] != MAGIC {
            return Err(Error::format("not the state of a session: it does not begin with \"LAYRSESS\""));
        }
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let (found, stated) = (xxh3_64(&bytes[..64]), long(64));
        if found != stated {
            return Err(Error::format(format!(
                "damaged: the header's checksum is {found:016x}, it says {stated:016x}"
            )));
        }
        // Every version has the checksum at this place, so that a damaged one is not taken for another version.
        let version = number(8);
        if !matches!(version, VERSION | VERSION_WITHOUT_TOKENS) {
            let by = if version < VERSION { "an older" } else { "a newer" };
            return Err(Error::unsupported(format!(
                "written by {by} version: the state of a session in version {version} of its form; this library reads versions {VERSION_WITHOUT_TOKENS} and {VERSION}"
            )));
        }
        let header = Header {
            has_tokens: version == VERSION,
            rotations: number(12),
            fingerprint: u128::from_le_bytes(bytes[16..32].try_into().expect("sixteen bytes")),
            sizes: [32, 36, 40, 44, 48].map(number),
            logit_rows: number(52),
            tokens: long(56),
        };
        if header.logit_rows > 1 || (header.logit_rows == 1 && header.tokens == 0) {
            return Err(Error::format(format!("{} rows of logits after {} tokens", header.logit_rows, header.tokens)));
        }
        Ok(header)
    }

    /// Bytes of the tokens of the sequence. None: more than a file can have.
    pub fn token_bytes(&self) -> Option<u64> {
        if self.has_tokens { self.tokens.checked_mul(size_of::<i32>() as u64) } else { Some(0) }
    }

    /// Bytes of a state but its tokens and its layers' rows.
    pub fn bytes_without_rows(&self) -> u64 {
        let [layers, .., vocab] = self.sizes.map(u64::from);
        (HEADER_BYTES + CHECKSUM_BYTES) as u64
            + layers * LAYER_BYTES as u64
            + u64::from(self.logit_rows) * vocab * size_of::<f32>() as u64
    }
}

/// What a state says of a layer's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerEntry {
    kind: u8,
    kv_type: u8,
    /// 0: none. Of a recurrent state the numbers that it has.
    window: u32,
    /// The position of its first row.
    pub first: u64,
}

const FULL: u8 = 0;
const WINDOWED: u8 = 1;
const COMPRESSED: u8 = 2;
const RECURRENT: u8 = 3;
const F16: u8 = 0;
/// 1 was this without the rotation.
const Q8_0: u8 = 2;

impl LayerEntry {
    pub fn of(layer: &Layer) -> LayerEntry {
        let (kind, window) = match layer.kind {
            Kind::Full => (FULL, 0),
            Kind::Windowed { window } => (WINDOWED, u32::try_from(window).unwrap_or(u32::MAX)),
            Kind::Compressed { .. } => (COMPRESSED, 0),
        };
        let kv_type = match layer.kv_type {
            KvType::F16 => F16,
            KvType::Q8_0 => Q8_0,
        };
        LayerEntry { kind, kv_type, window, first: layer.first as u64 }
    }

    /// Of a recurrent state of so many numbers.
    pub fn of_state(numbers: usize) -> LayerEntry {
        LayerEntry { kind: RECURRENT, kv_type: F16, window: u32::try_from(numbers).unwrap_or(u32::MAX), first: 0 }
    }

    pub fn to_bytes(self) -> [u8; LAYER_BYTES] {
        let mut bytes = [0; LAYER_BYTES];
        (bytes[0], bytes[1]) = (self.kind, self.kv_type);
        bytes[4..8].copy_from_slice(&self.window.to_le_bytes());
        bytes[8..].copy_from_slice(&self.first.to_le_bytes());
        bytes
    }

    /// The entry of a layer, and the bytes of its rows; None: more than a file can have. The heads are those of `own`,
    /// or what the header says.
    ///
    /// # Errors
    /// `FORMAT`.
    pub fn from_bytes(
        bytes: &[u8; LAYER_BYTES],
        i: u32,
        header: &Header,
        own: Option<&Layer>,
    ) -> Result<(LayerEntry, Option<u64>)> {
        let window = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
        let first = u64::from_le_bytes(bytes[8..].try_into().expect("eight bytes"));
        let entry = LayerEntry { kind: bytes[0], kv_type: bytes[1], window, first };
        let known = entry.kind <= RECURRENT && matches!(entry.kv_type, F16 | Q8_0) && bytes[2..4] == [0, 0];
        let is_state = entry.kind == RECURRENT;
        if !known || (entry.kind == WINDOWED || is_state) != (window > 0) || is_state && entry.kv_type != F16 {
            return Err(Error::format(format!("layer {i}: an unknown kind of memory: {:02x?}", &bytes[..8])));
        }
        let windowed = entry.kind == WINDOWED;
        let seen = if windowed { header.tokens.saturating_sub(u64::from(window) - 1) } else { 0 };
        if first > seen {
            return Err(Error::format(format!(
                "layer {i}: rows from position {first} on, and what follows {} tokens sees those from {seen} on",
                header.tokens
            )));
        }
        if is_state {
            let numbers = if header.tokens > 0 { u64::from(window) } else { 0 };
            return Ok((entry, Some(numbers * size_of::<f32>() as u64)));
        }
        let [_, heads, key, value, _] = header.sizes.map(u64::from);
        let [heads, key, value] =
            own.map_or([heads, key, value], |l| [l.heads, l.key_dim, l.value_dim].map(|n| n as u64));
        let value = if entry.kind == COMPRESSED { 0 } else { value };
        let row_bytes = |elements: u64| match entry.kv_type {
            F16 => elements * 2,
            _ => elements / Q8_0_BLOCK as u64 * Q8_0_BYTES as u64,
        };
        let per_position = heads.checked_mul(row_bytes(key) + row_bytes(value));
        Ok((entry, per_position.and_then(|n| n.checked_mul(header.tokens - first))))
    }

    /// Fails where a session keeps the layer otherwise.
    pub fn check(&self, i: usize, own: LayerEntry) -> Result<()> {
        let own = LayerEntry { first: self.first, ..own };
        if *self == own {
            return Ok(());
        }
        let name = |entry: LayerEntry| {
            if entry.kind == RECURRENT {
                return format!("a recurrent state of {} numbers", entry.window);
            }
            let kind = ["all keys and values", "a window of keys and values", "compressed keys and values"];
            let window = if entry.window > 0 { format!(" of {} positions", entry.window) } else { String::new() };
            format!("{}{window} as {}", kind[entry.kind as usize], if entry.kv_type == F16 { "f16" } else { "q8_0" })
        };
        Err(Error::invalid(format!(
            "the state of a session with another kind of memory: layer {i} keeps {}, here it keeps {}",
            name(*self),
            name(own)
        )))
    }
}

//! The hyper-parameters of a file, whose keys begin with the architecture's name.
//!
//! A key that nobody reads may change what the model computes, so [`Keys::check_unread`] refuses a file that has one,
//! unless it is known not to change results.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::gguf::{Array, Metadata, Value};
use crate::operations::Scaling;

/// When a key that no description reads leaves the results as they are.
enum Harmless {
    Always,
    /// Where the value is 0 or false: the feature it belongs to is off.
    WhenZero,
}
use Harmless::{Always, WhenZero};

/// Keys that no description reads, without the architecture's name. Those of parts that a text pass does not run are
/// known by [`OTHER_PARTS`].
const HARMLESS: &[(&str, Harmless)] = &[
    // Sizes that the tensors state.
    ("vocab_size", Always),
    ("attention.kv_lora_rank", Always),
    ("token_type_count", Always),
    ("classifier.output_labels", Always),
    // Layers that pictures are added to.
    ("n_deepstack_layers", Always),
    // What the host chooses, and notes of the converter.
    ("pooling_type", Always),
    ("tensor_data_layout", Always),
    ("rope.scaling.finetuned", Always),
    ("rope.scale_linear", WhenZero),
    ("attention.clamp_kqv", WhenZero),
    ("attention.max_alibi_bias", WhenZero),
    ("attention.temperature_scale", WhenZero),
    ("attention.temperature_length", WhenZero),
    ("attention.sliding_window", WhenZero),
    // Its matrices tell whether queries are compressed.
    ("attention.q_lora_rank", Always),
    ("attention.shared_kv_layers", WhenZero),
    ("ssm.dt_b_c_rms", WhenZero),
    ("expert_count", WhenZero),
    ("expert_group_count", WhenZero),
    ("expert_group_used_count", WhenZero),
    ("swin_norm", WhenZero),
];

/// How the keys of vision and audio towers begin that some converters put beside the text model.
const OTHER_PARTS: &[&str] = &["vision.", "audio.", "mm."];

pub struct Keys<'a> {
    metadata: &'a Metadata,
    family: &'a str,
    /// Keys that were asked for.
    read: RefCell<HashSet<String>>,
}

impl<'a> Keys<'a> {
    pub fn new(metadata: &'a Metadata, family: &'a str) -> Keys<'a> {
        Keys { metadata, family, read: RefCell::default() }
    }

    /// The whole name of a key, which counts as read from now on.
    fn key(&self, part: &str) -> String {
        let key = format!("{}.{part}", self.family);
        self.read.borrow_mut().insert(key.clone());
        key
    }

    pub fn has(&self, part: &str) -> bool {
        self.metadata.get(&self.key(part)).is_some()
    }

    /// Counts keys as read that have no effect in this model.
    pub fn ignore(&self, parts: &[&str]) {
        parts.iter().for_each(|part| {
            self.key(part);
        });
    }

    /// Refuses a file with a key of its architecture that was not read and may change what the model computes.
    ///
    /// # Errors
    /// `UNSUPPORTED` names the key and its value.
    pub fn check_unread(&self) -> Result<()> {
        let read = self.read.borrow();
        for (key, value) in &self.metadata.entries {
            let Some(part) = key.strip_prefix(self.family).and_then(|rest| rest.strip_prefix('.')) else { continue };
            let harmless = HARMLESS.iter().any(|(name, when)| match when {
                Always => *name == part,
                WhenZero => *name == part && is_zero(value),
            });
            if !harmless && !read.contains(key) && !OTHER_PARTS.iter().any(|prefix| part.starts_with(prefix)) {
                return Err(Error::unsupported(format!(
                    "metadata key {key:?} ({}) is not built in, and may change what the model computes",
                    value.describe()
                )));
            }
        }
        Ok(())
    }

    /// A number that is not 0.
    ///
    /// # Errors
    /// `FORMAT`: missing, 0, or no number; `UNSUPPORTED`: an array whose values differ.
    pub fn count(&self, part: &str) -> Result<usize> {
        match self.number_or(part, None)? {
            0 => Err(Error::format(format!("metadata key {:?} is 0", self.key(part)))),
            n => Ok(n),
        }
    }

    /// A number that is not 0, or what stands for it where there is none.
    pub fn count_or(&self, part: &str, default: usize) -> Result<usize> {
        if self.has(part) { self.count(part) } else { Ok(default) }
    }

    /// A number; 0 where there is none.
    pub fn number(&self, part: &str) -> Result<usize> {
        self.number_or(part, Some(0))
    }

    fn number_or(&self, part: &str, default: Option<usize>) -> Result<usize> {
        let key = self.key(part);
        match (self.metadata.get(&key), default) {
            (Some(Value::Array(values)), _) => {
                let first = element(values, &key, 0)?;
                for i in 1..values.len() {
                    let other = element(values, &key, i)?;
                    if other != first {
                        return Err(Error::unsupported(format!(
                            "metadata key {key:?}: {first} for layer 0 and {other} for layer {i}; layers that differ in it are not built in"
                        )));
                    }
                }
                Ok(first)
            }
            (None, Some(default)) => Ok(default),
            _ => Ok(self.metadata.require_u32(&key)? as usize),
        }
    }

    /// The number of one layer, where each layer may have its own; `default` where there is none.
    pub fn number_at(&self, part: &str, layer: usize, default: usize) -> Result<usize> {
        let key = self.key(part);
        match self.metadata.get(&key) {
            Some(Value::Array(values)) => element(values, &key, layer),
            _ => self.number_or(part, Some(default)),
        }
    }

    /// A number that is the same for all layers that have one other than 0, and not 0.
    pub fn count_but_zeros(&self, part: &str, default: Option<usize>) -> Result<usize> {
        let key = self.key(part);
        let Some(Value::Array(values)) = self.metadata.get(&key) else {
            return match default {
                Some(default) => self.count_or(part, default),
                None => self.count(part),
            };
        };
        let mut found = None;
        for i in 0..values.len() {
            match (element(values, &key, i)?, found) {
                (0, _) => {}
                (n, Some(first)) if n != first => {
                    return Err(Error::unsupported(format!(
                        "metadata key {key:?}: {first} for one layer and {n} for layer {i}; layers that differ in it are not built in"
                    )));
                }
                (n, _) => found = Some(n),
            }
        }
        // No layer has attention.
        Ok(found.or(default).unwrap_or(1))
    }

    /// The number of one layer, where each layer may have its own; 0 is refused.
    pub fn count_at(&self, part: &str, layer: usize) -> Result<usize> {
        let key = self.key(part);
        let Some(Value::Array(values)) = self.metadata.get(&key) else { return self.count(part) };
        match element(values, &key, layer)? {
            0 => Err(Error::format(format!("metadata key {key:?} is 0 for layer {layer}"))),
            n => Ok(n),
        }
    }

    /// The number of one layer, where the file has an array of them.
    pub fn float_at(&self, part: &str, layer: usize) -> Result<Option<f32>> {
        let key = self.key(part);
        match self.metadata.get(&key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(values))) if layer < values.len() => Ok(Some(values[layer])),
            Some(_) => Err(Error::format(format!("metadata key {key:?} has no number for layer {layer}"))),
        }
    }

    /// For each of the layers whether it has a sliding window, where the file says so by an array.
    pub fn flags(&self, part: &str, layers: usize) -> Result<Option<Vec<bool>>> {
        let key = self.key(part);
        let Some(Value::Array(values)) = self.metadata.get(&key) else { return Ok(None) };
        let flag = |i| match values {
            Array::Bool(flags) => flags.get(i).copied(),
            numbers => numbers.integer(i).map(|n| n != 0),
        };
        let missing = |i| Error::format(format!("metadata key {key:?} has no flag for layer {i}"));
        (0..layers).map(|i| flag(i).ok_or_else(|| missing(i))).collect::<Result<_>>().map(Some)
    }

    pub fn float(&self, part: &str) -> Result<Option<f32>> {
        let key = self.key(part);
        match self.metadata.get_f32(&key)? {
            Some(x) if !x.is_finite() => Err(Error::format(format!("metadata key {key:?} is {x}"))),
            x => Ok(x),
        }
    }

    /// A number whose absence is also written as 0.
    pub fn factor(&self, part: &str) -> Result<Option<f32>> {
        Ok(self.float(part)?.filter(|&x| x != 0.0))
    }

    pub fn require_float(&self, part: &str) -> Result<f32> {
        self.float(part)?.ok_or_else(|| Error::format(format!("metadata key {:?} is missing", self.key(part))))
    }

    pub fn text(&self, part: &str) -> Result<Option<&str>> {
        self.metadata.get_str(&self.key(part))
    }

    pub fn flag(&self, part: &str, default: bool) -> Result<bool> {
        Ok(self.metadata.get_bool(&self.key(part))?.unwrap_or(default))
    }

    /// How a file says that its angles are scaled; a factor without a type means linear.
    pub fn scaling(&self, context: u32) -> Result<Scaling> {
        // The second is the name of older files.
        let factor = match self.factor("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.factor("rope.scale_linear")?,
        };
        let factor = factor.map(f64::from);
        let magnitude = self.factor("rope.scaling.attn_factor")?.map(f64::from);
        let original = self.count_or("rope.scaling.original_context_length", context as usize)?;
        let kind = self.metadata.get_str(&self.key("rope.scaling.type"))?;
        match (kind, factor, magnitude) {
            (Some("yarn"), factor, magnitude) => {
                let mut scaling = Scaling::yarn(factor.unwrap_or(1.0), original as u32);
                if let Scaling::Yarn { beta_fast, beta_slow, ext_factor, attn_factor, .. } = &mut scaling {
                    let own = [
                        ("rope.scaling.yarn_beta_fast", beta_fast),
                        ("rope.scaling.yarn_beta_slow", beta_slow),
                        ("rope.scaling.yarn_ext_factor", ext_factor),
                        ("rope.scaling.yarn_attn_factor", attn_factor),
                    ];
                    for (part, parameter) in own {
                        *parameter = self.float(part)?.map_or(*parameter, f64::from);
                    }
                }
                if let (Scaling::Yarn { attn_factor, .. }, Some(given)) = (&mut scaling, magnitude) {
                    *attn_factor = given;
                }
                Ok(scaling)
            }
            (Some("none"), _, None) => Ok(Scaling::None),
            (None | Some("linear" | "longrope" | "none"), factor, magnitude) => {
                let factor = factor.filter(|_| kind != Some("none")).unwrap_or(1.0);
                Ok(match (factor, magnitude) {
                    (1.0, None) => Scaling::None,
                    (factor, magnitude) => Scaling::Linear { factor, magnitude: magnitude.unwrap_or(1.0) },
                })
            }
            (Some(other), ..) => Err(Error::unsupported(format!("RoPE scaling {other:?} is not built in"))),
        }
    }
}

/// A number of an array that has one for each layer.
fn element(values: &Array, key: &str, layer: usize) -> Result<usize> {
    let number = values.integer(layer).and_then(|n| u32::try_from(n).ok());
    number.map(|n| n as usize).ok_or_else(|| {
        Error::format(format!("metadata key {key:?} has no number for layer {layer}: it has {} values", values.len()))
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::F32(x) => *x == 0.0,
        Value::F64(x) => *x == 0.0,
        Value::Bool(flag) => !flag,
        Value::Array(values) => (0..values.len()).all(|i| values.integer(i) == Some(0)),
        other => other.integer() == Some(0),
    }
}

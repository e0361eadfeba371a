//! The hyper-parameters of a file, whose keys begin with the architecture's name.

use crate::error::{Error, Result};
use crate::gguf::{Metadata, Value};
use crate::kernel::rope::Scaling;

pub struct Keys<'a> {
    pub metadata: &'a Metadata,
    pub family: &'a str,
}

impl Keys<'_> {
    fn key(&self, part: &str) -> String {
        format!("{}.{part}", self.family)
    }

    pub fn has(&self, part: &str) -> bool {
        self.metadata.get(&self.key(part)).is_some()
    }

    /// A number that is not 0.
    pub fn count(&self, part: &str) -> Result<usize> {
        let key = self.key(part);
        if let Some(Value::Array(_)) = self.metadata.get(&key) {
            return Err(Error::unsupported(format!("metadata key {key:?} differs from layer to layer")));
        }
        match self.metadata.require_u32(&key)? {
            0 => Err(Error::format(format!("metadata key {key:?} is 0"))),
            n => Ok(n as usize),
        }
    }

    /// A number that is not 0, or what stands for it where there is none.
    pub fn count_or(&self, part: &str, default: usize) -> Result<usize> {
        if self.has(part) { self.count(part) } else { Ok(default) }
    }

    /// A number; 0 where there is none.
    pub fn number(&self, part: &str) -> Result<usize> {
        Ok(self.metadata.get_u32(&self.key(part))?.unwrap_or(0) as usize)
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
        let kind = self.metadata.get_str(&self.key("rope.scaling.type"))?;
        match (kind, factor, magnitude) {
            (Some("yarn"), factor, magnitude) => {
                let original = self.count_or("rope.scaling.original_context_length", context as usize)?;
                let mut scaling = Scaling::yarn(factor.unwrap_or(1.0), original as u32);
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

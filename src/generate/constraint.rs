//! Constraints: what a text must be like, as a schema, a grammar or a regular expression.

use std::sync::Arc;

use crate::error::Result;
use crate::model::Model;

#[cfg(not(feature = "constraints"))]
use absent as inner;
#[cfg(feature = "constraints")]
use present as inner;

#[cfg(feature = "constraints")]
mod present;

/// How a constraint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstraintKind {
    /// JSON that a schema describes. Members come in the order of the schema, with ", " and ": " between them, unless the
    /// schema says otherwise in "x-guidance".
    JsonSchema,
    /// A grammar in llama.cpp's GBNF, from its rule "root".
    Gbnf,
    /// A grammar in the Lark of llguidance, from its rule "start".
    Lark,
    /// A regular expression, which the whole text matches.
    Regex,
}

/// How far a text is that follows a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstraintState {
    /// It goes on.
    Open,
    /// It may end here, or go on.
    MayEnd,
    /// It is complete: nothing can follow.
    Complete,
}

/// What a text must be like, and how far it is. One follows one text.
pub struct Constraint {
    model: Arc<Model>,
    inner: inner::Follower,
}

impl Constraint {
    /// A constraint on texts of the tokens of `model`, at their beginning.
    ///
    /// The first one of a model takes a place in the memory budget, for as long as the model is open: some 30 to 60 bytes
    /// for each token.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: `text` cannot be read, asks for what is not built in, or goes beyond the bounds of what a
    /// constraint may take; `UNSUPPORTED`: the library has no constraints, or the model no tokeniser; `MEMORY_BUDGET`;
    /// `OUT_OF_MEMORY`.
    pub fn new(model: &Arc<Model>, kind: ConstraintKind, text: &str) -> Result<Constraint> {
        Ok(Constraint { inner: inner::Follower::new(model, kind, text)?, model: model.clone() })
    }

    /// The model whose tokens it is about.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Words of a mask: one bit for each token of the vocabulary.
    pub fn mask_len(&self) -> usize {
        self.model.tokenizer().map_or(0, |tokenizer| tokenizer.vocab_size().div_ceil(32))
    }

    /// The tokens that may come next: bit i % 32 of word i / 32 is that of token i.
    ///
    /// # Errors
    /// `UNSUPPORTED`: the constraint became too complex, or no token goes on with the text. From then on all calls fail.
    pub fn mask(&mut self) -> Result<Vec<u32>> {
        self.inner.mask()
    }

    /// The text goes on with `token`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: it does not follow the constraint; nothing has changed then. As [`Constraint::mask`].
    pub fn accept(&mut self, token: i32) -> Result<()> {
        self.inner.accept(token)
    }

    /// As [`Constraint::accept`], with all of `tokens` or none.
    ///
    /// # Errors
    /// As [`Constraint::accept`].
    pub fn accept_all(&mut self, tokens: &[i32]) -> Result<()> {
        if let [one] = tokens {
            return self.accept(*one);
        }
        let mut ahead = self.fork();
        tokens.iter().try_for_each(|&token| ahead.accept(token))?;
        *self = ahead;
        Ok(())
    }

    /// How many of `tokens` the text may go on with.
    ///
    /// # Errors
    /// As [`Constraint::mask`].
    pub fn allowed(&mut self, tokens: &[i32]) -> Result<usize> {
        self.inner.allowed(tokens)
    }

    /// The tokens that the text goes on with in any case: none where there is a choice.
    ///
    /// # Errors
    /// As [`Constraint::mask`].
    pub fn forced(&mut self) -> Result<Vec<i32>> {
        self.inner.forced()
    }

    /// How far the text is.
    ///
    /// # Errors
    /// As [`Constraint::mask`].
    pub fn progress(&mut self) -> Result<ConstraintState> {
        self.inner.progress()
    }

    /// A constraint that is as far as this one, and has nothing in common with it.
    pub fn copy(&self) -> Constraint {
        Constraint { model: self.model.clone(), inner: self.inner.copy() }
    }

    /// As [`Constraint::copy`]; what was computed for one serves the other. They are used one at a time.
    pub(super) fn fork(&self) -> Constraint {
        Constraint { model: self.model.clone(), inner: self.inner.fork() }
    }
}

#[cfg(not(feature = "constraints"))]
mod absent {
    //! A library without constraints: there is none.

    use std::convert::Infallible;
    use std::sync::Arc;

    use super::{ConstraintKind, ConstraintState};
    use crate::error::{Error, Result};
    use crate::model::Model;

    pub struct Follower(Infallible);

    impl Follower {
        pub fn new(_: &Arc<Model>, _: ConstraintKind, _: &str) -> Result<Follower> {
            Err(Error::unsupported("this library was built without the feature \"constraints\""))
        }

        pub fn mask(&mut self) -> Result<Vec<u32>> {
            match self.0 {}
        }

        pub fn accept(&mut self, _: i32) -> Result<()> {
            match self.0 {}
        }

        pub fn allowed(&mut self, _: &[i32]) -> Result<usize> {
            match self.0 {}
        }

        pub fn forced(&mut self) -> Result<Vec<i32>> {
            match self.0 {}
        }

        pub fn progress(&mut self) -> Result<ConstraintState> {
            match self.0 {}
        }

        pub fn copy(&self) -> Follower {
            match self.0 {}
        }

        pub fn fork(&self) -> Follower {
            match self.0 {}
        }
    }
}

#[cfg(all(test, not(feature = "constraints")))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Status;
    use crate::model::Options;

    #[test]
    fn a_library_without_constraints_says_so() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/arch/llama.gguf");
        let model = Model::open(&path, &Options { memory_budget: 64 << 20, ..Options::default() }).unwrap();
        let error = Constraint::new(&model, ConstraintKind::Regex, "a").err().unwrap();
        assert_eq!(error.status(), Status::Unsupported);
        assert!(error.message().contains("feature \"constraints\""), "{error}");
    }
}

//! Tokenisers and detokenisation.

//! The steps before the heads of latent attention.

use super::super::step::{Buffer, Finish, Step, Stretches};
use super::Compiler;
use crate::arch::{Expanded, Heads, Linear, Norm};

impl Compiler<'_> {
    /// The queries, and what latent and rotated key are made of.
    pub(super) fn latent_first_stage(
        &mut self,
        query_down: Option<(Linear, Norm)>,
        query: Linear,
        key_value: Linear,
        input: Buffer,
    ) -> [Buffer; 2] {
        let first = query_down.map_or(query, |(down, _)| down);
        let input = self.quantize(&[first.weight, key_value.weight], input);
        let mut made = self.products(first);
        self.multiply(first, input, made, Finish::Keep);
        let shared = self.products(key_value);
        self.multiply(key_value, input, shared, Finish::Keep);
        if let Some((_, norm)) = query_down {
            self.norm_in_place(Some(norm), made);
            let input = self.quantize(&[query.weight], made);
            made = self.products(query);
            self.multiply(query, input, made, Finish::Keep);
        }
        [made, shared]
    }

    /// Queries, keys and values of every head, of what is compressed.
    pub(super) fn expanded_heads(&mut self, e: &Expanded, heads: Heads, input: Buffer) -> [Buffer; 3] {
        let Heads { count, key_dim, value_dim, .. } = heads;
        let Expanded { plain, rotated, latent, .. } = *e;
        let [made, shared] = self.latent_first_stage(e.query_down, e.query, e.key_value, input);
        let compressed = self.rows(latent);
        let at = |first, stride| Stretches { first, stride };
        self.copy_stretches((shared, at(0, 0)), (compressed, at(0, 0)), latent, 1);
        self.norm_in_place(Some(e.norm), compressed);
        let input = self.quantize(&[e.expand.weight], compressed);
        let expanded = self.products(e.expand);
        self.multiply(e.expand, input, expanded, Finish::Keep);
        let [queries, keys] = [(); 2].map(|()| self.rows(count * key_dim));
        let values = self.rows(count * value_dim);
        self.copy_stretches((made, at(plain, key_dim)), (queries, at(0, key_dim)), rotated, count);
        self.copy_stretches((made, at(0, key_dim)), (queries, at(rotated, key_dim)), plain, count);
        self.copy_stretches((shared, at(latent, 0)), (keys, at(0, key_dim)), rotated, count);
        let whole = plain + value_dim;
        self.copy_stretches((expanded, at(0, whole)), (keys, at(rotated, key_dim)), plain, count);
        self.copy_stretches((expanded, at(plain, whole)), (values, at(0, value_dim)), value_dim, count);
        [queries, keys, values]
    }

    fn copy_stretches(
        &mut self,
        (from, source): (Buffer, Stretches),
        (to, target): (Buffer, Stretches),
        length: usize,
        count: usize,
    ) {
        self.steps.push(Step::CopyStretches { from, source, to, target, length, count });
    }
}

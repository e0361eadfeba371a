//! Vector kernels against the scalar ones in shapes, places and on numbers that nobody chose.

use crate::assert_same_bits;
use crate::support::{ALL, Aligned, Blocks, Random, activations, weights};
use layerline::kernel::Isa;
use layerline::kernel::matmul::{Activations, Form, Output, activation_bytes, multiply};
use layerline::quant::Format;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;

/// What activations look like.
#[derive(Clone, Copy, Debug)]
enum Sizes {
    Ordinary,
    Subnormal,
    Huge,
    /// Every code at one end: the largest sums there are.
    Alike,
}

#[derive(Clone, Debug)]
struct Case {
    format: Format,
    /// `None`: any bits at all, scales that are infinite or no numbers among them.
    blocks: Option<Blocks>,
    sizes: Sizes,
    k: usize,
    rows: usize,
    tokens: usize,
    /// The first of the rows asked for, and how many are left out at the end.
    start: usize,
    after: usize,
    /// Bytes by which the weights miss an alignment of 64.
    shift: usize,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let blocks = prop_oneof![4 => select(&Blocks::ALL[..]).prop_map(Some), 1 => Just(None)];
    let sizes = select(&[Sizes::Ordinary, Sizes::Ordinary, Sizes::Subnormal, Sizes::Huge, Sizes::Alike][..]);
    let shape = (1..=600usize, 1..=40usize, 1..=9usize, 0..40usize, 0..40usize, 0..64usize);
    (select(&ALL[..]), blocks, sizes, shape, any::<u64>()).prop_map(
        |(format, blocks, sizes, (k, rows, tokens, start, after, shift), seed)| {
            // Rows are whole blocks: of those of 256 up to three.
            let k = k.next_multiple_of(format.block_len());
            let start = start % rows;
            Case { format, blocks, sizes, k, rows, tokens, start, after: after % (rows - start), shift, seed }
        },
    )
}

impl Case {
    fn weights(&self, random: &mut Random) -> Vec<u8> {
        match self.blocks {
            Some(kind) => weights(random, self.format, self.k, self.rows, kind),
            None => (0..self.rows * self.format.row_bytes(self.k).unwrap()).map(|_| random.next() as u8).collect(),
        }
    }

    fn activations(&self, random: &mut Random) -> Vec<f32> {
        let mut x = activations(random, self.tokens * self.k);
        match self.sizes {
            Sizes::Ordinary => {}
            Sizes::Subnormal => x.iter_mut().for_each(|x| *x *= 1e-37),
            Sizes::Huge => x.iter_mut().for_each(|x| *x *= 1e37),
            Sizes::Alike => x.iter_mut().for_each(|x| *x = x.signum()),
        }
        x
    }

    /// The output, in which nothing but the rows asked for may be written.
    fn product(&self, isa: Isa, rows: &[u8], x: &[f32]) -> Vec<f32> {
        let form = Form::of(self.format);
        let mut buf = Aligned::new(activation_bytes(form, self.k, self.tokens));
        let mut y = vec![f32::MAX; self.tokens * self.rows];
        let acts = Activations::quantize(isa, form, self.k, x, self.tokens, buf.bytes());
        let range = self.start..self.rows - self.after;
        let out = Output { ptr: y.as_mut_ptr(), stride: self.rows };
        // SAFETY: `y` holds all results and nobody else has it.
        unsafe { multiply(isa, self.format, rows, self.k, range, &acts, out) };
        y
    }
}

proptest! {
    // The same cases in every run, and none written to a file: what fails is in the message.
    #![proptest_config(ProptestConfig {
        cases: 1500, rng_seed: RngSeed::Fixed(20), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn vector_kernels_give_the_bits_of_the_scalar_ones_whatever_they_are_given(case in cases()) {
        let mut random = Random::new(case.seed);
        let (rows, x) = (case.weights(&mut random), case.activations(&mut random));
        let mut room = Aligned::new(rows.len() + case.shift);
        let placed = &mut room.bytes()[case.shift..];
        placed.copy_from_slice(&rows);
        let expected = case.product(Isa::SCALAR, placed, &x);
        for isa in Isa::available() {
            assert_same_bits(&expected, &case.product(isa, placed, &x), isa.name());
        }
    }
}

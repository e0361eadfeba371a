//! What passes do between the matrices: `make bench-small`, or `cargo bench --bench small -- [names]`.
//!
//! Each function by itself, on one thread, in sizes that models have, for every instruction set of the processor.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use layerline::kernel::attention::{AttentionParameters, CacheRows, HeadCache, attend};
use layerline::kernel::rope::{self, RopeTable};
use layerline::kernel::{Isa, matmul, vector};
use layerline::operations::{Activation, Pairing, Scaling};

fn main() {
    divan::main();
}

/// Numbers between -2 and 2.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 4001) as f32 / 1000.0 - 2.0).collect()
}

/// Times `work` on a fresh copy of `count` numbers each time; what is counted are those numbers.
fn over(bencher: Bencher, count: usize, work: impl Fn(&mut [f32]) + Sync) {
    let x = numbers(count);
    bencher.counter(ItemsCount::new(count)).with_inputs(|| x.clone()).bench_local_refs(|x| work(black_box(x)));
}

const WIDTHS: [usize; 2] = [2048, 8192];

#[divan::bench(args = Isa::available(), consts = WIDTHS)]
fn rms_norm<const N: usize>(bencher: Bencher, isa: Isa) {
    let weight = numbers(N);
    over(bencher, N, |x| vector::rms_norm_in_place(isa, x, &weight, 1e-6));
}

#[divan::bench(args = Isa::available(), consts = WIDTHS)]
fn layer_norm<const N: usize>(bencher: Bencher, isa: Isa) {
    let weight = numbers(N);
    over(bencher, N, |x| vector::layer_norm_in_place(isa, x, &weight, Some(&weight), 1e-6));
}

#[divan::bench(args = Isa::available(), consts = WIDTHS)]
fn add<const N: usize>(bencher: Bencher, isa: Isa) {
    let y = numbers(N);
    over(bencher, N, |x| vector::add_assign(isa, x, &y));
}

#[divan::bench(args = Isa::available(), consts = WIDTHS)]
fn silu_gate<const N: usize>(bencher: Bencher, isa: Isa) {
    let gate = numbers(N);
    over(bencher, N, |x| vector::gate_assign(isa, Activation::Silu, &gate, x));
}

#[divan::bench(args = Isa::available(), consts = WIDTHS)]
fn gelu_gate<const N: usize>(bencher: Bencher, isa: Isa) {
    let gate = numbers(N);
    over(bencher, N, |x| vector::gate_assign(isa, Activation::GeluTanh, &gate, x));
}

#[divan::bench(args = Isa::available(), consts = [512, 32768])]
fn softmax<const N: usize>(bencher: Bencher, isa: Isa) {
    over(bencher, N, |x| vector::softmax_in_place(isa, x));
}

#[divan::bench(args = Isa::available(), consts = [32000])]
fn softcap<const N: usize>(bencher: Bencher, isa: Isa) {
    over(bencher, N, |x| vector::softcap(isa, x, 30.0));
}

/// One head.
#[divan::bench(args = Isa::available(), consts = [64, 128])]
fn rope_norm<const N: usize>(bencher: Bencher, isa: Isa) {
    rotate(bencher, isa, Pairing::Norm, N);
}

/// One head.
#[divan::bench(args = Isa::available(), consts = [64, 128])]
fn rope_neox<const N: usize>(bencher: Bencher, isa: Isa) {
    rotate(bencher, isa, Pairing::Neox, N);
}

fn rotate(bencher: Bencher, isa: Isa, pairing: Pairing, dims: usize) {
    let table = RopeTable::new(dims, 10000.0, Scaling::None, None).expect("an ordinary table");
    let (mut cos, mut sin) = (vec![0.0; dims / 2], vec![0.0; dims / 2]);
    table.fill(&[1234], &mut cos, &mut sin);
    over(bencher, dims, |x| rope::apply(isa, pairing, x, &cos, &sin));
}

/// A token's activations as they go into a product with weights in blocks of 32.
#[divan::bench(args = Isa::available(), consts = WIDTHS)]
fn quantize_by_32<const N: usize>(bencher: Bencher, isa: Isa) {
    quantize(bencher, isa, matmul::Form::Q8x32, N);
}

/// As above, for weights in blocks of 256.
#[divan::bench(args = Isa::available(), consts = WIDTHS)]
fn quantize_by_256<const N: usize>(bencher: Bencher, isa: Isa) {
    quantize(bencher, isa, matmul::Form::Q8x256, N);
}

fn quantize(bencher: Bencher, isa: Isa, form: matmul::Form, count: usize) {
    let bytes = matmul::activation_bytes(form, count, 1);
    let mut room = vec![0u8; bytes + 64];
    let start = room.as_ptr().align_offset(64);
    let (x, room) = (numbers(count), &mut room[start..start + bytes]);
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        matmul::Activations::quantize(isa, form, count, black_box(&x), 1, room);
    });
}

/// One token of four query heads that share a key head of 64, after so many positions; bytes are those of the cache.
#[divan::bench(args = Isa::available(), consts = [512, 4096])]
fn attention<const N: usize>(bencher: Bencher, isa: Isa) {
    const DIM: usize = 64;
    const GROUP: usize = 4;
    let mut keys = vec![0; N * DIM];
    vector::f32_to_f16(isa, &numbers(N * DIM), &mut keys);
    let cache = HeadCache { first: 0, keys: CacheRows::half(&keys, DIM), values: CacheRows::half(&keys, DIM) };
    let parameters = AttentionParameters { scale: 0.125, ..AttentionParameters::PLAIN };
    let (q, mut out) = (numbers(GROUP * DIM), vec![0.0; GROUP * DIM]);
    bencher
        .counter(BytesCount::new(2 * N * DIM * size_of::<u16>()))
        .bench_local(|| attend(isa, black_box(&cache), &parameters, GROUP, N - 1, &q, &mut out));
}

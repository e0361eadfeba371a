//! The truth: products written down plainly, by which the vector kernels are judged, bit for bit.

use super::Job;
use super::activations::{COLUMNS, Codes32, Codes256};
use crate::elementary::fused;
use crate::quant::block32::Block32;
use crate::quant::block256::Block256;
use crate::quant::{Format, decode_row};

/// # Safety
/// As `super::multiply`.
pub(super) unsafe fn multiply(format: Format, job: &Job) {
    for r in job.start..job.end {
        // SAFETY: row `r` lies in the caller's slice, which was checked.
        let row = unsafe { std::slice::from_raw_parts(job.row(r), job.row_bytes) };
        for t in 0..job.acts.tokens() {
            let y = match format.block_len() {
                1 => dot_floats(format, row, t, job),
                256 => dot256(format, row, t, job),
                _ => dot32(format, row, t, job),
            };
            // SAFETY: the caller lets this thread write (t, r).
            unsafe { *job.out.ptr.add(t * job.out.stride + r) = y };
        }
    }
}

fn dot_floats(format: Format, row: &[u8], t: usize, job: &Job) -> f32 {
    let mut y = 0.0;
    let size = format.block_bytes();
    for (block, bytes) in row.chunks(COLUMNS * size).enumerate() {
        let x = &job.acts.floats()[block * job.acts.tokens() + t];
        let mut w = [0.0; COLUMNS];
        decode_row(format, bytes, &mut w[..bytes.len() / size]);
        let mut lanes = [0f32; 8];
        for (j, (w, x)) in w.iter().zip(&x.x).enumerate() {
            lanes[j % 8] = fused(*w, *x, lanes[j % 8]);
        }
        let [a, b, c, d, e, f, g, h] = lanes;
        y += ((a + c) + (b + d)) + ((e + g) + (f + h));
    }
    y
}

fn dot32(format: Format, row: &[u8], t: usize, job: &Job) -> f32 {
    let mut y = 0.0;
    let mut w = Block32::default();
    let parts = format.block_len() / 32;
    for sub in 0..job.k / 32 {
        let x: &Codes32 = &job.acts.codes32()[sub / 8 * job.acts.tokens() + t];
        w.unpack(format, &row[sub / parts * format.block_bytes()..][..format.block_bytes()], sub % parts);
        let sub = sub % 8;
        let products = w.codes.iter().zip(&x.q[32 * sub..]).map(|(w, q)| *w as i32 * *q as i32);
        if format == Format::NVFP4 {
            let (first, last): (i32, i32) = (products.clone().take(16).sum(), products.skip(16).sum());
            y = fused(first as f32, w.scales[0] * x.d[sub], y);
            y = fused(last as f32, w.scales[1] * x.d[sub], y);
        } else {
            y = fused(products.sum::<i32>() as f32, w.scales[0] * x.d[sub], y);
            y = fused(w.min, x.s[sub], y);
        }
    }
    y
}

fn dot256(format: Format, row: &[u8], t: usize, job: &Job) -> f32 {
    let mut y = 0.0;
    let mut w = Block256::default();
    for (block, bytes) in row.chunks_exact(format.block_bytes()).enumerate() {
        let x: &Codes256 = &job.acts.codes256()[block * job.acts.tokens() + t];
        w.unpack(format, bytes);
        let (mut sum, mut mins) = (0, 0);
        for sub in 0..16 {
            let range = 16 * sub..16 * sub + 16;
            let dot: i32 = w.codes[range.clone()].iter().zip(&x.q[range]).map(|(w, q)| *w as i32 * *q as i32).sum();
            sum += w.scales[sub] as i32 * dot;
            mins += w.mins[sub] as i32 * x.sum16[sub] as i32;
        }
        y = fused(sum as f32, w.d * x.d, y);
        y = fused(-(w.dmin * x.d), mins as f32, y);
    }
    y
}

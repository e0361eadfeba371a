//! Products of weights with activations, and nothing else: a program whose instructions `scripts/count_instructions.sh`
//! counts, for processors that are not at hand.
//!
//!   instructions INSTRUCTION-SET FORMAT TOKENS ROWS COLUMNS TIMES
//!
//! The difference between two numbers of times is what so many calls take.

use layerline::kernel::Isa;
use layerline::kernel::matmul::{Activations, Form, Output, activation_bytes, multiply};
use layerline::quant::Format;
use layerline::weights::frames::Memory;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [isa, format, sizes @ ..] = &args[..] else {
        println!("instruction sets here: {:?}", Isa::available());
        return;
    };
    let isa = Isa::available().into_iter().find(|known| known.name() == *isa).expect("no such instruction set here");
    let format = Format::ALL.into_iter().find(|known| known.name() == *format).expect("no such format");
    let sizes: Vec<usize> = sizes.iter().map(|size| size.parse().expect("a number")).collect();
    let [tokens, count, k, times] = sizes[..] else { panic!("TOKENS ROWS COLUMNS TIMES") };
    let rows = vec![0x11; count * format.row_bytes(k).expect("whole blocks")];
    let x: Vec<f32> = (0..tokens * k).map(|i| (i % 19) as f32 - 9.0).collect();
    let form = Form::of(format);
    let mut memory = Memory::new(activation_bytes(form, k, tokens)).expect("memory");
    let acts = Activations::quantize(isa, form, k, &x, tokens, memory.bytes_mut());
    let mut y = vec![0f32; tokens * count];
    for _ in 0..times {
        // SAFETY: `y` holds all results, and nobody else has it.
        unsafe { multiply(isa, format, &rows, k, 0..count, &acts, Output { ptr: y.as_mut_ptr(), stride: count }) };
    }
    println!("{}", y.iter().sum::<f32>());
}

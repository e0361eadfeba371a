//! Tokens that may be chosen, each with its logit in one number.

/// A token that may be chosen, with its logit, as one number. Of two, the lesser one is likelier, or of the same logit and
/// the lower token: a total order, as no candidate's logit is NaN.
pub type Candidate = u64;

pub fn candidate((token, logit): (usize, f32)) -> Candidate {
    // Adding zero makes -0.0 a plain zero, which the total order would else put behind it.
    u64::from(!ascending((logit + 0.0).to_bits())) << 32 | token as u64
}

pub fn token_of(candidate: Candidate) -> u32 {
    candidate as u32
}

pub fn logit_of(candidate: Candidate) -> f32 {
    let ascending = !((candidate >> 32) as u32);
    // What `ascending` does to the bits, taken back.
    f32::from_bits(ascending ^ if ascending >> 31 == 1 { 1 << 31 } else { u32::MAX })
}

/// The bits of a float so that greater floats have greater ones: those of negative floats turned round, behind the others.
fn ascending(bits: u32) -> u32 {
    bits ^ if bits >> 31 == 0 { 1 << 31 } else { u32::MAX }
}

/// Keeps the candidates that `stays` takes, in their order.
pub fn keep(candidates: &mut [Candidate], stays: impl Fn(Candidate) -> bool) -> &mut [Candidate] {
    let mut kept = 0;
    for i in 0..candidates.len() {
        let candidate = candidates[i];
        if stays(candidate) {
            candidates[kept] = candidate;
            kept += 1;
        }
    }
    &mut candidates[..kept]
}

/// The greatest logit. `None`: there are no candidates.
pub fn max_of(candidates: &[Candidate]) -> Option<f32> {
    candidates.iter().copied().map(logit_of).reduce(f32::max)
}

/// The likeliest; of equals the lowest token.
pub fn likeliest_of(candidates: &[Candidate]) -> Option<Candidate> {
    candidates.iter().copied().min()
}

/// exp((logit − max) ÷ temperature): 1 for the maximum even where it is infinite.
pub fn weight(logit: f32, max: f32, temperature: f64) -> f64 {
    if logit == max { 1.0 } else { ((f64::from(logit) - f64::from(max)) / temperature).exp() }
}

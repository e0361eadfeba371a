//! The rest of a sampler's chain: what llama.cpp's samplers can do besides.

use std::ffi::c_char;

use super::boundary::caller;
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use super::sampler::{change, layerline_sampler};
use crate::error::Error;
use crate::generate::Step;

/// A step of the chain: repeat, frequency and presence penalty.
pub const LAYERLINE_STEP_PENALTIES: i32 = 0;

/// A step of the chain: `layerline_sampler_set_dry`.
pub const LAYERLINE_STEP_DRY: i32 = 1;

/// A step of the chain: `layerline_sampler_set_top_n_sigma`.
pub const LAYERLINE_STEP_TOP_N_SIGMA: i32 = 2;

/// A step of the chain: `layerline_sampler_set_top_k`.
pub const LAYERLINE_STEP_TOP_K: i32 = 3;

/// A step of the chain: `layerline_sampler_set_typical_p`.
pub const LAYERLINE_STEP_TYPICAL_P: i32 = 4;

/// A step of the chain: `layerline_sampler_set_top_p`.
pub const LAYERLINE_STEP_TOP_P: i32 = 5;

/// A step of the chain: `layerline_sampler_set_min_p`.
pub const LAYERLINE_STEP_MIN_P: i32 = 6;

/// A step of the chain: `layerline_sampler_set_xtc`.
pub const LAYERLINE_STEP_XTC: i32 = 7;

/// A step of the chain: `layerline_sampler_set_temperature` and `layerline_sampler_set_dynamic_temperature`.
pub const LAYERLINE_STEP_TEMPERATURE: i32 = 8;

/// Keeps the fewest tokens whose probabilities sum to more than `p`, beginning with those whose information is nearest to the
/// entropy of all. 1, the default: all.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not from 0 to 1. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_typical_p(sampler: *mut layerline_sampler, p: f32) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_typical_p(p)))
}

/// Keeps tokens whose logits are at most `n` standard deviations of all logits below the greatest. 0, the default: all.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is negative or not finite. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_top_n_sigma(
    sampler: *mut layerline_sampler,
    n: f32,
) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_top_n_sigma(n)))
}

/// Leaves out, with this probability, the tokens at least as probable as `threshold` but for the least probable of them, where
/// there are two or more. Probability 0, the default: never; so with a threshold above 0.5.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when one is not from 0 to 1. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_xtc(
    sampler: *mut layerline_sampler,
    probability: f32,
    threshold: f32,
) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_xtc(probability, threshold)))
}

/// Lets the temperature go as far as `range` below and above what is set, never below 0: low where the model is certain, high
/// where it is not. Range 0, the default: it stays. `exponent`, 1 by default: above 1 it stays low for longer.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when one is negative or not finite. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_dynamic_temperature(
    sampler: *mut layerline_sampler,
    range: f32,
    exponent: f32,
) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_dynamic_temperature(range, exponent)))
}

/// Chooses by Mirostat 2: tokens that would be too surprising are left out, so that what is chosen comes to a surprise of `tau`
/// bits, by steps of `eta` of what is missing. Of the chain only logit biases and the temperature count then. `tau` 0, the default: off;
/// usual are 5 and 0.1.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when one is negative or not finite. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_mirostat(
    sampler: *mut layerline_sampler,
    tau: f32,
    eta: f32,
) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_mirostat(tau, eta)))
}

/// Takes `penalty` off the logit of a token for each time that it is among the last ones, as many as
/// `layerline_sampler_set_repeat_penalty` says, 64 by default. 0, the default: nothing; below 0 it is added.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not finite. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_frequency_penalty(
    sampler: *mut layerline_sampler,
    penalty: f32,
) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_frequency_penalty(penalty)))
}

/// Takes `penalty` off the logit of a token that is among the last ones, once. 0, the default: nothing; below 0 it is added.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not finite. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_presence_penalty(
    sampler: *mut layerline_sampler,
    penalty: f32,
) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_presence_penalty(penalty)))
}

/// Sets DRY: a token that would go on with a sequence of `allowed_length` tokens or more that stands before, among the last
/// `last_n`, loses `multiplier` times `base` to the power of the sequence's length less `allowed_length`. Multiplier 0, the default:
/// off; usual are 0.8, 1.75 and 2. The sampler keeps 4 bytes for each of the `last_n`, and takes some 24 more while it chooses.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when `multiplier` is negative or not finite, or `base` is
/// below 1 or not finite. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_dry(
    sampler: *mut layerline_sampler,
    multiplier: f32,
    base: f32,
    allowed_length: u32,
    last_n: u32,
) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_dry(multiplier, base, allowed_length, last_n)))
}

/// Adds a text that no sequence that DRY looks for goes across, wherever it begins and ends in tokens: usual are a line's end,
/// a colon, a quotation mark and an asterisk. There are none by default.
///
/// `model`: of whose tokens; `text`, `length`: UTF-8, not empty.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED when the model has no tokeniser that is built in;
/// LAYERLINE_ERROR_BUSY while another call on the sampler runs; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_add_dry_breaker(
    sampler: *mut layerline_sampler,
    model: *const layerline_model,
    text: *const c_char,
    length: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, text) = (c.handle(model)?, c.text(text, length, "text")?);
        let tokenizer = model.model.tokenizer()?;
        change(c, sampler, |sampler| sampler.add_dry_breaker_text(tokenizer, text))
    })
}

/// Removes all texts that `layerline_sampler_add_dry_breaker` has added.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the sampler runs. One thread at a
/// time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_clear_dry_breakers(
    sampler: *mut layerline_sampler,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        change(c, sampler, |sampler| {
            sampler.clear_dry_breakers();
            Ok(())
        })
    })
}

/// Sets what is added to logits before the chain, in place of what was set before; there is nothing by default.
///
/// `tokens`, `biases`, `count`: a bias for each token; minus infinity bans it. None may be NaN, or infinite above 0. Where a
/// token comes twice, both are added.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the sampler runs;
/// LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_logit_biases(
    sampler: *mut layerline_sampler,
    tokens: *const i32,
    biases: *const f32,
    count: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (tokens, biases) = (c.array(tokens, count, "tokens")?, c.array(biases, count, "biases")?);
        let biases = tokens.iter().copied().zip(biases.iter().copied());
        change(c, sampler, |sampler| sampler.set_logit_biases(biases))
    })
}

/// Sets which steps the chain has, and their order; LAYERLINE_STEP_PENALTIES to LAYERLINE_STEP_TEMPERATURE, in the order of
/// their numbers, by default. A step that is left out does nothing, whatever its setting; without the last one the
/// temperature is 1. Each step's own setting says whether it does something.
///
/// `steps`, `count`: numbers LAYERLINE_STEP_, each at most once; may be none.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the sampler runs. One thread at a
/// time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_steps(
    sampler: *mut layerline_sampler,
    steps: *const i32,
    count: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let numbers = c.array(steps, count, "steps")?;
        let mut steps = [Step::Penalties; Step::ALL.len()];
        if count > steps.len() {
            return Err(Error::invalid(format!("{count} steps: there are {}", steps.len())));
        }
        for (step, &number) in steps.iter_mut().zip(numbers) {
            let known = usize::try_from(number).ok().and_then(|number| Step::ALL.get(number));
            *step = *known.ok_or_else(|| Error::invalid(format!("there is no step {number}")))?;
        }
        change(c, sampler, |sampler| sampler.set_steps(&steps[..count]))
    })
}

//! Sampling and generation.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::boundary::{self, Handle, Out, Poison, array, busy, enter, outside};
use super::error::{layerline_error, layerline_status};
use super::session::layerline_session;
use crate::error::{Error, Result};
use crate::generate::{Sampler, Sequence, generate};

/// Chooses tokens for one sequence: greedy until told otherwise, and of equal logits the lowest token.
///
/// The chain is llama.cpp's default order, each step on what the one before left: repeat penalty, top-k, top-p, min-p,
/// temperature, draw. Top-p and min-p look at probabilities before the temperature is applied. Logits that are NaN are
/// never chosen. The same seed, settings and logits give the same tokens on one platform.
///
/// The repeat penalty looks at the tokens that this sampler chose and at the prompts given to `layerline_generate`; not
/// at what was given to `layerline_forward`.
pub struct layerline_sampler {
    poison: Poison,
    sampler: Mutex<Sampler>,
}

impl Handle for layerline_sampler {
    const NAME: &'static str = "sampler";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

impl layerline_sampler {
    fn lock(&self) -> Result<MutexGuard<'_, Sampler>> {
        self.sampler.try_lock().ok_or_else(busy::<layerline_sampler>)
    }
}

/// Changes one setting.
///
/// # Safety
/// `sampler` is NULL or a handle of ours that is not freed during the call.
unsafe fn set(sampler: *const layerline_sampler, change: impl FnOnce(&mut Sampler) -> Result<()>) -> layerline_status {
    boundary::status(|| {
        // SAFETY: the caller vouches for it.
        let sampler = unsafe { enter(sampler) }?;
        change(&mut *sampler.lock()?)
    })
}

/// Makes a greedy sampler. The caller owns it: `layerline_sampler_free`. NULL when there is no memory. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn layerline_sampler_new() -> *mut layerline_sampler {
    boundary::or(std::ptr::null_mut(), || {
        Ok(Box::into_raw(Box::new(layerline_sampler { poison: Poison::default(), sampler: Mutex::default() })))
    })
}

/// Frees a sampler; NULL is a no-op. Any thread, once, with no call on the sampler running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_free(sampler: *mut layerline_sampler) {
    // SAFETY: NULL, or a sampler of ours that is freed here alone.
    unsafe { boundary::free(sampler) };
}

/// What logits are divided by before the draw. 0, the default: greedy, and nothing else but the repeat penalty counts.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is negative or not finite. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_temperature(
    sampler: *mut layerline_sampler,
    temperature: f32,
) -> layerline_status {
    // SAFETY: NULL, or a sampler of ours.
    unsafe { set(sampler, |sampler| sampler.set_temperature(temperature)) }
}

/// Only the `k` likeliest tokens stay. 0, the default: all.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_top_k(sampler: *mut layerline_sampler, k: u32) -> layerline_status {
    // SAFETY: NULL, or a sampler of ours.
    unsafe {
        set(sampler, |sampler| {
            sampler.set_top_k(k);
            Ok(())
        })
    }
}

/// Only the fewest likeliest tokens whose probabilities sum to `p` stay, at least one. 1, the default: all.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not from 0 to 1. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_top_p(sampler: *mut layerline_sampler, p: f32) -> layerline_status {
    // SAFETY: NULL, or a sampler of ours.
    unsafe { set(sampler, |sampler| sampler.set_top_p(p)) }
}

/// Only tokens at least `p` times as probable as the likeliest stay. 0, the default: all.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not from 0 to 1. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_min_p(sampler: *mut layerline_sampler, p: f32) -> layerline_status {
    // SAFETY: NULL, or a sampler of ours.
    unsafe { set(sampler, |sampler| sampler.set_min_p(p)) }
}

/// Makes tokens among the last `last_n` less likely: their logits are divided by `penalty` where positive, multiplied by
/// it where not. Penalty 1, the default: none. Forgets the tokens seen so far, as a new sequence wants it.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when `penalty` is not above 0 and finite. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_repeat_penalty(
    sampler: *mut layerline_sampler,
    penalty: f32,
    last_n: u32,
) -> layerline_status {
    // SAFETY: NULL, or a sampler of ours.
    unsafe { set(sampler, |sampler| sampler.set_repeat_penalty(penalty, last_n)) }
}

/// Starts the random sequence anew from `seed`. The default is 0.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_seed(sampler: *mut layerline_sampler, seed: u64) -> layerline_status {
    // SAFETY: NULL, or a sampler of ours.
    unsafe {
        set(sampler, |sampler| {
            sampler.set_seed(seed);
            Ok(())
        })
    }
}

/// Chooses a token by the logits of the last position of the session's last pass, and remembers it for the repeat
/// penalty. It is not fed to the session: give it to `layerline_forward`.
///
/// `token`: set to the token chosen; it may be one that ends the text (`layerline_token_is_end`).
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the session has no logits; LAYERLINE_ERROR_FORMAT when no logit is a
/// number; LAYERLINE_ERROR_BUSY while a pass runs or is submitted. One thread at a time for the sampler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_sample(
    sampler: *mut layerline_sampler,
    session: *const layerline_session,
    token: *mut i32,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    boundary::status(|| unsafe {
        let (sampler, session, token) = (enter(sampler)?, enter(session)?, Out::new(token, "token")?);
        let (mut sampler, session) = (sampler.lock()?, session.read()?);
        token.set(sampler.sample(session.last_logits()?)?);
        Ok(())
    })
}

/// Gets each generated token, on the thread that called `layerline_generate`; false stops.
///
/// `token`: what was sampled.
/// `piece`, `length`: the text that became whole with it, whole UTF-8 characters; `length` 0 where the token ends inside
/// one. Not NUL-terminated; valid during the call.
/// `user_data`: as given to `layerline_generate`.
///
/// It must return: no C++ exception and no longjmp may leave it. Of functions on this session and sampler it may call
/// `layerline_session_interrupt` alone; others return LAYERLINE_ERROR_BUSY, and free is not allowed.
pub type layerline_token_callback =
    Option<unsafe extern "C" fn(token: i32, piece: *const c_char, length: usize, user_data: *mut c_void) -> bool>;

/// Runs a prompt and generates tokens, each given to the callback and fed back. Ends with LAYERLINE_OK after a token
/// that ends the text, after `max_tokens`, or when the callback returns false.
///
/// `prompt`, `count`: may be none: then it goes on from the logits of the session's last pass, which must have some.
/// `max_tokens`: at most so many tokens are sampled; with 0 the prompt alone is run.
/// `callback`, `user_data`: see `layerline_token_callback`. A token that ends the text is not passed on; only where it
/// cuts a character short, it comes with the replacement character, as does the last of `max_tokens`.
///
/// The last token sampled is not fed to the session, all before it are: to go on later, begin the next prompt with it.
/// Where that one ends the text, all that the callback was given have been fed; `layerline_session_position` tells it.
///
/// Errors: those of `layerline_forward` and `layerline_sampler_sample`; LAYERLINE_ERROR_CONTEXT_FULL after as many
/// tokens as fitted; LAYERLINE_ERROR_CANCELLED by `layerline_session_interrupt`, also between two passes;
/// LAYERLINE_ERROR_UNSUPPORTED when the model has no tokeniser that is built in. Tokens passed on before an error stay in
/// the session, but for the last. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generate(
    session: *mut layerline_session,
    sampler: *mut layerline_sampler,
    prompt: *const i32,
    count: usize,
    max_tokens: usize,
    callback: layerline_token_callback,
    user_data: *mut c_void,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe {
        boundary::with_error(err, || {
            let (session, sampler, prompt) = (enter(session)?, enter(sampler)?, array(prompt, count, "prompt")?);
            let callback = callback.ok_or_else(|| Error::invalid("callback is NULL"))?;
            let (mut session, mut sampler) = (session.write()?, sampler.lock()?);
            let model = Arc::clone(session.model());
            generate(&mut *session, model.tokenizer()?, &mut sampler, prompt, max_tokens, |token, piece| match outside(
                || callback(token, piece.as_ptr().cast(), piece.len(), user_data),
            ) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })
    }
}

//! Sampling and generation.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockWriteGuard};

use super::boundary::{Caller, Handle, Poison, busy, caller, outside, owned};
use super::error::{layerline_error, layerline_status};
use super::session::layerline_session;
use crate::error::{Error, Result};
use crate::generate::{Sampler, generate};

/// Chooses tokens for one sequence: greedy by default, and of equal logits the lowest token.
///
/// Its steps and their order are llama.cpp's, each on what the one before left: logit biases, penalties, DRY, top-n-sigma,
/// top-k, typical, top-p, min-p, XTC, temperature, draw; `layerline_sampler_set_steps` changes the order. Those before the
/// temperature look at probabilities without it. All but the draw do nothing until they are set. Logits that are NaN are
/// never chosen. The same seed, settings and logits give the same tokens on one platform.
///
/// Penalties look at the tokens that this sampler chose, at the prompts given to `layerline_session_generate`, and
/// at what `layerline_sampler_accept` shows; not at what was given to `layerline_session_forward`.
///
/// What it needs to choose by a session's logits is part of the session's memory. Its own memory belongs to no model and is
/// outside every budget: a few hundred bytes, 4 for each token that penalties look at, and 16 for each logit once
/// `layerline_sampler_sample_logits` has made a choice that is not greedy.
pub struct layerline_sampler {
    poison: Poison,
    sampler: RwLock<Sampler>,
}

impl Handle for layerline_sampler {
    const NAME: &'static str = "sampler";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

impl layerline_sampler {
    /// One that the caller owns.
    fn boxed(sampler: Sampler) -> Result<*mut layerline_sampler> {
        owned(layerline_sampler { poison: Poison::default(), sampler: RwLock::new(sampler) })
    }

    pub(super) fn lock(&self) -> Result<RwLockWriteGuard<'_, Sampler>> {
        self.sampler.try_write().ok_or_else(busy::<layerline_sampler>)
    }
}

/// Changes a sampler.
pub(super) fn change(
    c: &Caller,
    sampler: *const layerline_sampler,
    change: impl FnOnce(&mut Sampler) -> Result<()>,
) -> Result<()> {
    change(&mut *c.handle(sampler)?.lock()?)
}

/// Makes a greedy sampler. The caller owns it: `layerline_sampler_free`. NULL when there is no memory. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn layerline_sampler_new() -> *mut layerline_sampler {
    caller!().or(std::ptr::null_mut(), |_| layerline_sampler::boxed(Sampler::new()))
}

/// Frees a sampler; NULL is a no-op. Any thread, once, with no call on the sampler running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_free(sampler: *mut layerline_sampler) {
    caller!().free(sampler);
}

/// Sets what logits are divided by before the draw. 0, the default: greedy, where only the repeat penalty counts.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is negative or not finite. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_temperature(
    sampler: *mut layerline_sampler,
    temperature: f32,
) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_temperature(temperature)))
}

/// Keeps only the `k` likeliest tokens. 0, the default: all.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_top_k(sampler: *mut layerline_sampler, k: u32) -> layerline_status {
    caller!().status(|c| {
        change(c, sampler, |sampler| {
            sampler.set_top_k(k);
            Ok(())
        })
    })
}

/// Keeps only the fewest likeliest tokens whose probabilities sum to `p`, at least one. 1, the default: all.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not from 0 to 1. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_top_p(sampler: *mut layerline_sampler, p: f32) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_top_p(p)))
}

/// Keeps only tokens at least `p` times as probable as the likeliest. 0, the default: all.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not from 0 to 1. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_min_p(sampler: *mut layerline_sampler, p: f32) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_min_p(p)))
}

/// Makes tokens among the last `last_n` less likely: their logits are divided by `penalty` where positive, multiplied by
/// it where not. Penalty 1, the default: none. Forgets the tokens seen so far.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when `penalty` is not above 0 and finite. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_repeat_penalty(
    sampler: *mut layerline_sampler,
    penalty: f32,
    last_n: u32,
) -> layerline_status {
    caller!().status(|c| change(c, sampler, |sampler| sampler.set_repeat_penalty(penalty, last_n)))
}

/// Lets `layerline_session_generate` give its callback the text of control, unknown and unused tokens, such as
/// "<|channel|>", which else have none: to tell apart the parts of an answer.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_show_control(
    sampler: *mut layerline_sampler,
    show: bool,
) -> layerline_status {
    caller!().status(|c| {
        change(c, sampler, |sampler| {
            sampler.set_show_control(show);
            Ok(())
        })
    })
}

/// Starts the random sequence anew from `seed`. The default is 0.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_set_seed(sampler: *mut layerline_sampler, seed: u64) -> layerline_status {
    caller!().status(|c| {
        change(c, sampler, |sampler| {
            sampler.set_seed(seed);
            Ok(())
        })
    })
}

/// Copies a sampler: its settings, the tokens it has seen, its place in the random sequence. The two have nothing in common
/// from then on.
///
/// `copy`: set to a sampler that the caller owns: `layerline_sampler_free`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call changes the sampler. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_copy(
    sampler: *const layerline_sampler,
    copy: *mut *mut layerline_sampler,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (sampler, copy) = (c.handle(sampler)?, c.out(copy, "copy")?);
        let sampler = sampler.sampler.try_read().ok_or_else(busy::<layerline_sampler>)?.copy()?;
        copy.set(layerline_sampler::boxed(sampler)?);
        Ok(())
    })
}

/// Forgets the tokens seen so far and starts the random sequence anew from the seed, as a new sequence wants it. Settings
/// stay.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the sampler runs. One thread at a
/// time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_reset(
    sampler: *mut layerline_sampler,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        change(c, sampler, |sampler| {
            sampler.reset();
            Ok(())
        })
    })
}

/// Shows the sampler tokens of its sequence that it did not choose, such as a prompt, for the repeat penalty.
///
/// `tokens`, `count`: in their order; may be none.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token below 0; LAYERLINE_ERROR_BUSY while another call on the sampler
/// runs; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_accept(
    sampler: *mut layerline_sampler,
    tokens: *const i32,
    count: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let tokens = c.array(tokens, count, "tokens")?;
        if let Some((i, token)) = tokens.iter().enumerate().find(|(_, token)| **token < 0) {
            return Err(Error::invalid(format!("token {i} is {token}; tokens are numbered from 0")));
        }
        change(c, sampler, |sampler| sampler.accept(tokens))
    })
}

/// Chooses a token by the logits of the last position of the session's last pass, and remembers it for the repeat
/// penalty. It is not fed to the session: give it to `layerline_session_forward`.
///
/// `token`: set to the token chosen; it may be one that ends the text (`layerline_model_token_is_end`).
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the session has no logits; LAYERLINE_ERROR_FORMAT when no logit is a
/// number; LAYERLINE_ERROR_BUSY while a pass runs or is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time for
/// the sampler; any for the session, whose samplers take turns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_sample(
    sampler: *mut layerline_sampler,
    session: *const layerline_session,
    token: *mut i32,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (sampler, session, token) = (c.handle(sampler)?, c.handle(session)?, c.out(token, "token")?);
        let (mut sampler, session) = (sampler.lock()?, session.read()?);
        token.set(sampler.sample_last(&*session)?);
        Ok(())
    })
}

/// Chooses a token by given logits, and remembers it for the repeat penalty: for hosts that change logits first, or take
/// those of an earlier position.
///
/// `logits`, `count`: one for each token of the vocabulary; at least one.
/// `token`: set to the token chosen.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also when no logit is a number; LAYERLINE_ERROR_BUSY while another call on the
/// sampler runs; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_sampler_sample_logits(
    sampler: *mut layerline_sampler,
    logits: *const f32,
    count: usize,
    token: *mut i32,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (sampler, logits, token) = (c.handle(sampler)?, c.array(logits, count, "logits")?, c.out(token, "token")?);
        if logits.iter().all(|logit| logit.is_nan()) {
            return Err(Error::invalid(format!("none of the {count} logits is a number")));
        }
        let chosen = sampler.lock()?.sample(logits)?;
        token.set(chosen);
        Ok(())
    })
}

/// Gets each generated token, on the thread that called `layerline_session_generate`; false stops.
///
/// `token`: what was sampled.
/// `piece`, `length`: the text that became whole with it, whole UTF-8 characters; `length` 0 where the token ends inside
/// one, and for control tokens, unless `layerline_sampler_set_show_control` asks for theirs. Not NUL-terminated; valid
/// during the call.
/// `user_data`: as given to `layerline_session_generate`.
///
/// It must return: no C++ exception and no longjmp may leave it. Of the functions on this session and sampler it may call
/// only `layerline_session_interrupt`; others return LAYERLINE_ERROR_BUSY, and free is not allowed.
pub type layerline_token_callback =
    Option<unsafe extern "C" fn(token: i32, piece: *const c_char, length: usize, user_data: *mut c_void) -> bool>;

/// Runs a prompt and generates tokens, each given to the callback and fed back. Ends with LAYERLINE_OK after a token
/// that ends the text, after `max_tokens`, or when the callback returns false.
///
/// `prompt`, `count`: may be none: then it goes on from the logits of the session's last pass, which must have some.
/// `max_tokens`: the most tokens to sample; with 0 only the prompt is run.
/// `callback`, `user_data`: see `layerline_token_callback`. A token that ends the text is not passed on; only where it
/// cuts a character short, it comes with the replacement character, as does the last of `max_tokens`.
///
/// The last token sampled is not fed to the session, all before it are: to go on later, begin the next prompt with it.
/// Where a token has ended the text, all that the callback was given have been fed. The position of the session tells which
/// is the case: `layerline_session_get_info`.
///
/// Errors: those of `layerline_session_forward` and `layerline_sampler_sample`; LAYERLINE_ERROR_CONTEXT_FULL after as many
/// tokens as fitted; LAYERLINE_ERROR_CANCELLED by `layerline_session_interrupt`, also between two passes and before the call;
/// LAYERLINE_ERROR_UNSUPPORTED when the model has no tokeniser that is built in. Tokens passed on before an error stay in
/// the session, but for the last. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_generate(
    session: *mut layerline_session,
    sampler: *mut layerline_sampler,
    prompt: *const i32,
    count: usize,
    max_tokens: usize,
    callback: layerline_token_callback,
    user_data: *mut c_void,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, sampler) = (c.handle(session)?, c.handle(sampler)?);
        let prompt = c.array(prompt, count, "prompt")?;
        let on_token = passing_on(callback, user_data)?;
        let (mut session, mut sampler) = (session.write()?, sampler.lock()?);
        let model = Arc::clone(session.model());
        generate(&mut *session, model.tokenizer()?, &mut sampler, prompt, max_tokens, on_token)
    })
}

/// What gives tokens to the host, for the time of a call.
pub(super) fn passing_on(
    callback: layerline_token_callback,
    user_data: *mut c_void,
) -> Result<impl FnMut(i32, &str) -> ControlFlow<()>> {
    let callback = callback.ok_or_else(|| Error::invalid("callback is NULL"))?;
    Ok(move |token: i32, piece: &str| {
        // SAFETY: the host gave the function, for the time of the call that this is made in.
        let goes_on = || unsafe { callback(token, piece.as_ptr().cast(), piece.len(), user_data) };
        if outside(goes_on) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
}

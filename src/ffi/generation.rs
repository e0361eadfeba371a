//! Generation with settings of its own: limits, stop strings, constraints, drafts.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::boundary::{Handle, Poison, busy, caller, outside, owned, versioned};
use super::constraint::layerline_constraint;
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use super::sampler::{layerline_sampler, layerline_token_callback, passing_on};
use super::session::layerline_session;
use crate::error::{Error, Result};
use crate::generate::{Distribution, DraftModel, DraftPredictor, End, Generated, Generation, TokenLogprob};

/// The generation has not ended, or by an error.
pub const LAYERLINE_END_NONE: i32 = 0;

/// The model chose a token that ends the text.
pub const LAYERLINE_END_TOKEN: i32 = 1;

/// The most tokens that were asked for are there.
pub const LAYERLINE_END_LENGTH: i32 = 2;

/// A stop string came.
pub const LAYERLINE_END_STOP: i32 = 3;

/// The callback returned false.
pub const LAYERLINE_END_CALLBACK: i32 = 4;

/// The text is complete by its constraint, which lets nothing follow.
pub const LAYERLINE_END_CONSTRAINT: i32 = 5;

/// The context was full: the call returned LAYERLINE_ERROR_CONTEXT_FULL.
pub const LAYERLINE_END_CONTEXT: i32 = 6;

/// A full context ends a generation.
pub const LAYERLINE_CONTEXT_STOP: i32 = 0;

/// Where the context is full, the oldest tokens are dropped.
pub const LAYERLINE_CONTEXT_DROP_OLDEST: i32 = 1;

/// How texts are generated: how long they become, what ends them, and who drafts tokens of them. It can be used for many
/// generations, one after the other, and belongs to no session.
///
/// Drafts make generation faster where weights are streamed: a pass over several tokens reads the weights once. Guesses of
/// the next tokens are taken in by one pass, the sampler chooses by the logits of each as it would without guesses, and
/// what follows a wrong one is taken back. The tokens, the sampler and the session are the same as without drafts, bit for
/// bit. How many tokens are drafted follows from what passes cost and from how many were right lately, both measured: where
/// drafts do not pay, there are none.
///
/// Drafting takes logits of up to `max_drafts` further positions from the budget while a generation runs; where there is no
/// room for them, fewer tokens are drafted, or none. Its own memory, 4 bytes for each token of prompts and texts where tokens
/// are drafted, is outside every budget.
///
/// With a constraint, what it leaves no choice about is drafted too, up to 16 tokens for a pass and whatever is set: such a
/// text costs no passes of its own. That takes logits as above, or of 16 further positions. Which tokens may come next is
/// found while the pass runs, on a thread of the library's that lives as long as the generation; where the library was built
/// without threads, after the pass. 4 bytes for each token of the vocabulary, and an eighth for each token of a pass, are
/// outside every budget, beside what the constraint takes.
pub struct layerline_generation {
    poison: Poison,
    generation: Mutex<Generation>,
}

impl Handle for layerline_generation {
    const NAME: &'static str = "generation";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

impl layerline_generation {
    fn lock(&self) -> Result<MutexGuard<'_, Generation>> {
        self.generation.try_lock().ok_or_else(busy::<layerline_generation>)
    }
}

/// Makes a generation without limits, stop strings and drafts. The caller owns it: `layerline_generation_free`. NULL when
/// there is no memory. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn layerline_generation_new() -> *mut layerline_generation {
    caller!().or(std::ptr::null_mut(), |_| {
        owned(layerline_generation { poison: Poison::default(), generation: Mutex::new(Generation::new()) })
    })
}

/// Frees a generation; NULL is a no-op. Any thread, once, with no call on it running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generation_free(generation: *mut layerline_generation) {
    caller!().free(generation);
}

/// Sets the most tokens that are generated. By default a text ends in another way, or by LAYERLINE_ERROR_CONTEXT_FULL.
///
/// `tokens`: with 0 only the prompt is run.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generation_set_max_tokens(
    generation: *mut layerline_generation,
    tokens: usize,
) -> layerline_status {
    caller!().run(std::ptr::null_mut(), |c| {
        c.handle(generation)?.lock()?.set_max_tokens(tokens);
        Ok(())
    })
}

/// Adds a text that ends a generation where it comes, wherever it begins and ends in tokens. The callback gets neither it
/// nor a part of it: text that may be its beginning is kept back until that is known.
///
/// `text`, `length`: UTF-8, not empty.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generation_add_stop(
    generation: *mut layerline_generation,
    text: *const c_char,
    length: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let text = c.text(text, length, "text")?;
        c.handle(generation)?.lock()?.add_stop(text)
    })
}

/// Removes all stop strings.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generation_clear_stops(
    generation: *mut layerline_generation,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        c.handle(generation)?.lock()?.clear_stops();
        Ok(())
    })
}

/// Drafts from the text itself: where the last tokens of prompts and texts stood before, what followed them there is
/// drafted. That pays where a text repeats parts of itself: changes to a given text, lists of records, quotations.
///
/// `max_drafts`: the most tokens drafted for a pass, at most 64; 0: no drafts, the default.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generation_set_draft_text(
    generation: *mut layerline_generation,
    max_drafts: u32,
) -> layerline_status {
    caller!().run(std::ptr::null_mut(), |c| {
        let handle = c.handle(generation)?;
        let mut generation = handle.lock()?;
        match max_drafts {
            0 => generation.clear_drafter(),
            drafts => generation.draft_from_text(drafts as usize)?,
        }
        Ok(())
    })
}

/// Lets another open model draft: a smaller one of the same family, or the same one in a smaller format, best wholly in
/// memory; or the layer of the model's own file that predicts further tokens (`layerline_options_set_predictor`), which
/// costs little, as it is one layer, and guesses well, as it reads what the model has made of the text so far. It works in a
/// session of its own, which takes its memory from that model's budget and lasts until another drafter is set or the
/// generation is freed.
///
/// With a layer as drafter a generation also takes the hidden states of a chunk from the budget of the model that texts are
/// generated with: 4 bytes for each element of an embedding, times the chunk length. Without room for them nothing is
/// drafted.
///
/// `model`: its tokens must be those of the models that texts are generated with. NULL: no drafts.
/// `context_length`: tokens that its session has room for; 0: the default of its options. Texts beyond it are not drafted;
/// a layer goes on with the latest tokens alone.
/// `max_drafts`: the most tokens drafted for a pass, 1 to 64; without a model it does not count.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED: the model has no tokeniser, or generates no text;
/// as `layerline_session_new`. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generation_set_draft_model(
    generation: *mut layerline_generation,
    model: *const layerline_model,
    context_length: u32,
    max_drafts: u32,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let handle = c.handle(generation)?;
        let mut generation = handle.lock()?;
        let Some(model) = c.optional(model)? else {
            generation.clear_drafter();
            return Ok(());
        };
        let (model, max_drafts) = (&model.model, max_drafts as usize);
        match model.is_predictor() {
            false => generation.draft_with(DraftModel::new(model, context_length)?, max_drafts),
            true => generation.draft_with_predictor(DraftPredictor::new(model, context_length)?, max_drafts),
        }
    })
}

/// Lets texts follow a constraint. Each generation begins where the constraint is now; it ends with
/// LAYERLINE_END_CONSTRAINT where nothing can follow, with a token that ends the text where the model chooses one and the
/// constraint lets it, or as any other: then the text is not complete.
///
/// `constraint`: copied. NULL: texts are free.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on either runs;
/// LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generation_set_constraint(
    generation: *mut layerline_generation,
    constraint: *const layerline_constraint,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (handle, constraint) = (c.handle(generation)?, c.optional(constraint)?);
        let constraint = constraint.as_deref().map(layerline_constraint::lock).transpose()?;
        handle.lock()?.set_constraint(constraint.as_deref());
        Ok(())
    })
}

/// Sets what happens when the context of a session is full, by a token of the text or by a prompt that does not fit behind
/// what the session holds.
///
/// With LAYERLINE_CONTEXT_DROP_OLDEST the first `keep_first` tokens of the session stay. Of those after them the older half is
/// dropped, or as many as are needed, and the rest is taken in again at the positions it has from then on. So results are
/// exact: the bits are those of a new session that was given the tokens that stay. It works for models of every kind, and
/// costs a pass over the tokens that stay; of a model whose layers cannot go back to the first `keep_first` tokens, such as a
/// recurrent one, over those too. Over a long text each token is taken in about once more. `dropped` of
/// `layerline_generation_stats` tells how many went. A prompt that does not fit beside `keep_first` tokens ends with
/// LAYERLINE_ERROR_CONTEXT_FULL as ever, and so does a session that does not know its tokens (`layerline_session_load`). Where
/// the pass over the tokens that stay fails or is interrupted, the session holds fewer: its position tells.
///
/// `policy`: LAYERLINE_CONTEXT_STOP, the default, or LAYERLINE_CONTEXT_DROP_OLDEST.
/// `keep_first`: tokens that always stay, such as a system prompt; without dropping it does not count.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generation_set_context_policy(
    generation: *mut layerline_generation,
    policy: i32,
    keep_first: usize,
) -> layerline_status {
    caller!().status(|c| {
        let kept_first = match policy {
            LAYERLINE_CONTEXT_STOP => None,
            LAYERLINE_CONTEXT_DROP_OLDEST => Some(keep_first),
            _ => return Err(Error::invalid(format!("policy is {policy}, which is not one of LAYERLINE_CONTEXT_"))),
        };
        c.handle(generation)?.lock()?.set_kept_first(kept_first);
        Ok(())
    })
}

/// Asks for the log-probabilities of tokens, which the callback of `layerline_session_generate_detailed` gets. They take a
/// time of their own, about that of a draw, and none where they are not asked for. Drafts do not change them.
///
/// `logprobs`: false, the default: none.
/// `top`: of how many of the likeliest tokens, at most 256; 0: of the token chosen alone.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generation_set_logprobs(
    generation: *mut layerline_generation,
    logprobs: bool,
    top: u32,
) -> layerline_status {
    caller!().status(|c| c.handle(generation)?.lock()?.set_logprobs(logprobs.then_some(top as usize)))
}

/// What the last generation was.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_generation_stats {
    /// Set by the caller to sizeof(layerline_generation_stats) before the call.
    pub struct_size: u32,
    /// Why it ended: one of LAYERLINE_END_.
    pub end: i32,
    /// Tokens chosen, one that ended the text included.
    pub tokens: u64,
    /// Passes after those of the prompt.
    pub passes: u64,
    /// Tokens that were drafted.
    pub drafted: u64,
    /// Those of them that the sampler chose.
    pub accepted: u64,
    /// Nanoseconds that drafts have saved, by estimate, less those they have cost.
    pub gained_ns: i64,
    /// Tokens of the session that were dropped to make room: `layerline_generation_set_context_policy`.
    pub dropped: u64,
}

versioned!(layerline_generation_stats as "stats", up to gained_ns: i64);

/// Fills `stats` with figures of the last generation; set `stats->struct_size` before the call.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while a generation runs. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_generation_get_stats(
    generation: *const layerline_generation,
    stats: *mut layerline_generation_stats,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (handle, out) = (c.handle(generation)?, c.out_struct(stats)?);
        let stats = handle.lock()?.stats();
        out.set(layerline_generation_stats {
            struct_size: size_of::<layerline_generation_stats>() as u32,
            end: match stats.end {
                End::None => LAYERLINE_END_NONE,
                End::EndToken => LAYERLINE_END_TOKEN,
                End::Length => LAYERLINE_END_LENGTH,
                End::StopString => LAYERLINE_END_STOP,
                End::Callback => LAYERLINE_END_CALLBACK,
                End::Context => LAYERLINE_END_CONTEXT,
                End::Constraint => LAYERLINE_END_CONSTRAINT,
            },
            tokens: stats.tokens,
            passes: stats.passes,
            drafted: stats.drafted,
            accepted: stats.accepted,
            gained_ns: (stats.gained_seconds * 1e9) as i64,
            dropped: stats.dropped,
        });
        Ok(())
    })
}

/// As `layerline_session_generate`, with the settings of a generation.
///
/// `callback`, `user_data`: see `layerline_token_callback`. With stop strings a piece may hold text of earlier tokens too,
/// which was kept back. The token that completes a stop string is passed on only where text before the stop string comes
/// with it.
///
/// Errors: as `layerline_session_generate`; those of passes of a model that drafts, and of `layerline_constraint_mask`;
/// LAYERLINE_ERROR_INVALID_ARGUMENT also where that model, or the constraint's, has other tokens; LAYERLINE_ERROR_BUSY also while the generation is in use. Where the model has recurrent layers,
/// an error may leave the session without the last tokens that were passed on: its position tells. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_generate_with(
    session: *mut layerline_session,
    generation: *mut layerline_generation,
    sampler: *mut layerline_sampler,
    prompt: *const i32,
    count: usize,
    callback: layerline_token_callback,
    user_data: *mut c_void,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, generation, sampler) = (c.handle(session)?, c.handle(generation)?, c.handle(sampler)?);
        let prompt = c.array(prompt, count, "prompt")?;
        let on_token = passing_on(callback, user_data)?;
        let (mut session, mut generation, mut sampler) = (session.write()?, generation.lock()?, sampler.lock()?);
        let model = Arc::clone(session.model());
        generation.run(&mut *session, model.tokenizer()?, &mut sampler, prompt, on_token)
    })
}

/// A token and how likely it was.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_token_logprob {
    /// The token.
    pub token: i32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

// Those of a generation are given out as they are.
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<layerline_token_logprob>() == size_of::<TokenLogprob>());
    assert!(offset_of!(layerline_token_logprob, token) == offset_of!(TokenLogprob, token));
    assert!(offset_of!(layerline_token_logprob, logprob) == offset_of!(TokenLogprob, logprob));
};

/// A token that was generated. The library fills it, and may know more members than the host: look at none that lies beyond
/// `struct_size`. What it points to is valid during the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_generated {
    /// Bytes of the struct that the library has filled.
    pub struct_size: u32,
    /// What was sampled.
    pub token: i32,
    /// The text that became whole with it, as `layerline_token_callback` gets it; not NUL-terminated.
    pub piece: *const c_char,
    /// Bytes of `piece`.
    pub length: usize,
    /// The natural logarithm of the token's probability by the softmax of the model's logits. NaN where
    /// `layerline_generation_set_logprobs` has not asked for it.
    pub logprob: f32,
    /// The same by what the token was drawn from: what the sampler's chain left, divided by the temperature. A greedy choice
    /// is certain, 0. NaN where not asked for.
    pub sampled_logprob: f32,
    /// The likeliest tokens by the model's logits, the likeliest first, of equals the lowest; NULL where there are none.
    /// Tokens that are impossible are left out.
    pub top: *const layerline_token_logprob,
    /// How many there are.
    pub top_count: usize,
    /// The likeliest tokens of what was drawn from, in the same order; NULL where there are none.
    pub sampled_top: *const layerline_token_logprob,
    /// How many there are.
    pub sampled_top_count: usize,
}

/// Gets each generated token, on the thread that called `layerline_session_generate_detailed`; false stops.
///
/// `generated`: the token and what is known of it; valid during the call.
/// `user_data`: as given to `layerline_session_generate_detailed`.
///
/// What holds for `layerline_token_callback` holds for it.
pub type layerline_generated_callback =
    Option<unsafe extern "C" fn(generated: *const layerline_generated, user_data: *mut c_void) -> bool>;

/// Runs and generates as `layerline_session_generate_with` does, with a callback that gets all that is known of each token:
/// log-probabilities, where `layerline_generation_set_logprobs` asks for them.
///
/// `callback`, `user_data`: see `layerline_generated_callback`. It gets the same tokens with the same pieces.
///
/// Errors: as `layerline_session_generate_with`. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_generate_detailed(
    session: *mut layerline_session,
    generation: *mut layerline_generation,
    sampler: *mut layerline_sampler,
    prompt: *const i32,
    count: usize,
    callback: layerline_generated_callback,
    user_data: *mut c_void,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, generation, sampler) = (c.handle(session)?, c.handle(generation)?, c.handle(sampler)?);
        let prompt = c.array(prompt, count, "prompt")?;
        let callback = callback.ok_or_else(|| Error::invalid("callback is NULL"))?;
        let on_token = |made: Generated| {
            let filled = layerline_generated::of(&made);
            // SAFETY: the host gave the function, for the time of the call that this is made in.
            let goes_on = || unsafe { callback(&filled, user_data) };
            if outside(goes_on) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let (mut session, mut generation, mut sampler) = (session.write()?, generation.lock()?, sampler.lock()?);
        let model = Arc::clone(session.model());
        generation.run_detailed(&mut *session, model.tokenizer()?, &mut sampler, prompt, on_token)
    })
}

impl layerline_generated {
    fn of(made: &Generated) -> layerline_generated {
        let top = |of: fn(&crate::generate::Logprobs) -> &Distribution| {
            let top = made.logprobs.map_or(&[][..], |logprobs| &of(logprobs).top);
            (if top.is_empty() { std::ptr::null() } else { top.as_ptr().cast() }, top.len())
        };
        let ((top, top_count), (sampled_top, sampled_top_count)) = (top(|l| &l.raw), top(|l| &l.sampled));
        layerline_generated {
            struct_size: size_of::<layerline_generated>() as u32,
            token: made.token,
            piece: made.piece.as_ptr().cast(),
            length: made.piece.len(),
            logprob: made.logprobs.map_or(f32::NAN, |l| l.raw.chosen),
            sampled_logprob: made.logprobs.map_or(f32::NAN, |l| l.sampled.chosen),
            top,
            top_count,
            sampled_top,
            sampled_top_count,
        }
    }
}

//! Passes of several sessions in the same sweeps.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::pass::Pass;
use super::results::Results;
use super::{Member, Session};
use crate::error::{Error, Result};
use crate::model::Outputs;
use crate::sys::sync::thread;

/// What a session takes in within a batch.
pub struct BatchInput<'a> {
    pub session: &'a mut Session,
    /// At least one.
    pub tokens: &'a [i32],
    pub outputs: Outputs,
}

/// A pass as [`Session::forward`] runs it for each input, with every page of the weights read once for all of them as far as
/// they fit into a chunk; longer ones go on in further sweeps. Each session has the results that it would have alone, to the
/// bit, and each input its own success or failure: that of one leaves the others alone, except that storage that fails
/// fails all passes of the sweep.
///
/// Sessions of other models than the first one's are refused.
pub fn forward_batch(inputs: &mut [BatchInput]) -> Vec<Result<()>> {
    let since: Vec<u64> = inputs.iter().map(|input| input.session.interrupt.settled()).collect();
    let results = forward_batch_since(inputs, &since);
    inputs.iter().for_each(|input| input.session.interrupt.settle());
    results
}

/// An input of which a pass has begun, or how that ended.
type Course = std::result::Result<Pass, Result<()>>;

fn forward_batch_since(inputs: &mut [BatchInput], since: &[u64]) -> Vec<Result<()>> {
    let Some(model) = inputs.first().map(|input| input.session.model.clone()) else { return Vec::new() };
    let begin = |(input, &since): (&mut BatchInput, &u64)| {
        let BatchInput { session, tokens, outputs } = input;
        if !Arc::ptr_eq(&session.model, &model) {
            return Err(Err(Error::invalid("the session is one of another model than the first of the batch")));
        }
        session.check(tokens, *outputs).map_err(Err)?;
        let results = Results::claim(&model, *outputs, tokens.len()).map_err(Err)?;
        session.bring(tokens).map_err(Err)?;
        session.begin_pass(*outputs, results, since).map_err(Err)
    };
    let mut courses: Vec<Course> = inputs.iter_mut().zip(since).map(begin).collect();
    loop {
        let mut own: Vec<Arc<Member>> = Vec::new();
        for (input, course) in inputs.iter_mut().zip(&mut courses) {
            if let Ok(pass) = course {
                input.session.lend(pass);
                own.push(input.session.member.clone());
            }
        }
        if own.is_empty() {
            break;
        }
        model.loaded().enter(&own, Some(thread::current().id()));
        // All go on together, so that they share the next sweep too.
        let mut waiting = own;
        let mut fault = None;
        while !waiting.is_empty() {
            match catch_unwind(AssertUnwindSafe(|| model.loaded().advance(&waiting, || false))) {
                Ok(advanced) => {
                    // It fails only in another process than the model's, where no pass begins.
                    debug_assert!(advanced.is_ok());
                    if advanced.is_err() {
                        break;
                    }
                }
                Err(payload) => fault = Some(payload),
            }
            waiting.retain(|member| !member.has_ended());
        }
        for (input, course) in inputs.iter_mut().zip(&mut courses) {
            let Ok(pass) = course else { continue };
            let session = &mut *input.session;
            session.take_back(pass);
            let Some(outcome) = session.member.take_outcome() else { continue };
            if outcome.fault && fault.is_none() {
                fault = Some(Box::new("a fault inside the library ended the sweep that this pass shared"));
            }
            match session.absorb(pass, outcome) {
                Ok(false) => {}
                Ok(true) => *course = Err(Ok(())),
                Err(e) => *course = Err(Err(e)),
            }
        }
        if let Some(payload) = fault {
            for (input, course) in inputs.iter_mut().zip(&mut courses) {
                if let Ok(pass) = course {
                    input.session.undo(pass);
                }
            }
            resume_unwind(payload);
        }
    }
    courses.into_iter().map(|course| course.map_or_else(|ended| ended, |_| Ok(()))).collect()
}

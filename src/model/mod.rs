//! A model: its description, its tokeniser, its weights, and the budget they share.

mod adapter;
mod fingerprint;
mod memory;
mod open;
mod profile;
mod types;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::arch::Description;
use crate::error::{Error, Result};
use crate::exec::{Loaded, PassQueue};
use crate::gguf::{self, Metadata};
use crate::kernel::Isa;
use crate::sys::heap::Trimmed;
#[cfg(feature = "constraints")]
use crate::sys::sync::Mutex;
use crate::text::{Chat, Tokenizer};
#[cfg(feature = "constraints")]
use crate::text::{Guide, GuidePlan};
use crate::weights::Engine;
#[cfg(all(test, feature = "prefetch"))]
use crate::weights::source::Source;

pub use crate::exec::{Embeddings, Logits, Outputs};
pub use crate::weights::source::HostSource;
pub use crate::weights::{Event, EventKind, Io, LayerState, Stats};
pub use adapter::Adapter;
use fingerprint::Fingerprint;
use profile::Profile;
pub use types::{Info, KvType, Options, Plan};

#[cfg(all(test, feature = "prefetch"))]
type BoxedSource = Box<dyn Source>;

/// An opened model. Sessions share it; everything may be called from any thread.
pub struct Model {
    description: Description,
    metadata: Metadata,
    tokenizer: std::result::Result<Arc<Tokenizer>, Error>,
    /// What constraints need of the tokeniser, once there was one.
    #[cfg(feature = "constraints")]
    guide: Mutex<Option<Arc<Guide>>>,
    parameter_count: u64,
    fingerprint: Fingerprint,
    io: Io,
    chunk_length: usize,
    default_context: usize,
    kv_type: KvType,
    /// Before the engine, so that its thread is gone first.
    passes: PassQueue,
    loaded: Loaded,
    _heap: Trimmed,
}

impl Model {
    /// What the model at `path` needs at these options; nothing of its weights is read. The budget may be below the
    /// floor: the plan says what the floor is.
    pub fn plan(path: &Path, options: &Options) -> Result<Plan> {
        open::plan(path, options)
    }

    /// Opens the model at `path`, the first file of it where it is split. Returns as soon as the directory is read and
    /// checked; weights arrive in the background.
    pub fn open(path: &Path, options: &Options) -> Result<Arc<Model>> {
        open::open_path(path, options)
    }

    /// Opens a model that lies inside a file, `length` bytes from `offset`; 0: to the end of the file.
    pub fn open_file(file: File, offset: u64, length: u64, options: &Options) -> Result<Arc<Model>> {
        open::open_file(file, offset, length, options)
    }

    /// Opens a model from storage of the host's own. `sources`: of a model in several files one for each, the first one's
    /// first, each with the name that its file had. They are dropped when the model, its sessions and the last read are gone.
    ///
    /// [`Options::io`] must be [`Io::Auto`] or [`Io::Buffered`].
    pub fn open_source(sources: &[Arc<dyn HostSource>], options: &Options) -> Result<Arc<Model>> {
        open::open_source(sources, options)
    }

    /// As [`Model::plan`], of a model in storage of the host's own.
    pub fn plan_source(sources: &[Arc<dyn HostSource>], options: &Options) -> Result<Plan> {
        open::plan_source(sources, options)
    }

    /// As [`Model::open`], with each file's source behind one that `wrap` makes.
    #[cfg(all(test, feature = "prefetch"))]
    pub(crate) fn open_behind(
        path: &Path,
        options: &Options,
        wrap: impl Fn(BoxedSource) -> BoxedSource,
    ) -> Result<Arc<Model>> {
        open::open_behind(path, options, wrap)
    }

    pub fn info(&self) -> Info {
        let s = self.description.shape;
        let text = self.tokenizer().ok();
        let experts = self.description.experts();
        Info {
            layer_count: self.description.layers.len() as u32,
            embedding_length: s.embedding as u32,
            head_count: s.heads as u32,
            head_count_kv: s.kv_heads as u32,
            vocab_size: s.vocab as u32,
            context_length: s.context,
            expert_count: experts.map_or(0, |e| e.count as u32),
            expert_used_count: experts.map_or(0, |e| e.used as u32),
            bos_token: text.and_then(Tokenizer::bos),
            eos_token: text.and_then(Tokenizer::eos),
            parameter_count: self.parameter_count,
            has_head: self.description.head.is_some(),
            causal: self.description.causal,
            has_chat_template: self.metadata.get("tokenizer.chat_template").is_some(),
            has_recurrent_memory: self.description.layers.iter().any(|l| l.recurrent.is_some()),
        }
    }

    /// A scalar or string of the metadata, as text.
    pub fn metadata(&self, key: &str) -> Option<String> {
        self.metadata.get(key).and_then(gguf::value_as_text)
    }

    /// The tokeniser.
    ///
    /// # Errors
    /// `UNSUPPORTED`: the file has none, or one that is not built in; `FORMAT`: it is malformed. Passes work all the
    /// same.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_deref().map_err(Clone::clone)
    }

    /// The chat template, with the tokeniser. A model that has none says so when it is asked to format.
    pub fn chat(&self) -> Chat<'_> {
        Chat::new(&self.metadata, &self.tokenizer)
    }

    /// What constraints need of the vocabulary. The first call builds it, in memory that the budget gives for as long as the
    /// model is open; others wait meanwhile.
    ///
    /// # Errors
    /// Those of [`Model::tokenizer`]; `MEMORY_BUDGET`; `OUT_OF_MEMORY`.
    #[cfg(feature = "constraints")]
    pub(crate) fn guide(&self) -> Result<Arc<Guide>> {
        let mut guide = self.guide.lock();
        if let Some(guide) = &*guide {
            return Ok(guide.clone());
        }
        let tokenizer = self.tokenizer.as_ref().map_err(Clone::clone)?;
        let plan = GuidePlan::new(tokenizer)?;
        let bytes = plan.memory_bytes();
        self.engine().reserve(bytes).map_err(|e| e.context("the tokens of constraints"))?;
        Ok(guide.insert(Arc::new(plan.build(tokenizer.clone()))).clone())
    }

    /// Changes the budget, from any thread, while passes run. Memory is given back as soon as no pass uses it.
    ///
    /// # Errors
    /// `MEMORY_BUDGET`: below what the model and its sessions need now; nothing has changed then.
    pub fn set_memory_budget(&self, bytes: u64) -> Result<()> {
        let bytes = if bytes == 0 { memory::automatic_budget() + self.engine().stats().used_bytes } else { bytes };
        self.engine().set_budget(bytes)
    }

    /// Asks for `count` layers from `first_layer`; returns a ticket at once. Events tell when they are there.
    pub fn prefetch(&self, first_layer: u32, count: u32) -> Result<u64> {
        self.engine().prefetch(first_layer, count)
    }

    /// Ends a prefetch or a submitted pass. Nothing happens where it has ended already.
    pub fn cancel(&self, ticket: u64) -> Result<()> {
        self.engine().cancel(ticket)?;
        self.passes.withdraw(ticket);
        Ok(())
    }

    /// Takes up to `cap` events that wait.
    pub fn poll(&self, events: &mut Vec<Event>, cap: usize) {
        self.engine().poll(events, cap);
    }

    /// Waits for events, at most `timeout`, and takes up to `cap`.
    pub fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>, cap: usize) {
        self.engine().wait(timeout, events, cap);
    }

    /// What an event loop watches: a file descriptor that is readable while events wait, or on Windows the HANDLE of an event
    /// that is signalled meanwhile. `None`: the system has no such thing. It is the model's, and goes with it.
    pub fn event_handle(&self) -> Option<isize> {
        self.engine().event_handle()
    }

    pub fn layer_state(&self, layer: u32) -> Result<LayerState> {
        self.engine().layer_state(layer)
    }

    pub fn stats(&self) -> Stats {
        Stats { io: self.io, ..self.engine().stats() }
    }

    /// Keys of the metadata: those of the file, but for the arrays that the tokeniser has taken over.
    pub fn metadata_keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.metadata.entries.iter().map(|(key, _)| key.as_str())
    }

    /// How the background request of this ticket failed; `Ok` where it succeeded or is under way.
    ///
    /// # Errors
    /// The request's own; `NOT_FOUND`: there is no such ticket, or it is too old to tell.
    pub fn ticket_error(&self, ticket: u64) -> Result<()> {
        self.engine().ticket_error(ticket)
    }

    /// Writes how likely each expert is to be used, by all passes so far and by the profile that the model was opened with,
    /// to a file for [`Options::profile`]. The file gets its name when it is complete and on storage.
    ///
    /// # Errors
    /// `UNSUPPORTED`: the model has no experts; `IO`, after which a file that was there is as before; `OUT_OF_MEMORY`.
    pub fn save_profile(&self, path: &Path) -> Result<()> {
        if self.engine().schedule().experts.is_empty() {
            return Err(Error::unsupported("the model has no experts, whose use a profile could tell"));
        }
        Profile { fingerprint: self.fingerprint()?, experts: self.engine().expert_profile()? }.save(path)
    }

    pub(crate) fn description(&self) -> &Description {
        &self.description
    }

    /// Whether this is the layer of a file that predicts further tokens: see [`Options::predictor`].
    pub fn is_predictor(&self) -> bool {
        self.description.predictor.is_some()
    }

    /// What passes need of it.
    pub(crate) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    pub(crate) fn isa(&self) -> Isa {
        self.loaded.isa
    }

    pub(crate) fn chunk_length(&self) -> usize {
        self.chunk_length
    }

    pub(crate) fn default_context(&self) -> usize {
        self.default_context
    }

    pub(crate) fn kv_type(&self) -> KvType {
        self.kv_type
    }

    pub(crate) fn passes(&self) -> &PassQueue {
        &self.passes
    }

    /// What tells this model from others; see [`Fingerprint`] for what it sees.
    ///
    /// # Errors
    /// `IO`, `OUT_OF_MEMORY`.
    pub(crate) fn fingerprint(&self) -> Result<u128> {
        self.fingerprint.get(self.engine())
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.loaded.engine
    }
}

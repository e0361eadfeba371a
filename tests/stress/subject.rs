//! A model that the threads share, and what the test knows of its sessions.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use layerline::Status;
use layerline::model::{Logits, Model, Options};
use layerline::session::{Session, SharedSession};
use layerline::weights::SharedBudget;
use parking_lot::Mutex;

use crate::book::Book;
use crate::reference::{Sequence, sequences};

/// Tokens that every session has room for.
pub const CONTEXT: u32 = 32;

/// A budget, and between what it is moved. `shared`: for several models.
#[derive(Clone)]
pub struct Purse {
    shared: Option<Arc<SharedBudget>>,
    floor: u64,
    full: u64,
    total: Arc<Mutex<u64>>,
    members: Arc<Mutex<Vec<Weak<Model>>>>,
}

impl Purse {
    fn new(shared: Option<Arc<SharedBudget>>, floor: u64, full: u64) -> Purse {
        Purse { shared, floor, full, total: Arc::new(Mutex::new(full)), members: Arc::default() }
    }

    /// Filled to the full.
    pub fn shared(floor: u64, full: u64) -> Purse {
        Purse::new(Some(SharedBudget::new(full)), floor, full)
    }
}

pub struct Subject {
    pub name: &'static str,
    pub model: Arc<Model>,
    pub sequences: Vec<Sequence>,
    pub players: Mutex<Vec<Arc<Player>>>,
    pub book: Mutex<Book>,
    pub right: AtomicU64,
    pub cancelled: AtomicU64,
    purse: Purse,
}

/// A session. Whoever has the track may change it; the others interrupt it, look at it, or let it be.
pub struct Player {
    pub session: SharedSession,
    pub track: Mutex<Track>,
}

/// Where in which sequence the session stands.
pub struct Track {
    pub sequence: usize,
    pub position: usize,
    pub pending: Option<Pending>,
}

/// A submitted pass whose event has not been seen by the session's user.
pub struct Pending {
    pub ticket: u64,
    pub tokens: usize,
    pub logits: Logits,
}

fn path(name: &str) -> PathBuf {
    crate::drawn::golden(&format!("{name}.gguf"))
}

impl Subject {
    /// The least budget of a model, and one with room for all of it and three sessions more.
    pub fn bounds(name: &str, options: &Options) -> (u64, u64) {
        let plan = Model::plan(&path(name), &Options { memory_budget: 1 << 30, ..options.clone() }).unwrap();
        (plan.floor_bytes, plan.full_bytes + 3 * plan.kv_bytes)
    }

    /// `purse`: one that others have too.
    pub fn open(name: &'static str, options: &Options, purse: Option<Purse>) -> Subject {
        let sequences = sequences(&path(name), options);
        let (floor, full) = Subject::bounds(name, options);
        let purse = purse.unwrap_or_else(|| Purse::new(None, floor, full));
        let options = Options { memory_budget: full, shared_budget: purse.shared.clone(), ..options.clone() };
        let model = Model::open(&path(name), &options).unwrap();
        purse.members.lock().push(Arc::downgrade(&model));
        Subject {
            name,
            model,
            sequences,
            players: Mutex::default(),
            book: Mutex::default(),
            right: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            purse,
        }
    }

    /// Sets the budget to `eighths` of the way from the least to the most. Whether there was room for the sessions.
    pub fn set_budget(&self, eighths: u64) -> bool {
        let Purse { floor, full, .. } = self.purse;
        let bytes = floor + (full - floor) * eighths / 8;
        let mut total = self.purse.total.lock();
        let result = match &self.purse.shared {
            Some(budget) => budget.set_total(bytes),
            None => self.model.set_memory_budget(bytes),
        };
        match result {
            Ok(()) => {
                *total = bytes;
                true
            }
            Err(e) => {
                assert_eq!(e.status(), Status::MemoryBudget, "{}: {e}", self.name);
                false
            }
        }
    }

    /// Memory beyond the budget is only what a pass is about to release.
    pub fn await_within_budget(&self, each: impl Fn()) {
        let is_within = || {
            let total = *self.purse.total.lock();
            let stats: Vec<_> = self.purse.members.lock().iter().filter_map(|m| Some(m.upgrade()?.stats())).collect();
            let used: u64 = stats.iter().map(|s| s.used_bytes).sum();
            stats.iter().all(|s| s.used_bytes <= s.budget_bytes) && used <= total
        };
        let mut turns = 0u64;
        while !is_within() {
            turns += 1;
            assert!(turns < 1_000_000, "{}: more than the budget is used: {:?}", self.name, self.model.stats());
            std::thread::sleep(Duration::from_micros(100));
        }
        each();
    }

    pub fn poll(&self) {
        let mut events = Vec::new();
        self.model.poll(&mut events, 3);
        events.into_iter().for_each(|event| self.book.lock().take(event));
    }

    pub fn wait(&self, time: Duration) {
        let mut events = Vec::new();
        self.model.wait(Some(time), &mut events, 50);
        events.into_iter().for_each(|event| self.book.lock().take(event));
    }

    /// Looks at the session where its submitted pass is done. Whether it can be used.
    pub fn welcome(&self, player: &Player, track: &mut Track) -> bool {
        let Some(pending) = &track.pending else { return true };
        let Some(outcome) = self.book.lock().outcome(pending.ticket) else { return false };
        let session = player.session.read().expect("the session is at home when the event is there");
        if outcome.is_none() {
            self.check_logits(&session, track, pending.tokens, pending.logits);
            track.position += pending.tokens;
        } else {
            self.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(session.position(), track.position, "{}: after ticket {}", self.name, pending.ticket);
        track.pending = None;
        true
    }

    /// The logits that a pass of `tokens` tokens from the track's position has left.
    pub fn check_logits(&self, session: &Session, track: &Track, tokens: usize, logits: Logits) {
        let sequence = &self.sequences[track.sequence];
        let end = track.position + tokens;
        let (rows, first) = match logits {
            Logits::Last => (1, end - 1),
            Logits::All => (tokens, track.position),
            Logits::None => (0, end),
        };
        assert_eq!(session.logit_rows(), rows);
        (0..rows).for_each(|row| sequence.assert_row(session, row, first + row, self.name));
        self.right.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes events until every ticket is done, and looks at every session a last time.
    pub fn settle(&self, each: impl Fn()) {
        while !self.book.lock().is_settled() {
            self.wait(Duration::from_millis(100));
        }
        let players = std::mem::take(&mut *self.players.lock());
        for player in &players {
            assert!(self.welcome(player, &mut player.track.lock()));
            each();
        }
        drop(players);
        let mut rest = Vec::new();
        self.model.poll(&mut rest, 1000);
        rest.into_iter().for_each(|event| self.book.lock().take(event));
        self.book.lock().assert_complete();
    }

    /// With no session left the least budget is enough again, and a pass in it has the right bits.
    pub fn assert_shrinks_to_floor(&self, each: impl Fn()) {
        assert!(self.set_budget(0), "{}: sessions have kept memory: {:?}", self.name, self.model.stats());
        self.await_within_budget(each);
        let mut session = Session::new(&self.model, 0).unwrap();
        let sequence = &self.sequences[0];
        session.forward(&sequence.tokens, Logits::Last).unwrap();
        sequence.assert_row(&session, 0, sequence.tokens.len() - 1, self.name);
    }

    pub fn tickets(&self) -> String {
        format!("{} tickets", self.book.lock().count())
    }

    /// Lets go of the model; what is returned tells when it is gone.
    pub fn close(self) -> Weak<Model> {
        Arc::downgrade(&self.model)
    }
}

//! One thread's choices: from its seed, whatever the others do.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use layerline::Status;
use layerline::generate::{Sampler, generate};
use layerline::model::Logits;
use layerline::session::{Session, SharedSession};
use parking_lot::Mutex;

use crate::book;
use crate::reference::{GENERATED, LENGTH, Mute, PROMPT};
use crate::subject::{CONTEXT, Pending, Player, Subject, Track};
use crate::watchdog::Post;

/// Of one model, if the budget has room for them.
const MOST_SESSIONS: usize = 5;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

pub struct Worker<'a> {
    random: Random,
    subjects: &'a [Subject],
    post: Post,
    /// What this thread asked for last, by subject.
    tickets: Vec<Option<u64>>,
}

type Act<'a> = fn(&mut Worker<'a>, usize);

impl<'a> Worker<'a> {
    pub fn new(seed: u64, index: usize, subjects: &'a [Subject], post: Post) -> Worker<'a> {
        let random = Random(seed.wrapping_mul(1_000_003).wrapping_add(index as u64));
        Worker { random, subjects, post, tickets: vec![None; subjects.len()] }
    }

    /// What may be done, and how often in proportion.
    fn acts() -> [(usize, &'static str, Act<'a>); 14] {
        [
            (24, "forward", Worker::forward),
            (16, "submit", Worker::submit),
            (4, "generate", Worker::generate),
            (6, "truncate", Worker::truncate),
            (5, "open a session", Worker::open),
            (3, "close a session", Worker::close),
            (3, "interrupt", Worker::interrupt),
            (6, "cancel", Worker::cancel),
            (8, "prefetch", Worker::prefetch),
            (14, "poll", |worker, at| worker.subjects[at].poll()),
            (6, "wait", |worker, at| worker.subjects[at].wait(Duration::from_millis(2))),
            (4, "layer state", Worker::layer_state),
            (4, "set the budget", Worker::set_budget),
            (4, "stats", |worker, at| worker.subjects[at].await_within_budget(|| ())),
        ]
    }

    pub fn run(&mut self, end: Instant) {
        let acts = Self::acts();
        let total = acts.iter().map(|(weight, ..)| weight).sum();
        while Instant::now() < end {
            let at = self.random.below(self.subjects.len());
            let mut choice = self.random.below(total);
            for &(weight, name, act) in &acts {
                if choice < weight {
                    self.post.begins(name, self.subjects[at].name);
                    act(self, at);
                    break;
                }
                choice -= weight;
            }
        }
        self.post.ends();
    }

    fn any_player(&mut self, at: usize) -> Option<Arc<Player>> {
        let players = self.subjects[at].players.lock();
        if players.is_empty() { None } else { Some(players[self.random.below(players.len())].clone()) }
    }

    /// A session, where nobody else uses it and no pass has it, for `use_it`.
    fn with_player(&mut self, at: usize, use_it: impl FnOnce(&mut Self, &Player, &mut Track)) {
        let Some(player) = self.any_player(at) else { return };
        let subject = &self.subjects[at];
        if let Some(mut track) = player.track.try_lock()
            && subject.welcome(&player, &mut track)
        {
            return use_it(self, &player, &mut track);
        }
        // It is in use, or about to be: told at once, either way.
        if let Err(e) = player.session.read().map(|session| session.position()) {
            assert_eq!(e.status(), Status::Busy, "{e}");
        }
    }

    /// How many tokens of its sequence the session is given next, and of which of them logits are wanted.
    fn choose_pass(&mut self, track: &Track) -> (usize, Logits) {
        let tokens = 1 + self.random.below((LENGTH - track.position).min(8));
        let logits = [Logits::Last, Logits::Last, Logits::All, Logits::None][self.random.below(4)];
        (tokens, logits)
    }

    fn forward(&mut self, at: usize) {
        self.with_player(at, |worker, player, track| {
            let subject = &worker.subjects[at];
            // Another thread may be looking at it.
            let Ok(mut session) = player.session.write() else { return };
            if track.position == LENGTH {
                worker.begin_again(track, &mut session, at);
            }
            let (tokens, logits) = worker.choose_pass(track);
            let part = &subject.sequences[track.sequence].tokens[track.position..][..tokens];
            match session.forward(part, logits) {
                Ok(()) => {
                    subject.check_logits(&session, track, tokens, logits);
                    track.position += tokens;
                }
                Err(e) if e.status() == Status::Cancelled => _ = subject.cancelled.fetch_add(1, Ordering::Relaxed),
                Err(e) => assert!(e.status() == Status::MemoryBudget && logits == Logits::All, "{e}"),
            }
            assert_eq!(session.position(), track.position);
        });
    }

    fn submit(&mut self, at: usize) {
        self.with_player(at, |worker, player, track| {
            let subject = &worker.subjects[at];
            if track.position == LENGTH {
                return;
            }
            let (tokens, logits) = worker.choose_pass(track);
            let part = &subject.sequences[track.sequence].tokens[track.position..][..tokens];
            match player.session.submit(part, logits) {
                Ok(ticket) => {
                    track.pending = Some(Pending { ticket, tokens, logits });
                    worker.tickets[at] = Some(ticket);
                    subject.book.lock().issued(ticket, book::PASS);
                }
                Err(e) => match e.status() {
                    Status::Busy => {}
                    Status::MemoryBudget => assert_eq!(logits, Logits::All, "{e}"),
                    Status::Unsupported if !cfg!(feature = "prefetch") => {}
                    _ => panic!("{e}"),
                },
            }
        });
    }

    fn generate(&mut self, at: usize) {
        self.with_player(at, |worker, player, track| {
            let Ok(mut session) = player.session.write() else { return };
            worker.begin_again(track, &mut session, at);
            let subject = &worker.subjects[at];
            let sequence = &subject.sequences[track.sequence];
            let mut tokens = Vec::new();
            let each = |token: i32, _: &str| {
                tokens.push(token);
                ControlFlow::Continue(())
            };
            let prompt = &sequence.tokens[..PROMPT];
            let result = generate(&mut *session, &Mute, &mut Sampler::new(), prompt, GENERATED, each);
            assert!(sequence.generated.starts_with(&tokens), "{tokens:?}");
            match result {
                Ok(()) => {
                    assert_eq!(tokens.len(), GENERATED);
                    assert_eq!(session.position(), PROMPT + GENERATED - 1);
                    subject.right.fetch_add(GENERATED as u64, Ordering::Relaxed);
                }
                Err(e) => assert_eq!(e.status(), Status::Cancelled, "{e}"),
            }
            track.position = session.position().min(PROMPT);
            session.truncate(track.position).unwrap();
        });
    }

    fn begin_again(&mut self, track: &mut Track, session: &mut Session, at: usize) {
        session.truncate(0).unwrap();
        (track.position, track.sequence) = (0, self.random.below(self.subjects[at].sequences.len()));
    }

    fn truncate(&mut self, at: usize) {
        self.with_player(at, |worker, player, track| {
            let Ok(mut session) = player.session.write() else { return };
            track.position = worker.random.below(track.position + 1);
            session.truncate(track.position).unwrap();
        });
    }

    fn open(&mut self, at: usize) {
        let subject = &self.subjects[at];
        if subject.players.lock().len() >= MOST_SESSIONS {
            return;
        }
        match Session::new(&subject.model, CONTEXT) {
            Ok(session) => {
                let sequence = self.random.below(subject.sequences.len());
                let track = Mutex::new(Track { sequence, position: 0, pending: None });
                let player = Player { session: SharedSession::new(session), track };
                subject.players.lock().push(Arc::new(player));
            }
            Err(e) => assert_eq!(e.status(), Status::MemoryBudget, "{e}"),
        }
    }

    /// A pass of it may be running or waiting, or another thread may be using it still.
    fn close(&mut self, at: usize) {
        let mut players = self.subjects[at].players.lock();
        if players.len() > 1 {
            let chosen = self.random.below(players.len());
            let player = players.swap_remove(chosen);
            drop(players);
            drop(player);
        }
    }

    fn interrupt(&mut self, at: usize) {
        if let Some(player) = self.any_player(at) {
            player.session.interrupt();
        }
    }

    /// Something that this thread asked for; it may have ended long ago.
    fn cancel(&mut self, at: usize) {
        if let Some(ticket) = self.tickets[at] {
            self.subjects[at].model.cancel(ticket).unwrap();
        }
    }

    fn prefetch(&mut self, at: usize) {
        let subject = &self.subjects[at];
        let layers = subject.model.info().layer_count;
        let first = self.random.below(layers as usize) as u32;
        let count = 1 + self.random.below((layers - first) as usize) as u32;
        match subject.model.prefetch(first, count) {
            Ok(ticket) => {
                subject.book.lock().issued(ticket, book::PREFETCH);
                self.tickets[at] = Some(ticket);
            }
            Err(e) => assert!(e.status() == Status::Unsupported && !cfg!(feature = "prefetch"), "{e}"),
        }
    }

    fn layer_state(&mut self, at: usize) {
        let model = &self.subjects[at].model;
        let layers = model.info().layer_count;
        model.layer_state(self.random.below(layers as usize) as u32).unwrap();
        assert_eq!(model.layer_state(layers).unwrap_err().status(), Status::InvalidArgument);
    }

    fn set_budget(&mut self, at: usize) {
        let eighths = self.random.below(9) as u64;
        let subject = &self.subjects[at];
        if subject.set_budget(eighths) {
            subject.await_within_budget(|| self.post.lives());
        }
    }
}

//! What is used of parking_lot and crossbeam, made of shuttle's locks. Time does not pass here: who waits without
//! a limit waits until he is woken, and whose timeout is limited finds it at an end whenever he runs again.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

pub struct Mutex<T>(shuttle::sync::Mutex<T>);

pub struct MutexGuard<'a, T> {
    mutex: &'a shuttle::sync::Mutex<T>,
    /// Empty only while a [`Condvar`] has it.
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

/// A lock says that it is poisoned only after a test has failed; what ends with the test then must not panic again.
fn unpoisoned<G>(result: Result<G, PoisonError<G>>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        super::buffered::write_out();
        MutexGuard { mutex: &self.0, held: Some(unpoisoned(self.0.lock())) }
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        super::buffered::write_out();
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.held.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().unwrap()
    }
}

pub struct Condvar(shuttle::sync::Condvar);

pub struct TimedOut;

impl TimedOut {
    pub fn timed_out(&self) -> bool {
        true
    }
}

impl Default for Condvar {
    fn default() -> Condvar {
        Condvar::new()
    }
}

impl Condvar {
    pub fn new() -> Condvar {
        Condvar(shuttle::sync::Condvar::new())
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        super::buffered::write_out();
        let held = guard.held.take().unwrap();
        guard.held = Some(unpoisoned(self.0.wait(held)));
    }

    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> TimedOut {
        guard.held = None;
        shuttle::thread::yield_now();
        guard.held = Some(unpoisoned(guard.mutex.lock()));
        TimedOut
    }

    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> TimedOut {
        self.wait_for(guard, Duration::ZERO)
    }
}

pub mod channel {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::time::Instant;

    use super::{Condvar, Mutex};

    #[derive(Debug)]
    pub struct Disconnected;

    pub enum TrySendError<T> {
        Full(T),
        Disconnected(T),
    }

    struct Queue<T> {
        waiting: VecDeque<T>,
        most: usize,
        senders: usize,
        receivers: usize,
    }

    struct Shared<T> {
        queue: Mutex<Queue<T>>,
        changed: Condvar,
    }

    pub struct Sender<T>(Arc<Shared<T>>);
    pub struct Receiver<T>(Arc<Shared<T>>);

    pub fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
        let queue = Mutex::new(Queue { waiting: VecDeque::new(), most, senders: 1, receivers: 1 });
        let shared = Arc::new(Shared { queue, changed: Condvar::new() });
        (Sender(shared.clone()), Receiver(shared))
    }

    pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        bounded(usize::MAX)
    }

    impl<T> Sender<T> {
        pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
            let mut queue = self.0.queue.lock();
            if queue.receivers == 0 {
                return Err(TrySendError::Disconnected(value));
            }
            if queue.waiting.len() == queue.most {
                return Err(TrySendError::Full(value));
            }
            queue.waiting.push_back(value);
            self.0.changed.notify_all();
            Ok(())
        }

        /// For queues that never fill up.
        pub fn send(&self, value: T) -> Result<(), Disconnected> {
            match self.try_send(value) {
                Ok(()) => Ok(()),
                Err(TrySendError::Disconnected(_)) => Err(Disconnected),
                Err(TrySendError::Full(_)) => panic!("a queue is full that never should be"),
            }
        }
    }

    impl<T> Receiver<T> {
        pub fn recv(&self) -> Result<T, Disconnected> {
            let mut queue = self.0.queue.lock();
            loop {
                if let Some(value) = queue.waiting.pop_front() {
                    return Ok(value);
                }
                if queue.senders == 0 {
                    return Err(Disconnected);
                }
                self.0.changed.wait(&mut queue);
            }
        }

        pub fn is_empty(&self) -> bool {
            self.0.queue.lock().waiting.is_empty()
        }

        /// Patient without limit, so that threads which do not end are found.
        pub fn recv_deadline(&self, _: Instant) -> Result<T, Disconnected> {
            self.recv()
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            self.0.queue.lock().senders += 1;
            Sender(self.0.clone())
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            self.0.queue.lock().receivers += 1;
            Receiver(self.0.clone())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.queue.lock().senders -= 1;
            self.0.changed.notify_all();
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.queue.lock().receivers -= 1;
        }
    }
}

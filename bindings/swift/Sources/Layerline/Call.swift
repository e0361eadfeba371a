import Dispatch
import Foundation

/// Who may use a session: one pass or generation at a time, and short calls between them. A call that was cancelled is
/// waited for, as it ends within the time of one page: the task that cancelled it can go on at once. Any other is not.
final class Turns: @unchecked Sendable {
    // All that follows, and what calls and generations of the session hold, is read and written under this lock alone.
    fileprivate let condition = NSCondition()
    fileprivate var current: Call?

    func locked<Result>(_ body: () throws -> Result) rethrows -> Result {
        condition.lock()
        defer { condition.unlock() }
        return try body()
    }

    /// With the lock held.
    func wait() {
        condition.wait()
    }

    /// With the lock held: wakes those that wait.
    func changed() {
        condition.broadcast()
    }

    /// Gives the turn to `call`, which runs on the session's queue and so after one there that is ending.
    func begin(_ call: Call) throws {
        try locked { try take(call) }
    }

    /// Gives the turn to `call`, which runs on the thread of the caller.
    func beginHere(_ call: Call) throws {
        try locked {
            awaitEnding()
            try take(call)
        }
    }

    /// Runs a short call between others. Nothing else uses the session meanwhile.
    func briefly<Result>(_ body: () throws -> Result) throws -> Result {
        try locked {
            awaitEnding()
            guard current == nil else { throw Self.busy }
            return try body()
        }
    }

    private static let busy = LayerlineError(.busy, "another call on this session is running")

    private func awaitEnding() {
        while current?.cancelled == true {
            wait()
        }
    }

    private func take(_ call: Call) throws {
        guard current?.cancelled != false else { throw Self.busy }
        current = call
    }
}

/// One pass or generation of a session, from before it begins until it is over.
final class Call: @unchecked Sendable {
    private enum State { case waiting, running, over }

    private let turns: Turns
    private let interrupt: @Sendable () -> Void
    private let clear: @Sendable () -> Void
    private var state = State.waiting
    /// To be read under the lock of `turns`.
    private(set) var cancelled = false

    /// `interrupt`: ends what runs, or what runs next; `clear`: takes back what has ended nothing.
    init(_ turns: Turns, interrupt: @escaping @Sendable () -> Void, clear: @escaping @Sendable () -> Void) {
        (self.turns, self.interrupt, self.clear) = (turns, interrupt, clear)
    }

    /// Runs `body` in its turn, and gives the turn back. Throws `CancellationError` where it was cancelled before or
    /// meanwhile, and did not come to its end all the same.
    func run(_ body: () throws -> Void) throws {
        defer {
            turns.locked {
                if cancelled {
                    // It may have come after the last pass, and must not end the next call.
                    clear()
                }
                state = .over
                if turns.current === self {
                    turns.current = nil
                }
                turns.changed()
            }
        }
        try turns.locked {
            if cancelled {
                throw CancellationError()
            }
            state = .running
        }
        do {
            try body()
        } catch let error as LayerlineError where error.status == .cancelled && turns.locked({ cancelled }) {
            throw CancellationError()
        }
    }

    /// Ends it within the time of one page. Any thread, at any time, any number of times.
    func cancel() {
        let first = turns.locked {
            defer { cancelled = true }
            turns.changed()
            return !cancelled
        }
        if first {
            insist()
        }
    }

    /// Cancels it and waits until it is over, which is not for long where it runs no pass.
    func end() {
        cancel()
        turns.locked {
            while state != .over {
                turns.wait()
            }
        }
    }

    /// It may come before the call has begun its pass: so again, until it is over.
    private func insist() {
        let running = turns.locked {
            if state == .running {
                interrupt()
            }
            return state == .running
        }
        if running {
            DispatchQueue.global().asyncAfter(deadline: .now() + .milliseconds(1)) { self.insist() }
        }
    }
}

import CLayerline
@preconcurrency import Dispatch

/// What a request is known by; never 0.
public typealias Ticket = UInt64

/// Where a layer is.
public struct LayerState: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32

    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// Not in memory.
    public static let absent = LayerState(rawValue: LAYERLINE_LAYER_ABSENT)
    /// Reads of it are queued or in flight.
    public static let loading = LayerState(rawValue: LAYERLINE_LAYER_LOADING)
    /// All of it is in memory.
    public static let ready = LayerState(rawValue: LAYERLINE_LAYER_READY)
    /// Ready, and stays.
    public static let pinned = LayerState(rawValue: LAYERLINE_LAYER_PINNED)
}

/// A completion. Each is given out once, to the first that asks.
public struct Event: Hashable, Sendable {
    /// What an event tells.
    public struct Kind: RawRepresentable, Hashable, Sendable {
        public let rawValue: UInt32

        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// One layer of a prefetch is ready, or failed.
        public static let layer = Kind(rawValue: UInt32(LAYERLINE_EVENT_LAYER))
        /// A ticket is finished: all its layers, or its forward pass.
        public static let done = Kind(rawValue: UInt32(LAYERLINE_EVENT_DONE))
    }

    /// What the request returned.
    public let ticket: Ticket
    /// What it tells.
    public let kind: Kind
    /// ``Status/ok``, or why it failed.
    public let status: Status
    /// For ``Kind-swift.struct/layer``.
    public let layer: Int
    /// Read from storage for it; for a pass: while it ran, which includes what was read ahead for the next one.
    public let bytes: UInt64
    /// Since the request.
    public let elapsed: Duration

    init(_ event: layerline_event) {
        ticket = event.ticket
        kind = Kind(rawValue: event.kind)
        status = Status(rawValue: event.status)
        layer = Int(event.layer)
        bytes = event.bytes
        elapsed = .nanoseconds(Int64(clamping: event.elapsed_ns))
    }
}

extension Model {
    /// Asks for layers to be loaded ahead of their use, and returns at once. Each layer gives an event when it is there,
    /// then the ticket one of kind ``Event/Kind-swift.struct/done``. What was loaded is kept until a pass has used it or
    /// the ticket is cancelled, as far as memory allows. A failed prefetch is an event, and no pass fails because of it.
    public func prefetch(_ layers: Range<Int>) throws -> Ticket {
        var ticket: Ticket = 0
        let first: UInt32 = try exact(layers.lowerBound, "the first layer")
        let count: UInt32 = try exact(layers.count, "the number of layers")
        try handle.use { model in try checked { layerline_model_prefetch(model, first, count, &ticket, $0) } }
        return ticket
    }

    /// Ends a prefetch or a submitted pass: its last event comes with ``Status/cancelled``. For one that is finished
    /// already this is no error.
    public func cancel(_ ticket: Ticket) throws {
        try handle.use { model in try checked { layerline_model_cancel(model, ticket, $0) } }
    }

    /// Throws the error of a background request that failed; returns where it has succeeded or is under way.
    public func checkTicket(_ ticket: Ticket) throws {
        try handle.use { model in try checked { layerline_model_ticket_error(model, ticket, $0) } }
    }

    /// Takes up to `limit` events that wait, at least one, oldest first. Never waits.
    public func poll(limit: Int = 64) throws -> [Event] {
        try handle.use { model in try taken(limit) { layerline_model_poll(model, $0, $1, $2, $3) } }
    }

    /// As ``poll(limit:)``, but blocks its thread until the first event comes, at most for `timeout`; nil: without a
    /// limit. In a task, go through ``events()`` instead.
    @available(*, noasync, message: "it blocks the thread: iterate events() instead")
    public func wait(timeout: Duration? = nil, limit: Int = 64) throws -> [Event] {
        let milliseconds = timeout.map(Self.milliseconds) ?? -1
        return try handle.use { model in try taken(limit) { layerline_model_wait(model, milliseconds, $0, $1, $2, $3) } }
    }

    /// Events as they come, without blocking a thread. It has no end: leave the loop, or cancel the task. Each event is
    /// given out once, so one place of the program should ask for those of a model. Throws ``Status/unsupported`` where
    /// the system has no ``eventDescriptor``.
    public func events() -> AsyncThrowingStream<Event, any Error> {
        AsyncThrowingStream { [self] in
            while true {
                try Task.checkCancellation()
                if let event = try poll(limit: 1).first {
                    return event
                }
                try await readable()
            }
        }
    }

    /// A file descriptor that is readable while events wait, for event loops; nil where the system has none. It is the
    /// model's: do not read, write or close it, and hold the model as long as a loop has it.
    public var eventDescriptor: Int32? {
        let descriptor = handle.use { layerline_model_event_handle($0) }
        return descriptor < 0 ? nil : Int32(descriptor)
    }

    /// Where a layer is.
    public func state(ofLayer layer: Int) throws -> LayerState {
        let layer: UInt32 = try exact(layer, "the layer")
        var state: Int32 = 0
        try handle.use { model in try checked { layerline_model_layer_state(model, layer, &state, $0) } }
        return LayerState(rawValue: state)
    }

    private func taken(
        _ limit: Int,
        _ take: (
            UnsafeMutablePointer<layerline_event>?, Int, UnsafeMutablePointer<Int>, UnsafeMutablePointer<OpaquePointer?>
        ) -> layerline_status
    ) throws -> [Event] {
        // More than a million at once nobody has: a slip must not take all memory.
        guard (1...1 << 20).contains(limit) else {
            throw LayerlineError(.invalidArgument, "limit is \(limit): it must be from 1 to \(1 << 20)")
        }
        var events: [layerline_event] = []
        try checked { error in
            var status = LAYERLINE_OK
            events = [layerline_event](unsafeUninitializedCapacity: limit) { buffer, count in
                var written = 0
                status = take(buffer.baseAddress, buffer.count, &written, error)
                count = status == LAYERLINE_OK ? written : 0
            }
            return status
        }
        return events.map(Event.init)
    }

    /// Rounded up, so that a short time is no busy loop.
    private static func milliseconds(_ timeout: Duration) -> Int32 {
        let (seconds, attoseconds) = timeout.components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        guard seconds < Int64(Int32.max) / 1000 else { return .max }
        return Int32(seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }

    /// Returns when events wait, or the task is cancelled.
    private func readable() async throws {
        guard let descriptor = eventDescriptor else {
            throw LayerlineError(.unsupported, "this system has no descriptor for events: poll, or wait in a thread")
        }
        let source = DispatchSource.makeReadSource(fileDescriptor: descriptor)
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                source.setEventHandler { source.cancel() }
                // Only then nobody looks at the descriptor any more, and the model may go.
                source.setCancelHandler { withExtendedLifetime(self) { continuation.resume() } }
                source.activate()
            }
        } onCancel: {
            source.cancel()
        }
    }
}

import CLayerline

/// A low-rank adapter (LoRA) of a model, in memory. It keeps the model alive; its memory goes back to the model's budget with
/// the last reference and the last session that has it.
public final class Adapter: Sendable {
    let handle: Handle

    /// Reads an adapter of `model` from a GGUF file, as llama.cpp's convert_lora_to_gguf.py makes it. Throws
    /// ``Status/memoryBudget`` when it does not fit; other errors name the tensor that is not the model's, or that adapters
    /// cannot change here, such as experts.
    public init(_ model: Model, path: String) throws {
        var made: OpaquePointer?
        try model.handle.use { model in try checked { layerline_adapter_open(model, path, &made, $0) } }
        handle = try Handle(made, free: { layerline_adapter_free($0) })
    }

    /// Reads an adapter of `model` out of a source, which is not needed any more afterwards.
    public init(_ model: Model, source: Source) throws {
        var made: OpaquePointer?
        try model.handle.use { model in
            try source.handle.use { source in
                try checked { layerline_adapter_open_source(model, source, &made, $0) }
            }
        }
        handle = try Handle(made, free: { layerline_adapter_free($0) })
    }

    /// Bytes that it takes from the model's budget.
    public var memoryBytes: UInt64 { handle.use { layerline_adapter_memory_bytes($0) } }
}

extension Session {
    /// Sets the adapters of the session with their scales, in place of those that it has; none: the model alone. A scale of
    /// 1 is what an adapter was trained for. What the session holds stays as it was computed. A copy has the same adapters,
    /// a state has none.
    public func setAdapters(_ adapters: [(adapter: Adapter, scale: Float)]) throws {
        let scales = adapters.map(\.scale)
        try briefly { session in
            try withPointers(adapters.map(\.adapter)[...], []) { pointers in
                try checked { layerline_session_set_adapters(session, pointers, scales, scales.count, $0) }
            }
        }
    }
}

/// Calls `body` with the handles of adapters, each in use meanwhile.
private func withPointers(
    _ adapters: ArraySlice<Adapter>, _ taken: [OpaquePointer?], _ body: ([OpaquePointer?]) throws -> Void
) throws {
    guard let first = adapters.first else { return try body(taken) }
    try first.handle.use { own in try withPointers(adapters.dropFirst(), taken + [own], body) }
}

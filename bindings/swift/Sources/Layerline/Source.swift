import CLayerline

/// Storage of the program's own that models and adapters are read from in place of a file: an archive, memory, a network.
/// What is opened from it keeps what it needs of it, and it may serve several.
public final class Source: Sendable {
    /// Reads some bytes at `offset` into `buffer`, which is not empty and does not reach beyond the size of the source, and
    /// returns how many: fewer than it holds are read on from there, 0 says that there are none, which is an error.
    public typealias Read = @Sendable (_ offset: UInt64, _ buffer: UnsafeMutableRawBufferPointer) throws -> Int

    let handle: Handle

    /// Makes a source of `size` bytes. `read` is called on several threads at once, unless `isConcurrent` is false, until
    /// everything that was opened from the source is closed. A read that throws is tried a second time; then it ends its pass
    /// with ``Status/io``, and later ones may go well. One that blocks holds up what waits for its bytes: cancellation ends a
    /// pass that waits, and closing the last of a model leaves the read behind after 2 seconds. It must not use models that
    /// it serves, nor their sessions.
    ///
    /// `name` is what messages call it; sources of a model in several files have the names of the files, such as
    /// "model-00001-of-00003.gguf".
    public init(
        size: UInt64, name: String = "the source", isConcurrent: Bool = true, read: @escaping Read
    ) throws {
        let name = try terminated(name, "name")
        let kept = Unmanaged.passRetained(Reader(read))
        var made: OpaquePointer?
        do {
            try checked {
                layerline_source_new(
                    size,
                    { offset, buffer, length, reader in
                        let reader = Unmanaged<Reader>.fromOpaque(reader!).takeUnretainedValue()
                        let buffer = UnsafeMutableRawBufferPointer(start: buffer, count: length)
                        return (try? reader.read(offset, buffer)).map(Int64.init) ?? -1
                    },
                    { reader in Unmanaged<Reader>.fromOpaque(reader!).release() },
                    kept.toOpaque(), &made, $0)
            }
        } catch {
            kept.release()
            throw error
        }
        handle = try Handle(made, free: { layerline_source_free($0) })
        try handle.use { own in
            try checked { layerline_source_set_name(own, name, $0) }
            try checked { layerline_source_set_concurrent(own, isConcurrent, $0) }
        }
    }

    /// Adds a further file of a model in several to the source of its first one, in any order: opening finds it by its name.
    public func addFile(_ further: Source) throws {
        try handle.use { own in
            try further.handle.use { further in try checked { layerline_source_add_file(own, further, $0) } }
        }
    }
}

/// Keeps the closure for the library.
private final class Reader: Sendable {
    let read: Source.Read

    init(_ read: @escaping Source.Read) {
        self.read = read
    }
}

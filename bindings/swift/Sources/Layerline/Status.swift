import CLayerline
import Foundation

/// How a call ended. A newer library may have numbers that this package does not know, so this is no enumeration: keep a
/// `default` in every `switch`.
public struct Status: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: Int32

    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// Success.
    public static let ok = Status(rawValue: LAYERLINE_OK)
    /// An argument is out of range, or not what it should be.
    public static let invalidArgument = Status(rawValue: LAYERLINE_ERROR_INVALID_ARGUMENT)
    /// Missing file, short read, device error.
    public static let io = Status(rawValue: LAYERLINE_ERROR_IO)
    /// The file is not GGUF, truncated, contradictory or out of range.
    public static let format = Status(rawValue: LAYERLINE_ERROR_FORMAT)
    /// A valid file that needs what is not built in; the message names it.
    public static let unsupported = Status(rawValue: LAYERLINE_ERROR_UNSUPPORTED)
    /// The memory budget is below the floor; the message gives both figures.
    public static let memoryBudget = Status(rawValue: LAYERLINE_ERROR_MEMORY_BUDGET)
    /// The system gave no memory.
    public static let outOfMemory = Status(rawValue: LAYERLINE_ERROR_OUT_OF_MEMORY)
    /// Interrupted by ``Session/interrupt()``, or its ticket cancelled.
    public static let cancelled = Status(rawValue: LAYERLINE_ERROR_CANCELLED)
    /// The tokens do not fit into the session's context.
    public static let contextFull = Status(rawValue: LAYERLINE_ERROR_CONTEXT_FULL)
    /// For the C interface alone: this package makes room itself.
    public static let bufferTooSmall = Status(rawValue: LAYERLINE_ERROR_BUFFER_TOO_SMALL)
    /// Another call has the session or sampler; or too many events wait to be taken.
    public static let busy = Status(rawValue: LAYERLINE_ERROR_BUSY)
    /// A fault inside the library. What that call used can only be released; everything else works on.
    public static let `internal` = Status(rawValue: LAYERLINE_ERROR_INTERNAL)
    /// What was named does not exist: a metadata key, a ticket, a chat template.
    public static let notFound = Status(rawValue: LAYERLINE_ERROR_NOT_FOUND)

    /// A short English description.
    public var description: String {
        String(cString: layerline_status_string(rawValue))
    }
}

/// What every throwing function of this package throws, but for `CancellationError` where a task was cancelled.
public struct LayerlineError: Error, Hashable, Sendable, CustomStringConvertible, LocalizedError {
    /// What to decide by.
    public let status: Status
    /// What to show: it names the file, the tensor, the figures concerned.
    public let message: String

    init(_ status: Status, _ message: String? = nil) {
        self.status = status
        self.message = message ?? status.description
    }

    public var description: String { message }
    public var errorDescription: String? { message }
}

/// Throws unless a call of the C interface succeeded.
func check(_ status: layerline_status) throws {
    if status != LAYERLINE_OK {
        throw LayerlineError(Status(rawValue: status))
    }
}

/// The same for one that makes an error object, which ends here.
func checked(_ call: (UnsafeMutablePointer<OpaquePointer?>) -> layerline_status) throws {
    var error: OpaquePointer?
    let status = call(&error)
    defer { layerline_error_free(error) }
    if status != LAYERLINE_OK {
        throw LayerlineError(Status(rawValue: status), error.map { String(cString: layerline_error_message($0)) })
    }
}

/// A number as the C interface has it. Swift alone would end the program where it does not fit.
func exact<To: FixedWidthInteger>(_ value: Int, _ name: String) throws -> To {
    guard let exact = To(exactly: value) else {
        throw LayerlineError(.invalidArgument, "\(name) is \(value): it must be from \(To.min) to \(To.max)")
    }
    return exact
}

/// A text that C code reads up to its NUL, which must be its end.
func terminated(_ text: String, _ name: String) throws -> String {
    if text.utf8.contains(0) {
        throw LayerlineError(.invalidArgument, "\(name) holds a NUL")
    }
    return text
}

/// The bytes that a function of the C interface writes, however many they are.
func bytes(
    _ write: (
        UnsafeMutablePointer<CChar>?, Int, UnsafeMutablePointer<Int>, UnsafeMutablePointer<OpaquePointer?>
    ) -> layerline_status
) throws -> [UInt8] {
    var room = 256
    while true {
        var needed = 0
        var text: [UInt8] = []
        do {
            try checked { error in
                var status = LAYERLINE_OK
                text = [UInt8](unsafeUninitializedCapacity: room) { buffer, written in
                    status = buffer.withMemoryRebound(to: CChar.self) { write($0.baseAddress, $0.count, &needed, error) }
                    written = status == LAYERLINE_OK ? needed : 0
                }
                return status
            }
            return text
        } catch let error as LayerlineError where error.status == .bufferTooSmall {
            room = needed + 1
        }
    }
}

/// Owns a handle of the C interface and frees it with the last reference.
final class Handle: @unchecked Sendable {
    private let pointer: OpaquePointer
    private let free: @Sendable (OpaquePointer?) -> Void

    /// `pointer`: nil where there was no memory for it.
    init(_ pointer: OpaquePointer?, free: @escaping @Sendable (OpaquePointer?) -> Void) throws {
        guard let pointer else { throw LayerlineError(.outOfMemory) }
        (self.pointer, self.free) = (pointer, free)
    }

    deinit {
        free(pointer)
    }

    /// The last reference may go as soon as it is not used any more: not while the call runs.
    func use<Result>(_ call: (OpaquePointer) throws -> Result) rethrows -> Result {
        try withExtendedLifetime(self) { try call(pointer) }
    }
}

// Continues a prompt inside a memory budget, and says what that took. Ctrl-C cancels the task: the pass under way ends
// within the time of one page, and the figures still come.
//
//     layerline-generate MODEL PROMPT [--budget 64MiB|33%] [--tokens 64] [--context 512] [--temperature 0.8] [--seed 1]
//
// The text goes to stdout, everything else to stderr.
import Dispatch
import Foundation
import Layerline

struct Arguments {
    var model = ""
    var prompt = ""
    var budget = "0"
    var tokens = 64
    var options = Options(contextLength: 512)
    var sampling = Sampling()

    init?(_ words: [String]) {
        var plain: [String] = []
        var rest = words[...]
        func number<Number: LosslessStringConvertible>(_ type: Number.Type = Number.self) -> Number? {
            rest.popFirst().flatMap { Number($0) }
        }
        while let word = rest.popFirst() {
            switch word {
            case "--budget":
                guard let text = rest.popFirst() else { return nil }
                budget = text
            case "--tokens":
                guard let value = number(Int.self) else { return nil }
                tokens = value
            case "--context":
                guard let value = number(Int.self) else { return nil }
                options.contextLength = value
            case "--temperature":
                guard let value = number(Float.self) else { return nil }
                sampling.temperature = value
            case "--seed":
                guard let value = number(UInt64.self) else { return nil }
                sampling.seed = value
            default:
                plain.append(word)
            }
        }
        guard plain.count == 2 else { return nil }
        (model, prompt) = (plain[0], plain[1])
    }

    /// Bytes with their unit, or a share of the file's size.
    func budgetBytes(of plan: MemoryPlan) -> UInt64? {
        for (unit, size) in [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)] where budget.hasSuffix(unit) {
            return UInt64(budget.dropLast(3)).flatMap { $0 <= 1 << 30 ? $0 * UInt64(size) : nil }
        }
        if budget.hasSuffix("%") {
            return UInt64(budget.dropLast()).flatMap { $0 <= 10_000 ? plan.fileBytes / 100 * $0 : nil }
        }
        return UInt64(budget)
    }
}

func say(_ text: String) {
    FileHandle.standardError.write(Data("\(text)\n".utf8))
}

func mebibytes(_ bytes: UInt64) -> String {
    String(format: "%.1f MiB", Double(bytes) / 1_048_576)
}

func generate(_ arguments: Arguments) async throws {
    let plan = try MemoryPlan(path: arguments.model, options: arguments.options)
    var options = arguments.options
    guard let budget = arguments.budgetBytes(of: plan) else {
        say("--budget \(arguments.budget) is no size")
        exit(2)
    }
    options.memoryBudget = budget
    say("works from \(mebibytes(plan.floorBytes)), streams nothing from \(mebibytes(plan.fullBytes))")

    let model = try Model(path: arguments.model, options: options)
    let session = try Session(model)
    let sampler = try Sampler(arguments.sampling)
    let start = ContinuousClock.now
    var count = 0
    do {
        for try await piece in session.generate(arguments.prompt, maxTokens: arguments.tokens, sampler: sampler) {
            FileHandle.standardOutput.write(Data(piece.text.utf8))
            count += 1
        }
    } catch is CancellationError {
        say("\ncancelled")
    }
    print()
    let stats = try model.stats
    say("\(count) tokens in \(ContinuousClock.now - start)")
    say("\(mebibytes(stats.peakBytes)) of \(mebibytes(stats.budgetBytes)) used, \(mebibytes(stats.readBytes)) read")
}

guard let arguments = Arguments(Array(CommandLine.arguments.dropFirst())) else {
    say("usage: layerline-generate MODEL PROMPT [--budget BYTES|KiB|MiB|GiB|%] [--tokens N] [--context N]")
    say("                          [--temperature T] [--seed S]")
    exit(2)
}
let task = Task { try await generate(arguments) }
signal(SIGINT, SIG_IGN)
let interrupts = DispatchSource.makeSignalSource(signal: SIGINT, queue: .global())
interrupts.setEventHandler { task.cancel() }
interrupts.activate()
do {
    try await task.value
} catch {
    say("\(error)")
    exit(1)
}

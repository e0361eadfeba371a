// swift-tools-version: 5.9
import Foundation
import PackageDescription

// Where `scripts/xcframework.sh make` has put the library for Apple's systems; elsewhere it is an installed one.
let framework = "CLayerline.xcframework"
let isFramework = FileManager.default.fileExists(atPath: Context.packageDirectory + "/" + framework)
let library: Target =
    isFramework ? .binaryTarget(name: "CLayerline", path: framework) : .systemLibrary(name: "CLayerline", pkgConfig: "layerline")

// What a caller may send between tasks is checked by the compiler.
let strict: [SwiftSetting] = [.enableExperimentalFeature("StrictConcurrency")]

let package = Package(
    name: "layerline",
    platforms: [.macOS(.v13), .iOS(.v16), .tvOS(.v16)],
    products: [
        .library(name: "Layerline", targets: ["Layerline"]),
        .executable(name: "layerline-generate", targets: ["layerline-generate"]),
    ],
    targets: [
        library,
        .target(name: "Layerline", dependencies: ["CLayerline"], swiftSettings: strict),
        .executableTarget(name: "layerline-generate", dependencies: ["Layerline"], swiftSettings: strict),
        .testTarget(name: "LayerlineTests", dependencies: ["Layerline", "CLayerline"], swiftSettings: strict),
    ]
)

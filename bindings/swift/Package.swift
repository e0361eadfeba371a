// swift-tools-version: 5.9
import PackageDescription

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
        .systemLibrary(name: "CLayerline", pkgConfig: "layerline"),
        .target(name: "Layerline", dependencies: ["CLayerline"], swiftSettings: strict),
        .executableTarget(name: "layerline-generate", dependencies: ["Layerline"], swiftSettings: strict),
        .testTarget(name: "LayerlineTests", dependencies: ["Layerline", "CLayerline"], swiftSettings: strict),
    ]
)

//go:build !layerline_static && !layerline_checkout

package layerline

// #cgo pkg-config: layerline
import "C"

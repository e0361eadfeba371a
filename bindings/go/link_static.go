//go:build layerline_static

package layerline

// #cgo pkg-config: --static layerline
import "C"

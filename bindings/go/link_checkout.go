//go:build layerline_checkout && !layerline_static

package layerline

// #cgo LDFLAGS: -L${SRCDIR}/../../target/release -llayerline -Wl,-rpath,${SRCDIR}/../../target/release
import "C"

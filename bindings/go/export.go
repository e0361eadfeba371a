package layerline

// #include "layerline.h"
import "C"

import "runtime/cgo"

// C code may not be defined where a function is exported: what calls this is in callback.go.
//
//export layerlineGoToken
func layerlineGoToken(token C.int32_t, piece *C.char, length C.size_t, handle C.uintptr_t) C.bool {
	p := cgo.Handle(handle).Value().(*pass)
	p.tokens <- generated{Token(token), C.GoStringN(piece, C.int(length))}
	return C.bool(<-p.goOn)
}

package layerline

// #include "layerline.h"
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// C code may not be defined where a function is exported: what calls this is in callback.go.
//
//export layerlineGoToken
func layerlineGoToken(token C.int32_t, piece *C.char, length C.size_t, handle C.uintptr_t) C.bool {
	p := cgo.Handle(handle).Value().(*pass)
	p.tokens <- Generated{Token: Token(token), Piece: C.GoStringN(piece, C.int(length))}
	return C.bool(<-p.goOn)
}

//export layerlineGoGenerated
func layerlineGoGenerated(g *C.layerline_generated, handle C.uintptr_t) C.bool {
	p := cgo.Handle(handle).Value().(*pass)
	p.tokens <- Generated{
		Token:          Token(g.token),
		Piece:          C.GoStringN(g.piece, C.int(g.length)),
		Logprob:        float32(g.logprob),
		SampledLogprob: float32(g.sampled_logprob),
		Top:            logprobs(g.top, g.top_count),
		SampledTop:     logprobs(g.sampled_top, g.sampled_top_count),
	}
	return C.bool(<-p.goOn)
}

func logprobs(first *C.layerline_token_logprob, count C.size_t) []TokenLogprob {
	if count == 0 {
		return nil
	}
	all := make([]TokenLogprob, 0, int(count))
	for _, one := range unsafe.Slice(first, int(count)) {
		all = append(all, TokenLogprob{Token(one.token), float32(one.logprob)})
	}
	return all
}

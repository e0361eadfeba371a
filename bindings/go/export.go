package layerline

// #include "layerline.h"
import "C"

import (
	"io"
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

//export layerlineGoRead
func layerlineGoRead(offset C.uint64_t, buf unsafe.Pointer, length C.size_t, source C.uintptr_t) C.int64_t {
	reader := cgo.Handle(source).Value().(io.ReaderAt)
	n, err := reader.ReadAt(unsafe.Slice((*byte)(buf), int(length)), int64(offset))
	// With less than was asked for comes an error, also at the end. What was read counts; if it lasts, it comes alone.
	if n == 0 && err != nil && err != io.EOF {
		return -1
	}
	return C.int64_t(n)
}

//export layerlineGoRelease
func layerlineGoRelease(source C.uintptr_t) {
	cgo.Handle(source).Delete()
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

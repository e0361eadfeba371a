// Package layerline runs GGUF language models inside a memory budget, however large the model is: weights that do not
// fit are streamed from storage while the arithmetic goes on. It is the C library layerline, by cgo.
//
//	func write(ctx context.Context, path string) error {
//		model, err := layerline.Open(path, layerline.Options{MemoryBudget: 64 << 20, ContextLength: 512})
//		if err != nil {
//			return err
//		}
//		defer model.Close()
//		session, err := model.NewSession(0)
//		if err != nil {
//			return err
//		}
//		defer session.Close()
//		prompt, err := model.Tokenize("The sea is", layerline.TokenizeBOS)
//		if err != nil {
//			return err
//		}
//		return session.Generate(ctx, prompt, 64, nil, func(_ layerline.Token, piece string) bool {
//			fmt.Print(piece)
//			return true
//		})
//	}
//
// # Linking
//
// The library is found by pkg-config, where `cargo cinstall` has put it. Two build tags change that: layerline_static
// links the static library, where that alone is installed, and layerline_checkout takes target/release of the checkout
// that this module lies in.
//
// # Units
//
// Sizes are in bytes; layers, rows and tokens are counted from 0. In [Options] and [SamplerOptions] zero means the
// default.
//
// # Errors
//
// What the library refuses is an [*Error] with its message, which names the file, the tensor, the figures concerned.
// [errors.Is] compares it with the sentinels, ErrMemoryBudget for one. What was ended by a context is both
// ErrCancelled and the context's own error.
//
// # Goroutines
//
// Everything may be used by any goroutine at any time, and closed at any time. A [Model] and a [Budget] serve any
// number of calls at once. A [Session] and a [Sampler] serve one: a call that finds another one running on them returns
// ErrBusy and does not wait. So use one session for each sequence, and any number of them on one model. A pass keeps a
// thread of the system busy while it runs.
//
// # Closing
//
// What New and Open functions return holds memory that Go's collector does not see, so close it. Close may be called
// again, and in any order: sessions go on when their model is closed. It never waits: a call under way on another
// goroutine ends with ErrClosed, and what the handle holds is given back when that call has returned. Calls after it
// return ErrClosed. What is forgotten instead is closed by a finalizer, sooner or later.
package layerline

// #include "layerline.h"
import "C"

import (
	"runtime"
	"sync"
)

// Token is a token's number in the vocabulary of its model.
type Token = int32

// Ticket is what a request is known by; never 0.
type Ticket uint64

// Version is the version of the library that is loaded, "MAJOR.MINOR.PATCH".
func Version() string { return C.GoString(C.layerline_version()) }

// VersionNumber is the same as a number: MAJOR * 1000000 + MINOR * 1000 + PATCH.
func VersionNumber() uint32 { return uint32(C.layerline_version_number()) }

// BuildInfo says what the library was built for and runs with: target, instruction set, features. For logs: the wording
// may change.
func BuildInfo() string { return C.GoString(C.layerline_build_info()) }

// handle owns a pointer P of the C interface. It counts the calls that use it, so that it may be closed at any time and
// is freed by the last one.
type handle[P comparable] struct {
	free    func(P)
	closing chan struct{} // closed by close

	mu      sync.Mutex
	pointer P // none once it is freed
	calls   int
}

func (h *handle[P]) own(pointer P, free func(P)) {
	h.pointer, h.free, h.closing = pointer, free, make(chan struct{})
}

func (h *handle[P]) closed() bool {
	select {
	case <-h.closing:
		return true
	default:
		return false
	}
}

// use begins a call, which done ends. As done needs the handle, no finalizer runs before it.
func (h *handle[P]) use() (P, error) {
	var none P
	if h == nil || h.closing == nil {
		return none, ErrClosed // never opened
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed() {
		return none, ErrClosed
	}
	h.calls++
	return h.pointer, nil
}

func (h *handle[P]) done() {
	h.mu.Lock()
	h.calls--
	h.freeUnused()
}

func (h *handle[P]) close() {
	if h == nil || h.closing == nil {
		return
	}
	h.mu.Lock()
	if !h.closed() {
		close(h.closing)
	}
	h.freeUnused()
}

// freeUnused frees what no call needs any more, and unlocks.
func (h *handle[P]) freeUnused() {
	var none P
	pointer := none
	if h.calls == 0 && h.closed() {
		pointer, h.pointer = h.pointer, none
	}
	h.mu.Unlock()
	if pointer != none {
		h.free(pointer)
	}
}

// closeForgotten makes the collector close what was not closed: a safety net, as nobody knows when it comes.
func closeForgotten[T interface{ Close() error }](owner T) {
	runtime.SetFinalizer(owner, func(owner T) { _ = owner.Close() })
}

package layerline

// #include <stdbool.h>
// #include "layerline.h"
import "C"

import (
	"sync"
	"time"
)

// Generation holds settings of generations: their length, what ends them, and who drafts tokens. It can be used for many,
// one after the other. Drafts change no token, and save readings of the weights where these are streamed.
type Generation struct {
	h     handle[*C.layerline_generation]
	calls sync.Mutex // held by the one call that runs
}

// End says why a generation ended.
type End int32

const (
	EndNone     End = C.LAYERLINE_END_NONE     // it has not, or by an error
	EndToken    End = C.LAYERLINE_END_TOKEN    // by a token that ends the text
	EndLength   End = C.LAYERLINE_END_LENGTH   // the most tokens asked for are there
	EndStop     End = C.LAYERLINE_END_STOP     // a stop string came
	EndCallback End = C.LAYERLINE_END_CALLBACK // onToken returned false
	// EndConstraint: the text is complete by its constraint.
	EndConstraint End = C.LAYERLINE_END_CONSTRAINT
	EndContext    End = C.LAYERLINE_END_CONTEXT // the context was full: the call returned ErrContextFull
)

// GenerationStats are figures of the last generation.
type GenerationStats struct {
	End    End
	Tokens uint64 // chosen, one that ended the text included
	Passes uint64 // after those of the prompt
	// Tokens drafted, and those of them that the sampler chose.
	Drafted, Accepted uint64
	// Gained is what drafts have saved by estimate, less what they have cost.
	Gained time.Duration
	// Dropped is the tokens of the session that made room: SetKeptFirst.
	Dropped uint64
}

// TokenLogprob is a token and how likely it was.
type TokenLogprob struct {
	Token Token
	// Logprob is the natural logarithm of its probability.
	Logprob float32
}

// Generated is a token that was generated, and what is known of it.
type Generated struct {
	Token Token
	Piece string // the text that became whole with it
	// Logprob is the natural logarithm of the token's probability by the softmax of the model's logits, SampledLogprob that
	// by what it was drawn from: what the sampler's chain left, divided by the temperature; a greedy choice is certain. NaN
	// unless SetLogprobs asks for them.
	Logprob, SampledLogprob float32
	// The likeliest tokens of both, the likeliest first.
	Top, SampledTop []TokenLogprob
}

// NewGeneration makes one without limits, stop strings and drafts.
func NewGeneration() (*Generation, error) {
	made := C.layerline_generation_new()
	if made == nil {
		return nil, refused(C.LAYERLINE_ERROR_OUT_OF_MEMORY, "a generation")
	}
	g := &Generation{}
	g.h.own(made, func(p *C.layerline_generation) { C.layerline_generation_free(p) })
	closeForgotten(g)
	return g, nil
}

// Close gives the generation back. It returns nil.
func (g *Generation) Close() error {
	g.h.close()
	return nil
}

// SetMaxTokens sets the most tokens that are generated.
func (g *Generation) SetMaxTokens(tokens int) error {
	most, err := size(tokens, "tokens")
	if err != nil {
		return err
	}
	return g.set(func(own *C.layerline_generation) error {
		return refused(C.layerline_generation_set_max_tokens(own, most), "%d tokens at most", tokens)
	})
}

// AddStop adds a text that ends a generation where it comes. Neither it nor a part of it is passed on.
func (g *Generation) AddStop(text string) error {
	return g.set(func(own *C.layerline_generation) error {
		var told *C.layerline_error
		return check(C.layerline_generation_add_stop(own, chars(text), C.size_t(len(text)), &told), told)
	})
}

// ClearStops removes all stop strings.
func (g *Generation) ClearStops() error {
	return g.set(func(own *C.layerline_generation) error {
		var told *C.layerline_error
		return check(C.layerline_generation_clear_stops(own, &told), told)
	})
}

// DraftFromText drafts what followed the last tokens where they stood before, up to maxDrafts tokens for a pass, at most
// 64; 0: no drafts.
func (g *Generation) DraftFromText(maxDrafts int) error {
	most, err := u32(maxDrafts, "maxDrafts")
	if err != nil {
		return err
	}
	return g.set(func(own *C.layerline_generation) error {
		return refused(C.layerline_generation_set_draft_text(own, most), "%d drafts for a pass", maxDrafts)
	})
}

// DraftWith lets another model with the same tokens, or one opened with Options.Predictor, draft up to maxDrafts tokens for
// a pass, in a session of its own with room for contextLength tokens; 0: what its options say. It stays open as long as the
// generation needs it. nil: no drafts.
func (g *Generation) DraftWith(model *Model, contextLength, maxDrafts int) error {
	context, err := u32(contextLength, "contextLength")
	if err != nil {
		return err
	}
	most, err := u32(maxDrafts, "maxDrafts")
	if err != nil {
		return err
	}
	return g.set(func(own *C.layerline_generation) error {
		var drafter *C.layerline_model
		if model != nil {
			if drafter, err = model.h.use(); err != nil {
				return err
			}
			defer model.h.done()
		}
		var told *C.layerline_error
		return check(C.layerline_generation_set_draft_model(own, drafter, context, most, &told), told)
	})
}

// SetKeptFirst lets a full context drop its oldest tokens after the first so many: the older half of them, or as many as are
// needed. The rest is taken in again at its new positions, with the bits of a new session that was given what stays; that
// costs a pass over those tokens. A negative number: a full context ends a generation with ErrContextFull, the default.
func (g *Generation) SetKeptFirst(tokens int) error {
	policy, kept := C.int32_t(C.LAYERLINE_CONTEXT_STOP), C.size_t(0)
	if tokens >= 0 {
		policy, kept = C.LAYERLINE_CONTEXT_DROP_OLDEST, C.size_t(tokens)
	}
	return g.set(func(own *C.layerline_generation) error {
		return refused(C.layerline_generation_set_context_policy(own, policy, kept), "%d tokens kept", tokens)
	})
}

// SetLogprobs lets GenerateDetailed tell the log-probabilities of tokens, and of the likeliest top, at most 256. A negative
// number: none, and no time for them.
func (g *Generation) SetLogprobs(top int) error {
	most := C.uint32_t(0)
	if top > 0 {
		var err error
		if most, err = u32(top, "top"); err != nil {
			return err
		}
	}
	return g.set(func(own *C.layerline_generation) error {
		return refused(C.layerline_generation_set_logprobs(own, C.bool(top >= 0), most), "the %d likeliest tokens", top)
	})
}

// Stats tells of the last generation.
func (g *Generation) Stats() (stats GenerationStats, err error) {
	err = g.set(func(own *C.layerline_generation) error {
		filled := C.layerline_generation_stats{struct_size: C.sizeof_layerline_generation_stats}
		var told *C.layerline_error
		if err := check(C.layerline_generation_get_stats(own, &filled, &told), told); err != nil {
			return err
		}
		stats = GenerationStats{
			End:      End(filled.end),
			Tokens:   uint64(filled.tokens),
			Passes:   uint64(filled.passes),
			Drafted:  uint64(filled.drafted),
			Accepted: uint64(filled.accepted),
			Gained:   time.Duration(filled.gained_ns),
			Dropped:  uint64(filled.dropped),
		}
		return nil
	})
	return stats, err
}

// set runs a call that is over at once.
func (g *Generation) set(call func(*C.layerline_generation) error) error {
	own, end, err := g.begin()
	if err != nil {
		return err
	}
	defer end()
	return call(own)
}

// begin is the beginning of a call that has the generation for itself, until end is called.
func (g *Generation) begin() (own *C.layerline_generation, end func(), err error) {
	if own, err = g.h.use(); err != nil {
		return nil, nil, err
	}
	if !g.calls.TryLock() {
		g.h.done()
		return nil, nil, busy("generation")
	}
	return own, func() {
		g.calls.Unlock()
		g.h.done()
	}, nil
}

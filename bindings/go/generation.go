package layerline

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

// DraftWith lets another model with the same tokens draft, up to maxDrafts tokens for a pass, in a session of its own with
// room for contextLength tokens; 0: what its options say. It stays open as long as the generation needs it. nil: no drafts.
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

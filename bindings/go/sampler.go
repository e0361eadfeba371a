package layerline

// #include "layerline.h"
import "C"

import (
	"sync"
	"unsafe"
)

// Sampler chooses tokens for one sequence. The chain is llama.cpp's default order: repeat penalty, top-k, top-p, min-p,
// temperature, draw. The same seed, options and logits give the same tokens on one platform.
type Sampler struct {
	h     handle[*C.layerline_sampler]
	calls sync.Mutex // held by the one call that runs
}

// SamplerOptions are settings of a sampler; zero means the default, and all defaults together the likeliest token.
type SamplerOptions struct {
	// Temperature is what logits are divided by before the draw. 0: greedy, and nothing else but the repeat penalty
	// counts.
	Temperature float32
	// TopK: only so many of the likeliest tokens stay. 0: all.
	TopK int
	// TopP: only the fewest likeliest tokens whose probabilities sum to it stay, at least one. 0 or 1: all.
	TopP float32
	// MinP: only tokens at least so many times as probable as the likeliest stay. 0: all.
	MinP float32
	// RepeatPenalty makes the last RepeatLastN tokens that this sampler chose, or that Generate was given as prompts,
	// less likely: their logits are divided by it where positive, multiplied by it where not. 0 or 1: none.
	RepeatPenalty float32
	// RepeatLastN is how many tokens the penalty looks at. 0: 64.
	RepeatLastN int
	// Seed of the random sequence.
	Seed uint64
	// ShowControl lets Generate give the text of control tokens, which else have none.
	ShowControl bool
}

// NewSampler makes a sampler. ErrInvalidArgument names the option that is out of range.
func NewSampler(options SamplerOptions) (*Sampler, error) {
	topK, err := u32(options.TopK, "TopK")
	if err != nil {
		return nil, err
	}
	lastN, err := u32(options.RepeatLastN, "RepeatLastN")
	if err != nil {
		return nil, err
	}
	if lastN == 0 {
		lastN = 64
	}
	made := C.layerline_sampler_new()
	if made == nil {
		return nil, refused(C.LAYERLINE_ERROR_OUT_OF_MEMORY, "a sampler")
	}
	s := &Sampler{}
	s.h.own(made, func(p *C.layerline_sampler) { C.layerline_sampler_free(p) })
	closeForgotten(s)
	for _, set := range []struct {
		name   string
		value  any
		status C.layerline_status
	}{
		{"Temperature", options.Temperature, C.layerline_sampler_set_temperature(made, C.float(options.Temperature))},
		{"TopK", options.TopK, C.layerline_sampler_set_top_k(made, topK)},
		{"TopP", options.TopP, C.layerline_sampler_set_top_p(made, oneForZero(options.TopP))},
		{"MinP", options.MinP, C.layerline_sampler_set_min_p(made, C.float(options.MinP))},
		{"RepeatPenalty", options.RepeatPenalty,
			C.layerline_sampler_set_repeat_penalty(made, oneForZero(options.RepeatPenalty), lastN)},
		{"Seed", options.Seed, C.layerline_sampler_set_seed(made, C.uint64_t(options.Seed))},
		{"ShowControl", options.ShowControl,
			C.layerline_sampler_set_show_control(made, C.bool(options.ShowControl))},
	} {
		if err := refused(set.status, "%s is %v", set.name, set.value); err != nil {
			_ = s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Close gives the sampler back. It returns nil.
func (s *Sampler) Close() error {
	s.h.close()
	return nil
}

// Sample chooses a token by the logits of the last position of the session's last pass, and remembers it for the repeat
// penalty. It is not fed to the session: give it to Forward. It may be one that ends the text: see Model.IsEnd.
func (s *Sampler) Sample(session *Session) (Token, error) {
	sampler, end, err := s.begin()
	if err != nil {
		return 0, err
	}
	defer end()
	from, err := session.h.use()
	if err != nil {
		return 0, err
	}
	defer session.h.done()
	if !session.calls.TryRLock() {
		return 0, busy("session")
	}
	defer session.calls.RUnlock()
	var token C.int32_t
	var told *C.layerline_error
	err = check(C.layerline_sampler_sample(sampler, from, &token, &told), told)
	return Token(token), err
}

// SampleLogits chooses a token by given logits, one for each token of the vocabulary, and remembers it for the repeat
// penalty.
func (s *Sampler) SampleLogits(logits []float32) (Token, error) {
	sampler, end, err := s.begin()
	if err != nil {
		return 0, err
	}
	defer end()
	var first *C.float
	if len(logits) > 0 {
		first = (*C.float)(unsafe.Pointer(&logits[0]))
	}
	var token C.int32_t
	var told *C.layerline_error
	err = check(C.layerline_sampler_sample_logits(sampler, first, C.size_t(len(logits)), &token, &told), told)
	return Token(token), err
}

// Accept shows the sampler tokens of its sequence that it did not choose, for the repeat penalty.
func (s *Sampler) Accept(tokens []Token) error {
	sampler, end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	first, count := array(tokens)
	var told *C.layerline_error
	return check(C.layerline_sampler_accept(sampler, first, count, &told), told)
}

// Reset forgets the tokens seen and starts the random sequence anew. Settings stay.
func (s *Sampler) Reset() error {
	sampler, end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	var told *C.layerline_error
	return check(C.layerline_sampler_reset(sampler, &told), told)
}

// Copy makes a second sampler with the settings of this one and all that it has seen.
func (s *Sampler) Copy() (*Sampler, error) {
	sampler, end, err := s.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	var made *C.layerline_sampler
	var told *C.layerline_error
	if err := check(C.layerline_sampler_copy(sampler, &made, &told), told); err != nil {
		return nil, err
	}
	copied := &Sampler{}
	copied.h.own(made, func(p *C.layerline_sampler) { C.layerline_sampler_free(p) })
	closeForgotten(copied)
	return copied, nil
}

// begin is the beginning of a call that has the sampler for itself, until end is called.
func (s *Sampler) begin() (sampler *C.layerline_sampler, end func(), err error) {
	if sampler, err = s.h.use(); err != nil {
		return nil, nil, err
	}
	if !s.calls.TryLock() {
		s.h.done()
		return nil, nil, busy("sampler")
	}
	return sampler, func() {
		s.calls.Unlock()
		s.h.done()
	}, nil
}

func oneForZero(value float32) C.float {
	if value == 0 {
		return 1
	}
	return C.float(value)
}

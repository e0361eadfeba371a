package layerline

// #include "layerline.h"
import "C"

import (
	"sync"
	"unsafe"
)

// Sampler chooses tokens for one sequence. The steps of its chain and their order are llama.cpp's. The same seed, options and logits give the same tokens on one platform.
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
	// FrequencyPenalty is taken off the logit of a token for each time that it is among the last RepeatLastN, PresencePenalty
	// once.
	FrequencyPenalty, PresencePenalty float32
	// TypicalP: only the fewest tokens whose probabilities sum to more stay, beginning with those whose information is
	// nearest to the entropy. 0 or 1: all.
	TypicalP float32
	// TopNSigma: only tokens whose logits are at most so many standard deviations below the greatest stay. 0: all.
	TopNSigma float32
	// XTCProbability is how often of the tokens at least as probable as XTCThreshold only the least probable stays; a
	// threshold of 0: 0.1.
	XTCProbability, XTCThreshold float32
	// TemperatureRange is how far the temperature goes up and down with the entropy, TemperatureExponent how it follows; 0 or
	// 1: evenly.
	TemperatureRange, TemperatureExponent float32
	// MirostatTau is the surprise in bits that Mirostat 2 aims at; 0: off. MirostatEta is its rate; 0: 0.1.
	MirostatTau, MirostatEta float32
	// DRY makes tokens less likely that go on with a sequence that was there before. Its breakers come by AddDRYBreaker.
	DRY DRYOptions
	// LogitBias is added to the logits of tokens; minus infinity bans one.
	LogitBias map[Token]float32
	// Steps that the chain has, in their order; nil: all, in the order of their numbers.
	Steps []Step
	// Seed of the random sequence.
	Seed uint64
	// ShowControl lets Generate give the text of control tokens, which else have none.
	ShowControl bool
}

// DRYOptions are settings of DRY: a token loses Multiplier times Base to the power of the length of the sequence less
// AllowedLength. Multiplier 0: off; zeroes of the others: 1.75, 2, and 1024 tokens back.
type DRYOptions struct {
	Multiplier, Base     float32
	AllowedLength, LastN int
}

// Step is a step of a sampler's chain.
type Step int32

// The steps, in their default order.
const (
	StepPenalties   Step = C.LAYERLINE_STEP_PENALTIES
	StepDRY         Step = C.LAYERLINE_STEP_DRY
	StepTopNSigma   Step = C.LAYERLINE_STEP_TOP_N_SIGMA
	StepTopK        Step = C.LAYERLINE_STEP_TOP_K
	StepTypicalP    Step = C.LAYERLINE_STEP_TYPICAL_P
	StepTopP        Step = C.LAYERLINE_STEP_TOP_P
	StepMinP        Step = C.LAYERLINE_STEP_MIN_P
	StepXTC         Step = C.LAYERLINE_STEP_XTC
	StepTemperature Step = C.LAYERLINE_STEP_TEMPERATURE
)

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
	allowed, err := u32(orDefault(options.DRY.AllowedLength, 2), "DRY.AllowedLength")
	if err != nil {
		return nil, err
	}
	dryLast, err := u32(orDefault(options.DRY.LastN, 1024), "DRY.LastN")
	if err != nil {
		return nil, err
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
		{"FrequencyPenalty", options.FrequencyPenalty,
			C.layerline_sampler_set_frequency_penalty(made, C.float(options.FrequencyPenalty))},
		{"PresencePenalty", options.PresencePenalty,
			C.layerline_sampler_set_presence_penalty(made, C.float(options.PresencePenalty))},
		{"TypicalP", options.TypicalP, C.layerline_sampler_set_typical_p(made, oneForZero(options.TypicalP))},
		{"TopNSigma", options.TopNSigma, C.layerline_sampler_set_top_n_sigma(made, C.float(options.TopNSigma))},
		{"XTC", [2]float32{options.XTCProbability, options.XTCThreshold},
			C.layerline_sampler_set_xtc(made, C.float(options.XTCProbability), C.float(orDefault(options.XTCThreshold, 0.1)))},
		{"TemperatureRange", options.TemperatureRange,
			C.layerline_sampler_set_dynamic_temperature(made, C.float(options.TemperatureRange),
				oneForZero(options.TemperatureExponent))},
		{"Mirostat", [2]float32{options.MirostatTau, options.MirostatEta},
			C.layerline_sampler_set_mirostat(made, C.float(options.MirostatTau), C.float(orDefault(options.MirostatEta, 0.1)))},
		{"DRY", options.DRY, C.layerline_sampler_set_dry(made, C.float(options.DRY.Multiplier),
			C.float(orDefault(options.DRY.Base, 1.75)), allowed, dryLast)},
		{"Seed", options.Seed, C.layerline_sampler_set_seed(made, C.uint64_t(options.Seed))},
		{"ShowControl", options.ShowControl,
			C.layerline_sampler_set_show_control(made, C.bool(options.ShowControl))},
	} {
		if err := refused(set.status, "%s is %v", set.name, set.value); err != nil {
			_ = s.Close()
			return nil, err
		}
	}
	if err := setChain(made, options); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// setChain sets what is given as arrays.
func setChain(made *C.layerline_sampler, options SamplerOptions) error {
	var told *C.layerline_error
	if count := len(options.LogitBias); count > 0 {
		tokens, biases := make([]Token, 0, count), make([]C.float, 0, count)
		for token, bias := range options.LogitBias {
			tokens, biases = append(tokens, token), append(biases, C.float(bias))
		}
		first, _ := array(tokens)
		if err := check(C.layerline_sampler_set_logit_biases(made, first, &biases[0], C.size_t(count), &told), told); err != nil {
			return err
		}
	}
	if options.Steps == nil {
		return nil
	}
	steps := make([]Token, len(options.Steps))
	for i, step := range options.Steps {
		steps[i] = Token(step)
	}
	first, count := array(steps)
	return check(C.layerline_sampler_set_steps(made, first, count, &told), told)
}

// orDefault is the value, or what stands for zero.
func orDefault[T int | float32](value, zero T) T {
	if value == 0 {
		return zero
	}
	return value
}

// AddDRYBreaker adds a text that no sequence that DRY looks for goes across, in tokens of the model.
func (s *Sampler) AddDRYBreaker(model *Model, text string) error {
	sampler, end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	of, err := model.h.use()
	if err != nil {
		return err
	}
	defer model.h.done()
	var told *C.layerline_error
	return check(C.layerline_sampler_add_dry_breaker(sampler, of, chars(text), C.size_t(len(text)), &told), told)
}

// ClearDRYBreakers removes all of these texts.
func (s *Sampler) ClearDRYBreakers() error {
	sampler, end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	var told *C.layerline_error
	return check(C.layerline_sampler_clear_dry_breakers(sampler, &told), told)
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

// Accept shows the sampler tokens of its sequence that it did not choose, for penalties.
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

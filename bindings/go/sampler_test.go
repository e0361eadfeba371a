package layerline_test

import (
	"math"
	"testing"

	"layerline"
)

func TestTheRestOfTheChainCanBeSet(t *testing.T) {
	logits := []float32{1, 3, 2, 0}
	for _, is := range []struct {
		options layerline.SamplerOptions
		token   layerline.Token
	}{
		{layerline.SamplerOptions{}, 1},
		{layerline.SamplerOptions{LogitBias: map[layerline.Token]float32{1: float32(math.Inf(-1))}}, 2},
		{layerline.SamplerOptions{LogitBias: map[layerline.Token]float32{3: 4, 0: 1}}, 3},
		{layerline.SamplerOptions{Temperature: 1, TopNSigma: 0.1}, 1},
		{layerline.SamplerOptions{Temperature: 1, TypicalP: 1e-6, TopK: 1, Steps: []layerline.Step{layerline.StepTopK}}, 1},
		{layerline.SamplerOptions{XTCProbability: 1, XTCThreshold: 0.2}, 2},
		{layerline.SamplerOptions{Temperature: 1e-6, MirostatTau: 1}, 1},
	} {
		sampler, err := layerline.NewSampler(is.options)
		must(t, err)
		closing(t, sampler)
		token, err := sampler.SampleLogits(logits)
		must(t, err)
		if token != is.token {
			t.Errorf("%+v: token %d, not %d", is.options, token, is.token)
		}
	}
	for _, options := range []layerline.SamplerOptions{
		{TypicalP: 2}, {TopNSigma: -1}, {XTCProbability: 2}, {TemperatureRange: -1}, {MirostatTau: -1},
		{FrequencyPenalty: float32(math.NaN())}, {PresencePenalty: float32(math.Inf(1))},
		{DRY: layerline.DRYOptions{Multiplier: 1, Base: 0.5}}, {DRY: layerline.DRYOptions{LastN: -1}},
		{LogitBias: map[layerline.Token]float32{-1: 0}}, {Steps: []layerline.Step{3, 3}}, {Steps: []layerline.Step{9}},
	} {
		_, err := layerline.NewSampler(options)
		refused(t, err, layerline.ErrInvalidArgument)
	}
}

func TestDRYEndsALoopButForItsBreakers(t *testing.T) {
	model := open(t, small)
	for _, breaks := range []bool{false, true} {
		sampler, err := layerline.NewSampler(layerline.SamplerOptions{
			DRY: layerline.DRYOptions{Multiplier: 100, Base: 1, AllowedLength: 3},
		})
		must(t, err)
		closing(t, sampler)
		must(t, sampler.Accept([]layerline.Token{40, 41, 42, 50, 40, 41, 42}))
		if breaks {
			text, err := model.Detokenize([]layerline.Token{42})
			must(t, err)
			must(t, sampler.AddDRYBreaker(model, text))
		}
		logits := make([]float32, 64)
		logits[50], logits[51] = 9, 1
		token, err := sampler.SampleLogits(logits)
		must(t, err)
		if (token == 50) != breaks {
			t.Errorf("breakers %v: token %d", breaks, token)
		}
		must(t, sampler.ClearDRYBreakers())
		refused(t, sampler.AddDRYBreaker(model, ""), layerline.ErrInvalidArgument)
	}
}

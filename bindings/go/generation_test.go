package layerline_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"layerline"
)

func TestGenerationsDraftAndStop(t *testing.T) {
	model := open(t, small)
	_, plain := generated(t, model, 12, nil)
	generation, err := layerline.NewGeneration()
	must(t, err)
	closing(t, generation)
	must(t, generation.SetMaxTokens(12))
	run := func() (text string, stats layerline.GenerationStats) {
		session := begin(t, model)
		must(t, session.GenerateWith(context.Background(), prompt, generation, nil, func(_ layerline.Token, piece string) bool {
			text += piece
			return true
		}))
		stats, err := generation.Stats()
		must(t, err)
		return text, stats
	}
	for _, draft := range []func() error{
		func() error { return nil },
		func() error { return generation.DraftFromText(4) },
		func() error { return generation.DraftWith(model, 64, 4) },
		func() error { return generation.DraftWith(nil, 0, 0) },
	} {
		must(t, draft())
		if text, stats := run(); text != plain || stats.End != layerline.EndLength || stats.Tokens != 12 || stats.Accepted > stats.Drafted {
			t.Fatalf("%q where %q came before: %v", text, plain, stats)
		}
	}
	runes := []rune(plain)
	stop := string(runes[len(runes)/2:][:2])
	must(t, generation.AddStop(stop))
	if text, stats := run(); text != plain[:strings.Index(plain, stop)] || stats.End != layerline.EndStop {
		t.Fatalf("%q of %q before %q: %v", text, plain, stop, stats)
	}
	must(t, generation.ClearStops())
	if text, _ := run(); text != plain {
		t.Fatalf("%q where %q came before", text, plain)
	}
	refused(t, generation.AddStop(""), layerline.ErrInvalidArgument)
	refused(t, generation.DraftFromText(1000), layerline.ErrInvalidArgument)
	refused(t, generation.SetMaxTokens(-1), layerline.ErrInvalidArgument)
}

func TestTheModelsOwnLayerDrafts(t *testing.T) {
	own := small
	own.Predictor = true
	if _, err := layerline.Open(modelPath, own); !errors.Is(err, layerline.ErrUnsupported) {
		t.Fatalf("a layer that the file does not have: %v", err)
	}
	// Its weights are not the model's, but it has such a layer.
	path := unpacked(t, "../../tests/data/golden/arch2/glm4moe.gguf.gz")
	model, err := layerline.Open(path, small)
	must(t, err)
	closing(t, model)
	layer, err := layerline.Open(path, own)
	must(t, err)
	closing(t, layer)
	_, plain := generated(t, model, 12, nil)
	generation, err := layerline.NewGeneration()
	must(t, err)
	closing(t, generation)
	must(t, generation.SetMaxTokens(12))
	must(t, generation.DraftWith(layer, 0, 4))
	text := ""
	must(t, begin(t, model).GenerateWith(context.Background(), prompt, generation, nil, func(_ layerline.Token, piece string) bool {
		text += piece
		return true
	}))
	if text != plain {
		t.Fatalf("%q where %q came without drafts", text, plain)
	}
}

func TestLogprobsComeWhereTheyAreAskedFor(t *testing.T) {
	model := open(t, small)
	generation, err := layerline.NewGeneration()
	must(t, err)
	closing(t, generation)
	must(t, generation.SetMaxTokens(6))
	run := func() (all []layerline.Generated) {
		session := begin(t, model)
		must(t, session.GenerateDetailed(context.Background(), prompt, generation, nil, func(made layerline.Generated) bool {
			all = append(all, made)
			return true
		}))
		return all
	}
	for _, made := range run() {
		if made.Logprob == made.Logprob || made.Top != nil {
			t.Fatalf("%v was not asked for", made)
		}
	}
	must(t, generation.SetLogprobs(3))
	asked := run()
	for _, made := range asked {
		// The greedy choice is the likeliest, and certain.
		if len(made.Top) != 3 || made.Top[0] != (layerline.TokenLogprob{Token: made.Token, Logprob: made.Logprob}) ||
			made.Logprob > 0 || made.SampledLogprob != 0 || len(made.SampledTop) != 1 {
			t.Fatalf("%v", made)
		}
	}
	must(t, generation.SetLogprobs(0))
	for i, made := range run() {
		if made.Logprob != asked[i].Logprob || made.Top != nil {
			t.Fatalf("%v, not as %v", made, asked[i])
		}
	}
	must(t, generation.SetLogprobs(-1))
	refused(t, generation.SetLogprobs(1000), layerline.ErrInvalidArgument)
}

func TestATurnReusesWhatIsCommonAndAFullContextDropsWhatIsOldest(t *testing.T) {
	model := open(t, small)
	session, err := model.NewSession(16)
	must(t, err)
	closing(t, session)
	generation, err := layerline.NewGeneration()
	must(t, err)
	closing(t, generation)
	must(t, generation.SetMaxTokens(40))
	refused(t, session.GenerateWith(context.Background(), prompt, generation, nil, nil), layerline.ErrContextFull)
	if stats, err := generation.Stats(); err != nil || stats.End != layerline.EndContext {
		t.Fatal(stats, err)
	}
	turn := append(append([]layerline.Token{}, prompt[:len(prompt)-1]...), 77, 78)
	common, err := session.CommonPrefix(turn)
	must(t, err)
	kept, err := session.ReusePrefix(turn)
	must(t, err)
	if position, err := session.Position(); err != nil || common != len(prompt)-1 || kept != common || position != kept {
		t.Fatal(common, kept, position, err)
	}
	must(t, generation.SetKeptFirst(2))
	must(t, session.GenerateWith(context.Background(), turn[kept:], generation, nil, nil))
	if stats, err := generation.Stats(); err != nil || stats.Dropped == 0 || stats.Tokens != 40 {
		t.Fatal(stats, err)
	}
	must(t, generation.SetKeptFirst(-1))
}

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

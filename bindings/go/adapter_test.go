package layerline_test

import (
	"context"
	"errors"
	"math"
	"reflect"
	"testing"

	"layerline"
)

const adapterPath = "../../tests/data/lora.gguf"

func TestSessionsHaveAdapters(t *testing.T) {
	model := open(t, small)
	session, other := begin(t, model), begin(t, model)
	last := func(s *layerline.Session) []float32 {
		must(t, s.Truncate(0))
		must(t, s.Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
		logits, err := s.Logits(0, nil)
		must(t, err)
		return logits
	}
	plain := last(session)
	adapter, err := model.OpenAdapter(adapterPath)
	must(t, err)
	if adapter.MemoryBytes() < 768 {
		t.Error(adapter.MemoryBytes())
	}
	must(t, session.SetAdapters(layerline.ScaledAdapter{Adapter: adapter, Scale: 1}))
	for _, wrong := range []layerline.ScaledAdapter{{Scale: 1}, {Adapter: adapter, Scale: float32(math.NaN())}} {
		if err := session.SetAdapters(wrong); !errors.Is(err, layerline.ErrInvalidArgument) {
			t.Error(err)
		}
	}
	must(t, adapter.Close())
	if reflect.DeepEqual(last(session), plain) || !reflect.DeepEqual(last(other), plain) {
		t.Error("an adapter changes its session alone")
	}
	must(t, session.SetAdapters())
	if !reflect.DeepEqual(last(session), plain) {
		t.Error("without adapters the model is alone")
	}
	if _, err := model.OpenAdapter(modelPath); !errors.Is(err, layerline.ErrInvalidArgument) {
		t.Error(err)
	}
}

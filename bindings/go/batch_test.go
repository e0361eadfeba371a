package layerline_test

import (
	"context"
	"reflect"
	"testing"

	"layerline"
)

func TestSessionsShareABatch(t *testing.T) {
	model := open(t, small)
	first, second, alone := sized(t, model, 32), sized(t, model, 32), sized(t, model, 32)
	ctx := context.Background()
	must(t, alone.Forward(ctx, prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
	failed := model.ForwardBatch(ctx, []layerline.BatchInput{
		{Session: first, Tokens: prompt, Logits: layerline.LogitsAll},
		{Session: second, Tokens: prompt},
		{Session: alone, Tokens: make([]layerline.Token, 40)},
		{Session: first, Tokens: prompt},
	})
	must(t, failed[0])
	must(t, failed[1])
	refused(t, failed[2], layerline.ErrContextFull)
	refused(t, failed[3], layerline.ErrBusy)
	want, err := alone.Logits(0, nil)
	must(t, err)
	of := func(session *layerline.Session, row int) []float32 {
		logits, err := session.Logits(row, nil)
		must(t, err)
		return logits
	}
	if !reflect.DeepEqual(of(first, len(prompt)-1), want) || !reflect.DeepEqual(of(second, 0), want) {
		t.Error("the logits are not those of a session alone")
	}
	if failed := model.ForwardBatch(ctx, nil); len(failed) != 0 {
		t.Error(failed)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	refused(t, model.ForwardBatch(gone, []layerline.BatchInput{{Session: first, Tokens: prompt}})[0], layerline.ErrCancelled)
}

package layerline_test

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"layerline"
)

func logits(t testing.TB, session *layerline.Session) []float32 {
	t.Helper()
	row, err := session.Logits(0, nil)
	must(t, err)
	return row
}

func position(t testing.TB, session *layerline.Session) int {
	t.Helper()
	held, err := session.Position()
	must(t, err)
	return held
}

// continued is what a session makes of the same tokens.
func continued(t testing.TB, session *layerline.Session) []float32 {
	t.Helper()
	must(t, session.Forward(context.Background(), []layerline.Token{7, 8, 9}, layerline.LogitsLast, layerline.EmbeddingsNone))
	return logits(t, session)
}

func TestSessionsAreCopiedSavedAndLoaded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	first := begin(t, open(t, small))
	must(t, first.Forward(context.Background(), prompt, layerline.LogitsAll, layerline.EmbeddingsNone))
	last, err := first.Logits(2, nil)
	must(t, err)
	must(t, first.Save(path))
	copied, err := first.Copy(32)
	must(t, err)
	closing(t, copied)
	want := continued(t, first)
	must(t, first.Close())

	// Another opening of the model, as in another process.
	options := small
	options.Threads = 1
	loaded := sized(t, open(t, options), 16)
	must(t, loaded.Forward(context.Background(), prompt[:1], layerline.LogitsLast, layerline.EmbeddingsNone))
	must(t, loaded.Load(path))
	for what, session := range map[string]*layerline.Session{"copied": copied, "loaded": loaded} {
		if position(t, session) != len(prompt) || !reflect.DeepEqual(logits(t, session), last) {
			t.Errorf("the %s session is not as the first one was", what)
		}
		if !reflect.DeepEqual(continued(t, session), want) {
			t.Errorf("the %s session goes on otherwise", what)
		}
	}
}

func TestAProfileOfUseIsOfAModelWithExpertsAndMustBeThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profile")
	refused(t, open(t, small).SaveProfile(path), layerline.ErrUnsupported)
	options := small
	options.Profile = path
	_, err := layerline.Open(modelPath, options)
	refused(t, err, layerline.ErrIO)
}

func TestWhatCannotBeCopiedSavedOrLoadedChangesNothing(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "state")
	model := open(t, small)
	session := begin(t, model)
	must(t, session.Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
	must(t, session.Save(path))
	before := logits(t, session)

	refused(t, session.Save(filepath.Join(folder, "none", "state")), layerline.ErrIO)
	refused(t, session.Save(folder), layerline.ErrIO)
	refused(t, session.Save("a\x00b"), layerline.ErrInvalidArgument)
	refused(t, session.Load("a\x00b"), layerline.ErrInvalidArgument)
	refused(t, session.Load(modelPath), layerline.ErrFormat)
	refused(t, sized(t, model, 2).Load(path), layerline.ErrContextFull)
	_, err := session.Copy(2)
	refused(t, err, layerline.ErrContextFull)
	_, err = session.Copy(-1)
	refused(t, err, layerline.ErrInvalidArgument)
	_, err = session.Copy(1 << 31)
	refused(t, err, layerline.ErrMemoryBudget)
	whole, err := os.ReadFile(path)
	must(t, err)
	whole[100] ^= 1
	must(t, os.WriteFile(path, whole, 0o600))
	err = session.Load(path)
	refused(t, err, layerline.ErrFormat)
	if !strings.Contains(err.Error(), path) {
		t.Errorf("%v does not name %s", err, path)
	}
	if position(t, session) != len(prompt) || !reflect.DeepEqual(logits(t, session), before) {
		t.Error("a refusal has changed the session")
	}
	if names, _ := os.ReadDir(folder); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	must(t, session.Close())
	refused(t, session.Save(path), layerline.ErrClosed)
	refused(t, session.Load(path), layerline.ErrClosed)
	_, err = session.Copy(0)
	refused(t, err, layerline.ErrClosed)
}

func TestStatesGoToMemoryAndBack(t *testing.T) {
	model := open(t, small)
	session, other := begin(t, model), sized(t, model, 16)
	must(t, session.Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
	last := logits(t, session)
	state, err := session.SaveState(nil)
	must(t, err)
	must(t, other.LoadState(state))
	if position(t, other) != len(prompt) || !reflect.DeepEqual(logits(t, other), last) {
		t.Error("the session is not as the first one was")
	}
	// Memory that is there is used again.
	again, err := other.SaveState(make([]byte, 3, 2*len(state)))
	must(t, err)
	if cap(again) != 2*len(state) || !reflect.DeepEqual(again, state) {
		t.Errorf("%d bytes with room for %d", len(again), cap(again))
	}
	refused(t, other.LoadState(state[:len(state)-1]), layerline.ErrFormat)
	refused(t, other.LoadState(nil), layerline.ErrFormat)
	refused(t, sized(t, model, 2).LoadState(state), layerline.ErrContextFull)
	if position(t, other) != len(prompt) {
		t.Error("a refusal has changed the session")
	}
	must(t, session.Close())
	refused(t, session.LoadState(state), layerline.ErrClosed)
	_, err = session.SaveState(nil)
	refused(t, err, layerline.ErrClosed)
}

func TestASessionGoesBackToACheckpoint(t *testing.T) {
	model := open(t, small)
	session := begin(t, model)
	must(t, session.Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
	before := used(t, model)
	checkpoint, err := session.Checkpoint()
	must(t, err)
	if checkpoint.Position() != len(prompt) || used(t, model) != before+checkpoint.MemoryBytes() {
		t.Errorf("a checkpoint at %d of %d bytes", checkpoint.Position(), checkpoint.MemoryBytes())
	}
	want := continued(t, session)
	for i := 0; i < 2; i++ {
		must(t, session.Restore(checkpoint))
		if position(t, session) != len(prompt) || !reflect.DeepEqual(continued(t, session), want) {
			t.Error("the session goes on otherwise")
		}
	}
	refused(t, begin(t, model).Restore(checkpoint), layerline.ErrInvalidArgument)
	before = used(t, model)
	must(t, session.Truncate(1))
	refused(t, session.Restore(checkpoint), layerline.ErrInvalidArgument)
	bytes := checkpoint.MemoryBytes()
	must(t, checkpoint.Close())
	refused(t, session.Restore(checkpoint), layerline.ErrClosed)
	if used(t, model) != before-bytes || checkpoint.Position() != 0 {
		t.Error("a closed checkpoint is still there")
	}
}

// unpacked is a file that gzip has packed, in a folder of the test's.
func unpacked(t testing.TB, path string) string {
	t.Helper()
	packed, err := os.Open(path)
	must(t, err)
	defer packed.Close()
	reader, err := gzip.NewReader(packed)
	must(t, err)
	bytes, err := io.ReadAll(reader)
	must(t, err)
	plain := filepath.Join(t.TempDir(), "model.gguf")
	must(t, os.WriteFile(plain, bytes, 0o600))
	return plain
}

func TestKeysAndValuesAreKeptAsTheOptionsSay(t *testing.T) {
	// Its weights are not the model's, but its heads are wide enough.
	wide := unpacked(t, "../../tests/data/golden/quant2/Q1_0.gguf.gz")
	infos := map[layerline.KVType]layerline.SessionInfo{}
	for _, kind := range []layerline.KVType{layerline.KVF16, layerline.KVQ80} {
		options := small
		options.KVType = kind
		model, err := layerline.Open(wide, options)
		must(t, err)
		closing(t, model)
		infos[kind], err = begin(t, model).Info()
		must(t, err)
		if info := infos[kind]; info.KVType != kind || info.CacheBytes >= info.MemoryBytes || info.FewestTokens != 1 {
			t.Errorf("%v: %+v", kind, info)
		}
	}
	if infos[layerline.KVQ80].CacheBytes*32 != infos[layerline.KVF16].CacheBytes*17 {
		t.Errorf("%+v", infos)
	}
	for kind, status := range map[layerline.KVType]error{
		layerline.KVQ80: layerline.ErrUnsupported, 7: layerline.ErrInvalidArgument,
	} {
		_, err := layerline.Open(modelPath, layerline.Options{KVType: kind})
		refused(t, err, status)
	}
}

func TestManyContinueOnePromptAtOnce(t *testing.T) {
	first := begin(t, open(t, small))
	must(t, first.Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
	var group sync.WaitGroup
	rows := make([][]float32, 8)
	for i := range rows {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			session, err := first.Copy(0)
			if err != nil {
				t.Error(err)
				return
			}
			defer session.Close()
			if err := session.Forward(context.Background(), []layerline.Token{7, 8, 9}, layerline.LogitsLast, layerline.EmbeddingsNone); err != nil {
				t.Error(err)
				return
			}
			if rows[i], err = session.Logits(0, nil); err != nil {
				t.Error(err)
			}
		}(i)
	}
	group.Wait()
	want := continued(t, first)
	for i, row := range rows {
		if !reflect.DeepEqual(row, want) {
			t.Errorf("continuation %d is another", i)
		}
	}
}

func TestPassesLeaveEmbeddings(t *testing.T) {
	ctx := context.Background()
	model := open(t, small)
	session := begin(t, model)
	info, err := model.Info()
	must(t, err)
	must(t, session.Forward(ctx, prompt, layerline.LogitsNone, layerline.EmbeddingsAll))
	rows := make([][]float32, len(prompt))
	for i := range rows {
		rows[i], err = session.Embeddings(i, nil)
		must(t, err)
		if len(rows[i]) != info.EmbeddingLength {
			t.Errorf("row %d has %d numbers", i, len(rows[i]))
		}
	}
	_, err = session.Embeddings(len(prompt), nil)
	refused(t, err, layerline.ErrInvalidArgument)
	_, err = session.Embeddings(-1, nil)
	refused(t, err, layerline.ErrInvalidArgument)
	_, err = session.Logits(0, nil)
	refused(t, err, layerline.ErrInvalidArgument)

	for which, want := range map[layerline.EmbeddingRows][]float32{
		layerline.EmbeddingsFirst: rows[0], layerline.EmbeddingsLast: rows[len(rows)-1],
	} {
		must(t, session.Truncate(0))
		must(t, session.Forward(ctx, prompt, layerline.LogitsLast, which))
		row, err := session.Embeddings(0, make([]float32, 1000))
		must(t, err)
		if !reflect.DeepEqual(row, want) || len(logits(t, session)) != info.VocabSize {
			t.Errorf("embeddings %d are others", which)
		}
	}
	must(t, session.Truncate(0))
	_, err = session.Submit(prompt, layerline.LogitsNone, layerline.EmbeddingsMean)
	must(t, err)
	_, err = model.Wait(ctx)
	must(t, err)
	mean, err := session.Embeddings(0, nil)
	must(t, err)
	for i := range mean {
		sum := rows[0][i] + rows[1][i] + rows[2][i]
		if off := mean[i] - sum/3; off > 1e-5 || off < -1e-5 {
			t.Fatalf("the mean has %g at %d, not %g", mean[i], i, sum/3)
		}
	}
	refused(t, session.Forward(ctx, prompt, 7, layerline.EmbeddingsNone), layerline.ErrInvalidArgument)
}

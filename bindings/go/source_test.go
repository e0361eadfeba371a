package layerline_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"layerline"
)

// storage is a file in memory that fails and blocks on command.
type storage struct {
	*bytes.Reader
	fails   atomic.Bool
	asked   chan struct{} // a read stands
	blocked atomic.Pointer[chan struct{}]
}

var errGone = errors.New("the network is gone")

func (s *storage) ReadAt(p []byte, offset int64) (int, error) {
	if gate := s.blocked.Load(); gate != nil {
		select {
		case s.asked <- struct{}{}:
		default:
		}
		<-*gate
	}
	if s.fails.Load() {
		return 0, errGone
	}
	if len(p) > 5000 {
		// As short as a reader may be.
		p = p[:5000]
	}
	return s.Reader.ReadAt(p, offset)
}

func stored(t *testing.T, path, name string) (*storage, *layerline.Source) {
	file, err := os.ReadFile(path)
	must(t, err)
	s := &storage{Reader: bytes.NewReader(file), asked: make(chan struct{}, 1)}
	source, err := layerline.NewSource(s, int64(len(file)), name)
	must(t, err)
	t.Cleanup(func() { must(t, source.Close()) })
	return s, source
}

func TestASourceGivesWhatTheFileGives(t *testing.T) {
	storage, source := stored(t, modelPath, "tiny.gguf")
	options := small
	options.DisablePrefetch = true
	plan, err := layerline.PlanSource(source, options)
	must(t, err)
	ofFile, err := layerline.PlanMemory(modelPath, options)
	must(t, err)
	if plan != ofFile {
		t.Errorf("%+v, not %+v", plan, ofFile)
	}
	logits := func(s *layerline.Session) []float32 {
		must(t, s.Truncate(0))
		must(t, s.Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
		logits, err := s.Logits(0, nil)
		must(t, err)
		return logits
	}
	expected := logits(begin(t, open(t, small)))
	options.MemoryBudget = plan.FloorBytes + 2*plan.KVBytes
	model, err := layerline.OpenSource(source, options)
	must(t, err)
	session := begin(t, model)
	if !reflect.DeepEqual(logits(session), expected) {
		t.Error("other logits than the file's")
	}
	stats, err := model.Stats()
	must(t, err)
	if stats.IO != layerline.IOSource {
		t.Error(stats.IO)
	}

	storage.fails.Store(true)
	must(t, session.Truncate(0))
	err = session.Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone)
	if !errors.Is(err, layerline.ErrIO) || !strings.Contains(err.Error(), "tiny.gguf") {
		t.Error(err)
	}
	storage.fails.Store(false)
	if !reflect.DeepEqual(logits(session), expected) {
		t.Error("a read that failed has left something behind")
	}
	must(t, model.Close())
}

func TestAContextEndsAPassWhileItsSourceBlocks(t *testing.T) {
	storage, source := stored(t, modelPath, "tiny.gguf")
	must(t, source.SetConcurrent(false))
	plan, err := layerline.PlanSource(source, small)
	must(t, err)
	options := small
	options.MemoryBudget = plan.FloorBytes + 2*plan.KVBytes
	model, err := layerline.OpenSource(source, options)
	must(t, err)
	session := begin(t, model)
	must(t, session.Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
	must(t, session.Truncate(0))
	gate := make(chan struct{})
	storage.blocked.Store(&gate)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- session.Forward(ctx, prompt, layerline.LogitsLast, layerline.EmbeddingsNone) }()
	<-storage.asked
	cancel()
	storage.blocked.Store(nil)
	close(gate)
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	must(t, session.Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
	must(t, model.Close())
}

func TestWhatIsWrongWithASourceIsRefused(t *testing.T) {
	_, source := stored(t, modelPath, "tiny.gguf")
	_, lora := stored(t, adapterPath, "lora.gguf")
	options := small
	options.IO = layerline.IOMmap
	if _, err := layerline.OpenSource(source, options); !errors.Is(err, layerline.ErrUnsupported) {
		t.Error(err)
	}
	model := open(t, small)
	adapter, err := model.OpenAdapterSource(lora)
	must(t, err)
	must(t, adapter.Close())
	must(t, source.AddFile(lora))
	if _, err := layerline.OpenSource(source, small); !errors.Is(err, layerline.ErrInvalidArgument) {
		t.Error(err)
	}
	if err := lora.AddFile(source); !errors.Is(err, layerline.ErrInvalidArgument) {
		t.Error(err)
	}
	for _, wrong := range []struct {
		reader io.ReaderAt
		size   int64
		name   string
	}{{nil, 9, "a"}, {bytes.NewReader(nil), -1, "a"}, {bytes.NewReader(nil), 9, "a\x00b"}} {
		if _, err := layerline.NewSource(wrong.reader, wrong.size, wrong.name); !errors.Is(err, layerline.ErrInvalidArgument) {
			t.Error(err)
		}
	}
	empty, err := layerline.NewSource(bytes.NewReader(nil), 9, "empty.gguf")
	must(t, err)
	if _, err := layerline.OpenSource(empty, small); !errors.Is(err, layerline.ErrIO) {
		t.Error(err)
	}
	must(t, empty.Close())
	if _, err := layerline.OpenSource(empty, small); !errors.Is(err, layerline.ErrClosed) {
		t.Error(err)
	}
}

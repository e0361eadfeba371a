package layerline_test

import (
	"context"
	"errors"
	"io"
	"os"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"layerline"
)

const modelPath = "../../tests/data/golden/arch/llama.gguf"

var (
	small  = layerline.Options{ContextLength: 64, Threads: 2, MemoryBudget: 1 << 30}
	prompt = []layerline.Token{1, 40, 50}
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused fails unless err is what is wanted, and says why in words.
func refused(t testing.TB, err error, wanted error) {
	t.Helper()
	if !errors.Is(err, wanted) {
		t.Fatalf("%v, not %v", err, wanted)
	}
	if len(err.Error()) < len("layerline: ")+5 || !strings.HasPrefix(err.Error(), "layerline: ") {
		t.Errorf("the message is %q", err)
	}
}

func closing(t testing.TB, handle io.Closer) {
	t.Cleanup(func() { must(t, handle.Close()) })
}

func open(t testing.TB, options layerline.Options) *layerline.Model {
	t.Helper()
	model, err := layerline.Open(modelPath, options)
	must(t, err)
	closing(t, model)
	return model
}

func begin(t testing.TB, model *layerline.Model) *layerline.Session {
	t.Helper()
	return sized(t, model, 0)
}

func sized(t testing.TB, model *layerline.Model, contextLength int) *layerline.Session {
	t.Helper()
	session, err := model.NewSession(contextLength)
	must(t, err)
	closing(t, session)
	return session
}

func used(t testing.TB, model *layerline.Model) uint64 {
	t.Helper()
	stats, err := model.Stats()
	must(t, err)
	return stats.UsedBytes
}

// eventually waits for what another thread does soon.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for i := 0; !is(); i++ {
		if i == 60_000 {
			t.Fatalf("%s: not in a minute", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestModelSaysWhatItIs(t *testing.T) {
	model := open(t, small)
	info, err := model.Info()
	must(t, err)
	if info.LayerCount != 2 || info.VocabSize != 320 || info.ContextLength != 256 || info.BOSToken != 1 ||
		info.ParameterCount == 0 {
		t.Errorf("%+v", info)
	}
	name, err := model.Metadata("general.architecture")
	must(t, err)
	if name != "llama" {
		t.Errorf("the architecture is %q", name)
	}
	_, err = model.Metadata("no.such.key")
	refused(t, err, layerline.ErrNotFound)
	_, err = model.Metadata("a\x00b")
	refused(t, err, layerline.ErrInvalidArgument)
	plan, err := layerline.PlanMemory(modelPath, small)
	must(t, err)
	file, err := os.Stat(modelPath)
	must(t, err)
	if plan.LayerCount != 2 || plan.FloorBytes > plan.FullBytes || plan.FloorBytes == 0 ||
		plan.FileBytes != uint64(file.Size()) {
		t.Errorf("%+v", plan)
	}
	stats, err := model.Stats()
	must(t, err)
	if stats.BudgetBytes != small.MemoryBudget || stats.IO == layerline.IOAuto || stats.UsedBytes == 0 {
		t.Errorf("%+v", stats)
	}
}

func TestFailuresCarryStatusAndMessage(t *testing.T) {
	for _, wrong := range []struct {
		path    string
		options layerline.Options
		status  layerline.Status
		says    string
	}{
		{"/no/such/model", small, layerline.ErrIO, "/no/such/model"},
		{"go.mod", small, layerline.ErrFormat, "go.mod"},
		{"a\x00b", small, layerline.ErrInvalidArgument, `"a\x00b"`},
		{modelPath, layerline.Options{MemoryBudget: 4096}, layerline.ErrMemoryBudget, "4096"},
		{modelPath, layerline.Options{IO: 17}, layerline.ErrInvalidArgument, "IO is 17"},
		{modelPath, layerline.Options{Threads: -1}, layerline.ErrInvalidArgument, "Threads is -1"},
		{modelPath, layerline.Options{ContextLength: 1<<32 + 1}, layerline.ErrInvalidArgument, "ContextLength is 4294967297"},
	} {
		model, err := layerline.Open(wrong.path, wrong.options)
		refused(t, err, wrong.status)
		var failed *layerline.Error
		if model != nil || !errors.As(err, &failed) || failed.Status != wrong.status ||
			!strings.Contains(failed.Message, wrong.says) {
			t.Errorf("%s: %v, which does not say %q", wrong.path, err, wrong.says)
		}
		if errors.Is(err, layerline.ErrCancelled) || errors.Is(err, layerline.ErrClosed) {
			t.Errorf("%v is everything", err)
		}
	}
	_, err := layerline.PlanMemory("/no/such/model", small)
	refused(t, err, layerline.ErrIO)
	for _, options := range []layerline.SamplerOptions{
		{Temperature: -1}, {TopP: 1.5}, {TopK: -1}, {RepeatPenalty: -1}, {RepeatLastN: -1},
	} {
		_, err := layerline.NewSampler(options)
		refused(t, err, layerline.ErrInvalidArgument)
	}
	refused(t, layerline.ErrIO, layerline.ErrIO)
	refused(t, layerline.Status(-999), layerline.Status(-999)) // of a newer library
}

func TestAFileWillDo(t *testing.T) {
	file, err := os.Open(modelPath)
	must(t, err)
	model, err := layerline.OpenFile(file, 0, 0, small)
	must(t, file.Close())
	must(t, err)
	closing(t, model)
	must(t, begin(t, model).Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone))

	// Inside another file.
	whole, err := os.ReadFile(modelPath)
	must(t, err)
	archive, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	closing(t, archive)
	_, err = archive.Write(append(make([]byte, 4096), append(whole, "more"...)...))
	must(t, err)
	inside, err := layerline.OpenFile(archive, 4096, uint64(len(whole)), small)
	must(t, err)
	closing(t, inside)
	_, err = layerline.OpenFile(archive, 0, 0, small)
	refused(t, err, layerline.ErrFormat)
	_, err = layerline.OpenFile(file, 0, 0, small)
	if !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

func TestTextComesInWholeCharacters(t *testing.T) {
	model := open(t, small)
	text := "na\u00efve-\u65e5\U0001f600"
	tokens, err := model.Tokenize(text, layerline.TokenizeContinue)
	must(t, err)
	detokenizer, err := model.NewDetokenizer(layerline.DetokenizeContinue)
	must(t, err)
	joined := ""
	for _, token := range tokens {
		piece, err := detokenizer.Push(token)
		must(t, err)
		if !utf8.ValidString(piece) {
			t.Errorf("%q", piece)
		}
		joined += piece
	}
	rest, err := detokenizer.Finish()
	must(t, err)
	if joined != text || rest != "" {
		t.Errorf("%q %q", joined, rest)
	}
	_, err = detokenizer.Push(100000)
	refused(t, err, layerline.ErrInvalidArgument)
	must(t, detokenizer.Close())
	_, err = detokenizer.Push(40)
	refused(t, err, layerline.ErrClosed)
}

func TestTextGoesBothWays(t *testing.T) {
	model := open(t, small)
	long := strings.Repeat("a-sea-of-words,", 300)
	tokens, err := model.Tokenize(long, 0)
	must(t, err)
	back, err := model.Detokenize(tokens)
	must(t, err)
	if !strings.Contains(back, long) {
		t.Errorf("%q", back)
	}
	none, err := model.Tokenize("", 0)
	must(t, err)
	nothing, err := model.Detokenize(none)
	must(t, err)
	if len(none) != 0 || nothing != "" {
		t.Errorf("%v %q", none, nothing)
	}
	first, err := model.Tokenize("a", layerline.TokenizeBOS|layerline.TokenizeSpecial)
	must(t, err)
	if first[0] != 1 {
		t.Errorf("%v does not begin with the beginning", first)
	}
	odd, err := model.Tokenize("\xff", layerline.TokenizeContinue)
	must(t, err)
	named, err := model.DetokenizeWith(append(odd, 1), layerline.DetokenizeControl|layerline.DetokenizeContinue)
	must(t, err)
	if len(odd) != 1 || named != "\xff<s>" {
		t.Errorf("%v %q", odd, named)
	}
	_, err = model.Tokenize("a", 1<<20)
	refused(t, err, layerline.ErrInvalidArgument)
	_, err = model.Detokenize([]layerline.Token{100000})
	refused(t, err, layerline.ErrInvalidArgument)
	info, err := model.Info()
	must(t, err)
	for token, wanted := range map[layerline.Token]bool{info.EOSToken: true, 40: false} {
		end, err := model.IsEnd(token)
		must(t, err)
		if end != wanted {
			t.Errorf("IsEnd(%d) is %v", token, end)
		}
	}
	_, err = model.IsEnd(-1)
	refused(t, err, layerline.ErrInvalidArgument)
}

func TestPassesLeaveLogits(t *testing.T) {
	ctx := context.Background()
	session := begin(t, open(t, small))
	must(t, session.Forward(ctx, prompt, layerline.LogitsAll, layerline.EmbeddingsNone))
	last, err := session.Logits(2, nil)
	must(t, err)
	if position, err := session.Position(); err != nil || position != 3 || len(last) != 320 {
		t.Errorf("%d tokens, %v, %d logits", position, err, len(last))
	}
	must(t, session.Truncate(2))
	must(t, session.Forward(ctx, prompt[2:], layerline.LogitsLast, layerline.EmbeddingsNone))
	into := make([]float32, 0, 320)
	again, err := session.Logits(0, into)
	must(t, err)
	if !reflect.DeepEqual(again, last) || &again[0] != &into[:1][0] { // bit for bit
		t.Error("other logits, or in other memory")
	}
	sampler, err := layerline.NewSampler(layerline.SamplerOptions{})
	must(t, err)
	closing(t, sampler)
	chosen, err := sampler.Sample(session)
	must(t, err)
	for _, logit := range last {
		if logit > last[chosen] {
			t.Errorf("%d was chosen, which is not the likeliest", chosen)
		}
	}
	must(t, session.Forward(ctx, []layerline.Token{chosen}, layerline.LogitsNone, layerline.EmbeddingsNone))
	_, err = session.Logits(0, nil)
	refused(t, err, layerline.ErrInvalidArgument)
	_, err = sampler.Sample(session)
	refused(t, err, layerline.ErrInvalidArgument)
	_, err = session.Logits(-1, nil)
	refused(t, err, layerline.ErrInvalidArgument)
	refused(t, session.Forward(ctx, nil, layerline.LogitsLast, layerline.EmbeddingsNone), layerline.ErrInvalidArgument)
	refused(t, session.Forward(ctx, prompt, 9, layerline.EmbeddingsNone), layerline.ErrInvalidArgument)
	refused(t, session.Forward(ctx, make([]layerline.Token, 100), layerline.LogitsLast, layerline.EmbeddingsNone), layerline.ErrContextFull)
	refused(t, session.Truncate(100), layerline.ErrInvalidArgument)
	refused(t, session.Truncate(-1), layerline.ErrInvalidArgument)
}

// generated is the tokens and the text of a new session.
func generated(t testing.TB, model *layerline.Model, most int, sampler *layerline.Sampler) (tokens []layerline.Token, text string) {
	t.Helper()
	session := begin(t, model)
	must(t, session.Generate(context.Background(), prompt, most, sampler, func(token layerline.Token, piece string) bool {
		tokens, text = append(tokens, token), text+piece
		return true
	}))
	must(t, session.Close())
	return tokens, text
}

func TestGenerationGivesTheSameTextEachWay(t *testing.T) {
	ctx := context.Background()
	model := open(t, small)
	whole, text := generated(t, model, 8, nil)
	again, same := generated(t, model, 8, nil)
	if len(whole) < 3 || text == "" || !reflect.DeepEqual(whole, again) || text != same {
		t.Fatalf("%v %q, then %v %q", whole, text, again, same)
	}
	// By hand.
	session := begin(t, model)
	sampler, err := layerline.NewSampler(layerline.SamplerOptions{})
	must(t, err)
	closing(t, sampler)
	next := prompt
	for _, wanted := range whole {
		must(t, session.Forward(ctx, next, layerline.LogitsLast, layerline.EmbeddingsNone))
		token, err := sampler.Sample(session)
		must(t, err)
		if token != wanted {
			t.Fatalf("%d by hand, %d by Generate", token, wanted)
		}
		next = []layerline.Token{token}
	}
	// In two parts: stopped by the callback, and going on with the token that was not fed.
	var part []layerline.Token
	parts := begin(t, model)
	take := func(token layerline.Token, _ string) bool {
		part = append(part, token)
		return len(part) != 2
	}
	must(t, parts.Generate(ctx, prompt, 8, nil, take))
	if !reflect.DeepEqual(part, whole[:2]) {
		t.Fatalf("%v is not the beginning of %v", part, whole)
	}
	must(t, parts.Generate(ctx, part[1:], len(whole)-2, nil, take))
	if !reflect.DeepEqual(part, whole) {
		t.Fatalf("%v is not %v", part, whole)
	}
	// The prompt alone, and from its logits.
	from := begin(t, model)
	must(t, from.Generate(ctx, prompt, 0, nil, nil))
	part = nil
	must(t, from.Generate(ctx, nil, 1, nil, take))
	if !reflect.DeepEqual(part, whole[:1]) {
		t.Fatalf("%v is not the beginning of %v", part, whole)
	}
	refused(t, from.Generate(ctx, prompt, -1, nil, nil), layerline.ErrInvalidArgument)
	refused(t, from.Generate(ctx, prompt, 100, nil, nil), layerline.ErrContextFull)

	chance := func(seed uint64) []layerline.Token {
		sampler, err := layerline.NewSampler(layerline.SamplerOptions{
			Temperature: 5, TopK: 100, TopP: 0.99, MinP: 0.0001, RepeatPenalty: 1.1, RepeatLastN: 16, Seed: seed,
		})
		must(t, err)
		closing(t, sampler)
		tokens, _ := generated(t, model, 16, sampler)
		return tokens
	}
	if !reflect.DeepEqual(chance(5), chance(5)) || reflect.DeepEqual(chance(5), chance(6)) {
		t.Error("the seed does not decide")
	}
}

func TestEventsCome(t *testing.T) {
	ctx := context.Background()
	model := open(t, small)
	ticket, err := model.Prefetch(0, 2)
	must(t, err)
	layers := map[int]bool{}
	for done := false; !done; {
		events, err := model.Wait(ctx)
		must(t, err)
		for _, event := range events {
			if event.Ticket != ticket || event.Err != nil {
				t.Errorf("%+v", event)
			}
			if event.Kind == layerline.EventDone {
				done = true
			} else {
				layers[event.Layer] = true
			}
		}
	}
	if !reflect.DeepEqual(layers, map[int]bool{0: true, 1: true}) {
		t.Errorf("events of layers %v", layers)
	}
	state, err := model.LayerState(1)
	must(t, err)
	if state != layerline.LayerReady && state != layerline.LayerPinned {
		t.Errorf("layer 1 is %v", state)
	}
	events, err := model.Poll()
	must(t, err)
	if len(events) != 0 {
		t.Errorf("%v", events)
	}
	must(t, model.Cancel(ticket))
	refused(t, model.Cancel(999999), layerline.ErrNotFound)
	for _, wrong := range [][2]int{{2, 1}, {-1, 1}, {0, -1}, {1 << 32, 1}} {
		_, err = model.Prefetch(wrong[0], wrong[1])
		refused(t, err, layerline.ErrInvalidArgument)
	}
	for _, wrong := range []int{2, -1} {
		_, err = model.LayerState(wrong)
		refused(t, err, layerline.ErrInvalidArgument)
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = model.Wait(ended)
	refused(t, err, context.Canceled)
	refused(t, err, layerline.ErrCancelled)
	brief, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
	defer cancel()
	_, err = model.Wait(brief)
	refused(t, err, context.DeadlineExceeded)
	// Close ends a Wait that nothing else would end.
	waits := make(chan error)
	go func() {
		_, err := model.Wait(ctx)
		waits <- err
	}()
	must(t, model.Close())
	refused(t, <-waits, layerline.ErrClosed)
}

func TestNamesOfNumbers(t *testing.T) {
	for value, wanted := range map[interface{ String() string }]string{
		layerline.IOMmap: "mmap", layerline.IOMode(9): "9", layerline.LayerLoading: "loading", layerline.LayerState(-1): "-1",
		layerline.EventLayer: "layer", layerline.EventDone: "done", layerline.EventKind(7): "7",
	} {
		if value.String() != wanted {
			t.Errorf("%q is not %q", value, wanted)
		}
	}
}

func TestALoopCanWatchASubmittedPass(t *testing.T) {
	model := open(t, small)
	session := begin(t, model)
	ticket, err := session.Submit(prompt, layerline.LogitsLast, layerline.EmbeddingsNone)
	must(t, err)
	fd, err := model.EventHandle()
	must(t, err)
	var set syscall.FdSet
	wait := func() (int, error) {
		set.Bits[fd/64] = 1 << (fd % 64)
		return syscall.Select(fd+1, &set, nil, nil, &syscall.Timeval{Sec: 60})
	}
	ready, err := wait()
	for err == syscall.EINTR {
		ready, err = wait()
	}
	must(t, err)
	if ready != 1 {
		t.Fatal("the descriptor is not readable in a minute")
	}
	events, err := model.Poll()
	must(t, err)
	if len(events) != 1 || events[0].Ticket != ticket || events[0].Kind != layerline.EventDone || events[0].Err != nil {
		t.Fatalf("%+v", events)
	}
	logits, err := session.Logits(0, nil)
	must(t, err)
	if len(logits) != 320 {
		t.Errorf("%d logits", len(logits))
	}
	_, err = session.Submit(nil, layerline.LogitsLast, layerline.EmbeddingsNone)
	refused(t, err, layerline.ErrInvalidArgument)
}

func TestTheBudgetMoves(t *testing.T) {
	plan, err := layerline.PlanMemory(modelPath, small)
	must(t, err)
	model := open(t, small)
	must(t, model.SetMemoryBudget(plan.FloorBytes))
	stats, err := model.Stats()
	must(t, err)
	if stats.BudgetBytes != plan.FloorBytes {
		t.Errorf("%d, not %d", stats.BudgetBytes, plan.FloorBytes)
	}
	refused(t, model.SetMemoryBudget(4096), layerline.ErrMemoryBudget)

	shared, err := layerline.NewBudget(4 * plan.FullBytes)
	must(t, err)
	options := layerline.Options{ContextLength: 64, SharedBudget: shared}
	one, two := open(t, options), open(t, options)
	must(t, shared.SetBytes(3*plan.FullBytes))
	refused(t, shared.SetBytes(4096), layerline.ErrMemoryBudget)
	must(t, shared.Close())
	var sum uint64
	for _, model := range []*layerline.Model{one, two} {
		stats, err := model.Stats()
		must(t, err)
		sum += stats.BudgetBytes
	}
	if sum == 0 || sum > 3*plan.FullBytes {
		t.Errorf("shares of %d, more than %d", sum, 3*plan.FullBytes)
	}
	_, err = layerline.Open(modelPath, options)
	refused(t, err, layerline.ErrClosed)
	refused(t, shared.SetBytes(1<<30), layerline.ErrClosed)
}

func TestClosedIsClosed(t *testing.T) {
	ctx := context.Background()
	model := open(t, small)
	session := begin(t, model)
	sampler, err := layerline.NewSampler(layerline.SamplerOptions{})
	must(t, err)
	must(t, model.Close())
	must(t, model.Close())
	must(t, sampler.Close())
	must(t, session.Forward(ctx, prompt, layerline.LogitsLast, layerline.EmbeddingsNone)) // sessions go on
	_, err = sampler.Sample(session)
	refused(t, err, layerline.ErrClosed)
	refused(t, session.Generate(ctx, prompt, 1, sampler, nil), layerline.ErrClosed)
	must(t, session.Close())
	session.Interrupt()
	never, noSession := &layerline.Model{}, &layerline.Session{} // not from Open
	must(t, never.Close())
	for name, call := range map[string]func(*layerline.Model, *layerline.Session) error{
		"Info":        func(m *layerline.Model, _ *layerline.Session) error { _, err := m.Info(); return err },
		"Stats":       func(m *layerline.Model, _ *layerline.Session) error { _, err := m.Stats(); return err },
		"Metadata":    func(m *layerline.Model, _ *layerline.Session) error { _, err := m.Metadata("a"); return err },
		"Budget":      func(m *layerline.Model, _ *layerline.Session) error { return m.SetMemoryBudget(1 << 30) },
		"SaveProfile": func(m *layerline.Model, _ *layerline.Session) error { return m.SaveProfile("none") },
		"NewSession":  func(m *layerline.Model, _ *layerline.Session) error { _, err := m.NewSession(0); return err },
		"Prefetch":    func(m *layerline.Model, _ *layerline.Session) error { _, err := m.Prefetch(0, 1); return err },
		"Cancel":      func(m *layerline.Model, _ *layerline.Session) error { return m.Cancel(1) },
		"Poll":        func(m *layerline.Model, _ *layerline.Session) error { _, err := m.Poll(); return err },
		"Wait":        func(m *layerline.Model, _ *layerline.Session) error { _, err := m.Wait(ctx); return err },
		"EventHandle": func(m *layerline.Model, _ *layerline.Session) error { _, err := m.EventHandle(); return err },
		"LayerState":  func(m *layerline.Model, _ *layerline.Session) error { _, err := m.LayerState(0); return err },
		"Tokenize":    func(m *layerline.Model, _ *layerline.Session) error { _, err := m.Tokenize("a", 0); return err },
		"Detokenize":  func(m *layerline.Model, _ *layerline.Session) error { _, err := m.Detokenize(nil); return err },
		"IsEnd":       func(m *layerline.Model, _ *layerline.Session) error { _, err := m.IsEnd(1); return err },
		"Forward": func(_ *layerline.Model, s *layerline.Session) error {
			return s.Forward(ctx, prompt, 0, layerline.EmbeddingsNone)
		},
		"Submit": func(_ *layerline.Model, s *layerline.Session) error {
			_, err := s.Submit(prompt, 0, layerline.EmbeddingsNone)
			return err
		},
		"Generate": func(_ *layerline.Model, s *layerline.Session) error { return s.Generate(ctx, prompt, 1, nil, nil) },
		"Logits":   func(_ *layerline.Model, s *layerline.Session) error { _, err := s.Logits(0, nil); return err },
		"Position": func(_ *layerline.Model, s *layerline.Session) error { _, err := s.Position(); return err },
		"Truncate": func(_ *layerline.Model, s *layerline.Session) error { return s.Truncate(0) },
		"Close, again": func(m *layerline.Model, s *layerline.Session) error {
			_, _ = m.Close(), s.Close()
			return layerline.ErrClosed
		},
	} {
		for _, err := range []error{call(model, session), call(never, noSession)} {
			if !errors.Is(err, layerline.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestWhatIsForgottenIsFreed(t *testing.T) {
	// Without prefetching nothing is loaded before the first pass.
	model := open(t, layerline.Options{ContextLength: 64, DisablePrefetch: true})
	before := used(t, model)
	forget := func() {
		for i := 0; i < 4; i++ {
			_, err := model.NewSession(256)
			must(t, err)
		}
	}
	forget()
	eventually(t, "sessions are freed", func() bool {
		runtime.GC()
		return used(t, model) == before
	})
	session, err := model.NewSession(256)
	must(t, err)
	if used(t, model) <= before {
		t.Error("a session takes nothing")
	}
	must(t, session.Close())
	if used(t, model) != before {
		t.Error("a closed session takes something")
	}
}

package layerline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"layerline"
)

// late is a context that is done, but does not say so the first time it is asked: what is then begun must be ended.
type late struct {
	context.Context
	asked int32
}

func (l *late) Err() error {
	if atomic.AddInt32(&l.asked, 1) == 1 {
		return nil
	}
	return l.Context.Err()
}

func done() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestAContextEndsGeneration(t *testing.T) {
	model := open(t, small)
	whole, _ := generated(t, model, 8, nil)
	session := begin(t, model)

	// Before it begins.
	none := func(layerline.Token, string) bool {
		t.Error("a token came")
		return true
	}
	err := session.Generate(done(), prompt, 8, nil, none)
	refused(t, err, context.Canceled)
	refused(t, err, layerline.ErrCancelled)
	refused(t, session.Forward(done(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone), context.Canceled)
	expired, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	refused(t, session.Forward(expired, prompt, layerline.LogitsLast, layerline.EmbeddingsNone), context.DeadlineExceeded)
	if position, err := session.Position(); err != nil || position != 0 {
		t.Fatal(position, err)
	}

	// Between two tokens: what was passed on stays, but for the last.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var came []layerline.Token
	err = session.Generate(ctx, prompt, 8, nil, func(token layerline.Token, _ string) bool {
		if came = append(came, token); len(came) == 2 {
			cancel()
		}
		return true
	})
	refused(t, err, context.Canceled)
	refused(t, err, layerline.ErrCancelled)
	if position, err := session.Position(); err != nil || position != len(prompt)+1 || !reflect.DeepEqual(came, whole[:2]) {
		t.Fatalf("%d tokens, %v, came %v", position, err, came)
	}
	// And the session goes on from there.
	must(t, session.Generate(context.Background(), came[1:], len(whole)-2, nil, func(token layerline.Token, _ string) bool {
		came = append(came, token)
		return true
	}))
	if !reflect.DeepEqual(came, whole) {
		t.Errorf("%v after the interruption, %v without", came, whole)
	}
}

func TestAContextEndsAPass(t *testing.T) {
	// One sweep a token, so that there is something to end; and no threads, so that the sweeps take a while.
	model := open(t, layerline.Options{ContextLength: 256, ChunkLength: 1, Threads: 1, DisablePrefetch: true})
	session := begin(t, model)
	tokens := make([]layerline.Token, 250)
	// With one processor this goroutine sees that the context is done before the one that makes the call runs: the
	// first interrupt finds no pass yet.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	ended, tries := 0, 0
	for ; ended < 5 && tries < 200; tries++ {
		err := session.Forward(&late{Context: done()}, tokens, layerline.LogitsLast, layerline.EmbeddingsNone)
		if position, _ := session.Position(); (err == nil) != (position == len(tokens)) || err != nil && position != 0 {
			t.Fatalf("%v leaves %d tokens", err, position)
		}
		if err != nil {
			refused(t, err, context.Canceled)
			refused(t, err, layerline.ErrCancelled)
			ended++
		}
		must(t, session.Truncate(0))
	}
	if ended < 5 {
		t.Errorf("%d of %d passes were ended", ended, tries)
	}
	must(t, session.Forward(context.Background(), tokens, layerline.LogitsLast, layerline.EmbeddingsNone))

	// The context of a call that is refused does not end the pass that has the session.
	must(t, session.Truncate(0))
	ticket, err := session.Submit(tokens, layerline.LogitsLast, layerline.EmbeddingsNone)
	must(t, err)
	for i := 0; i < 20; i++ {
		err := session.Forward(&late{Context: done()}, prompt, layerline.LogitsLast, layerline.EmbeddingsNone)
		if !errors.Is(err, layerline.ErrBusy) && i == 0 {
			t.Error(err)
		}
	}
	events, err := model.Wait(context.Background())
	must(t, err)
	if len(events) != 1 || events[0].Ticket != ticket || events[0].Err != nil {
		t.Errorf("%+v", events)
	}
}

func TestASubmittedPassCanBeGivenUp(t *testing.T) {
	model := open(t, layerline.Options{ContextLength: 256, ChunkLength: 1, Threads: 1})
	sessions := []*layerline.Session{begin(t, model), begin(t, model), begin(t, model)}
	tokens := make([]layerline.Token, 250)
	tickets := map[layerline.Ticket]error{}
	for i, session := range sessions {
		ticket, err := session.Submit(tokens, layerline.LogitsNone, layerline.EmbeddingsNone)
		must(t, err)
		tickets[ticket] = layerline.ErrCancelled
		switch i {
		case 0:
			tickets[ticket] = nil
			refused(t, session.Truncate(0), layerline.ErrBusy)
			_, err = session.Position()
			refused(t, err, layerline.ErrBusy)
		case 1:
			session.Interrupt()
		case 2:
			must(t, model.Cancel(ticket))
		}
	}
	for left := len(tickets); left > 0; {
		events, err := model.Wait(context.Background())
		must(t, err)
		for _, event := range events {
			if wanted, ours := tickets[event.Ticket]; !ours || event.Err != wanted {
				t.Errorf("%+v, not %v", event, wanted)
			}
			left--
		}
	}
}

func TestACallbackMayDoAnything(t *testing.T) {
	ctx := context.Background()
	model := open(t, small)
	whole, _ := generated(t, model, 8, nil)
	session := begin(t, model)

	// Panic.
	func() {
		defer func() {
			if said := recover(); said != "oh" {
				t.Errorf("recovered %v", said)
			}
		}()
		_ = session.Generate(ctx, prompt, 8, nil, func(layerline.Token, string) bool { panic("oh") })
		t.Error("Generate returned")
	}()
	must(t, session.Truncate(0))

	// Goexit, which is what t.FailNow is.
	gone := make(chan bool)
	go func() {
		defer close(gone)
		_ = session.Generate(ctx, prompt, 8, nil, func(layerline.Token, string) bool { runtime.Goexit(); return true })
		t.Error("Generate returned")
	}()
	<-gone
	must(t, session.Truncate(0))

	// Call what is in use, which is refused.
	sampler, err := layerline.NewSampler(layerline.SamplerOptions{})
	must(t, err)
	closing(t, sampler)
	other := begin(t, model)
	must(t, session.Generate(ctx, prompt, 1, sampler, func(layerline.Token, string) bool {
		_, err := session.Position()
		refused(t, err, layerline.ErrBusy)
		_, err = session.Logits(0, nil)
		refused(t, err, layerline.ErrBusy)
		_, err = sampler.Sample(session)
		refused(t, err, layerline.ErrBusy)
		refused(t, session.Generate(ctx, prompt, 1, nil, nil), layerline.ErrBusy)
		refused(t, other.Generate(ctx, prompt, 1, sampler, nil), layerline.ErrBusy)
		refused(t, session.Truncate(0), layerline.ErrBusy)
		must(t, other.Forward(ctx, prompt, layerline.LogitsLast, layerline.EmbeddingsNone)) // another session is free
		return true
	}))
	must(t, session.Truncate(0))

	// Interrupt.
	err = session.Generate(ctx, prompt, 8, nil, func(layerline.Token, string) bool {
		session.Interrupt()
		return true
	})
	refused(t, err, layerline.ErrCancelled)
	if errors.Is(err, context.Canceled) || errors.Is(err, layerline.ErrClosed) {
		t.Error(err)
	}
	must(t, session.Truncate(0))

	// Send on a channel.
	tokens := make(chan layerline.Token)
	go func() {
		defer close(tokens)
		must(t, session.Generate(ctx, prompt, 8, nil, func(token layerline.Token, _ string) bool {
			tokens <- token
			return true
		}))
	}()
	var came []layerline.Token
	for token := range tokens {
		came = append(came, token)
	}
	if !reflect.DeepEqual(came, whole) {
		t.Errorf("%v came, not %v", came, whole)
	}
	must(t, session.Truncate(0))

	// Close everything.
	err = session.Generate(ctx, prompt, 8, sampler, func(layerline.Token, string) bool {
		must(t, session.Close())
		must(t, sampler.Close())
		must(t, model.Close())
		return true
	})
	refused(t, err, layerline.ErrClosed)
	refused(t, err, layerline.ErrCancelled)
	refused(t, session.Truncate(0), layerline.ErrClosed)
}

func TestCloseEndsAPassOfAnotherGoroutine(t *testing.T) {
	model := open(t, layerline.Options{ContextLength: 256, ChunkLength: 1, DisablePrefetch: true})
	must(t, begin(t, model).Forward(context.Background(), prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
	before := used(t, model)
	for i := 0; i < 20; i++ {
		session, err := model.NewSession(0)
		must(t, err)
		ended, begun := make(chan error), make(chan bool)
		go func() {
			first := true
			ended <- session.Generate(context.Background(), prompt, 200, nil, func(layerline.Token, string) bool {
				if first {
					close(begun)
					first = false
				}
				return true
			})
		}()
		<-begun
		must(t, session.Close())
		if err := <-ended; err != nil {
			refused(t, err, layerline.ErrClosed)
		}
	}
	if now := used(t, model); now != before {
		t.Errorf("%d bytes in use, before %d", now, before)
	}
}

// What several goroutines do on one session: one call at a time runs, the others are told so, and nobody reads what a
// pass writes.
func TestGoroutinesMayShareASession(t *testing.T) {
	ctx := context.Background()
	model := open(t, small)
	whole, _ := generated(t, model, 4, nil)
	session := begin(t, model)
	sampler, err := layerline.NewSampler(layerline.SamplerOptions{})
	must(t, err)
	closing(t, sampler)
	var group sync.WaitGroup
	var ran int32
	for i := 0; i < 16; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			for turn := 0; turn < 200; turn++ {
				var err error
				switch (i + turn) % 6 {
				case 0:
					var tokens []layerline.Token
					err = session.Generate(ctx, prompt, 4, sampler, func(token layerline.Token, _ string) bool {
						tokens = append(tokens, token)
						return true
					})
					// At the beginning of the context it is the known text; elsewhere it is some.
					if err == nil && len(tokens) == 0 || len(tokens) > len(whole) {
						t.Errorf("%v", tokens)
					}
				case 1:
					err = session.Truncate(0)
				case 2:
					var logits []float32
					if logits, err = session.Logits(0, nil); err == nil && len(logits) != 320 {
						t.Errorf("%d logits", len(logits))
					}
				case 3:
					_, err = session.Position()
				case 4:
					_, err = sampler.Sample(session)
				case 5:
					err = session.Forward(ctx, prompt, layerline.LogitsLast, layerline.EmbeddingsNone)
				}
				switch {
				case err == nil:
					atomic.AddInt32(&ran, 1)
				case errors.Is(err, layerline.ErrBusy), errors.Is(err, layerline.ErrContextFull),
					errors.Is(err, layerline.ErrInvalidArgument): // no logits
				default:
					t.Error(err)
				}
			}
		}(i)
	}
	group.Wait()
	if ran == 0 {
		t.Error("nothing ran")
	}
}

// Sixty-four goroutines on one model that streams, while the collector runs, the profiler's signals fly, and the signal
// that Go stops its threads with hits whichever thread it finds, the library's own ones too.
func TestGoroutinesShareAModel(t *testing.T) {
	const goroutines, rounds = 64, 4
	plan, err := layerline.PlanMemory(modelPath, layerline.Options{ContextLength: 32})
	must(t, err)
	// Room for all the sessions, and not for all the weights.
	model := open(t, layerline.Options{ContextLength: 32, MemoryBudget: plan.FloorBytes + goroutines*plan.KVBytes*2})
	wanted, _ := generated(t, model, 8, nil)

	must(t, pprof.StartCPUProfile(io.Discard))
	defer pprof.StopCPUProfile()
	over := make(chan struct{})
	var disturbing sync.WaitGroup
	disturbing.Add(1)
	go func() {
		defer disturbing.Done()
		for {
			select {
			case <-over:
				return
			default:
				_ = syscall.Kill(os.Getpid(), syscall.SIGURG)
				for _, thread := range libraryThreads() {
					_ = signalThread(thread, syscall.SIGURG)
				}
				runtime.GC()
			}
		}
	}()

	before := used(t, model)
	var group sync.WaitGroup
	failures := make(chan error, goroutines)
	for i := 0; i < goroutines; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			failures <- func() error {
				for round := 0; round < rounds; round++ {
					session, err := model.NewSession(0)
					if err != nil {
						return err
					}
					defer session.Close()
					var tokens []layerline.Token
					if err := session.Generate(context.Background(), prompt, 8, nil, func(token layerline.Token, _ string) bool {
						tokens = append(tokens, token)
						return true
					}); err != nil {
						return err
					}
					if !reflect.DeepEqual(tokens, wanted) {
						return fmt.Errorf("%v, alone %v", tokens, wanted)
					}
					if err := session.Close(); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	group.Wait()
	close(over)
	disturbing.Wait()
	for i := 0; i < goroutines; i++ {
		must(t, <-failures)
	}
	stats, err := model.Stats()
	must(t, err)
	if stats.PeakBytes > stats.BudgetBytes {
		t.Errorf("%d bytes of %d were used", stats.PeakBytes, stats.BudgetBytes)
	}
	eventually(t, "sessions are freed", func() bool { return used(t, model) <= before })
}

// Ten thousand times everything, opened and closed: what the library counts, descriptors and threads are back where
// they were. What C has allocated is looked at by internal/cycles, under AddressSanitizer.
func TestTenThousandCyclesLeaveNothing(t *testing.T) {
	cycles := 10_000
	if testing.Short() {
		cycles = 200
	}
	ctx := context.Background()
	model := open(t, layerline.Options{ContextLength: 64, DisablePrefetch: true})
	must(t, begin(t, model).Forward(ctx, prompt, layerline.LogitsLast, layerline.EmbeddingsNone))
	before, files, threads := used(t, model), entries("/proc/self/fd"), len(libraryThreads())
	for i := 0; i < cycles; i++ {
		session, err := model.NewSession(64)
		must(t, err)
		sampler, err := layerline.NewSampler(layerline.SamplerOptions{Temperature: 1})
		must(t, err)
		must(t, session.Generate(ctx, prompt[:1], 1, sampler, nil))
		must(t, session.Close())
		must(t, sampler.Close())
		other, err := layerline.Open(modelPath, layerline.Options{ContextLength: 64, DisablePrefetch: i%100 != 0})
		must(t, err)
		must(t, other.Close())
		_, err = layerline.Open("/no/such/model", small)
		refused(t, err, layerline.ErrIO)
	}
	if after := used(t, model); after != before {
		t.Errorf("%d bytes in use, %d before", after, before)
	}
	eventually(t, "descriptors are closed", func() bool { return entries("/proc/self/fd") <= files })
	eventually(t, "threads end", func() bool { return len(libraryThreads()) <= threads })
}

// entries counts what is in a folder; 0 where there is none.
func entries(folder string) int {
	found, _ := os.ReadDir(folder)
	return len(found)
}

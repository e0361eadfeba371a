// Cycles opens and closes everything, many times, and then says whether C memory was left behind: built with
// `go build -asan`, it ends with a report and status 1 if so.
//
//	cycles MODEL COUNT
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"layerline"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: cycles MODEL COUNT")
		os.Exit(2)
	}
	count, err := strconv.Atoi(os.Args[2])
	for i := 0; i < count && err == nil; i++ {
		err = cycle(os.Args[1], i%100 == 0)
	}
	if err == nil {
		// What was not closed is the finalizers' to close.
		runtime.GC()
		err = checkLeaks()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(count, "cycles left nothing")
}

// cycle goes through every function that gives memory, and some that fail.
func cycle(path string, prefetch bool) error {
	budget, err := layerline.NewBudget(1 << 30)
	if err != nil {
		return err
	}
	defer budget.Close()
	model, err := layerline.Open(path, layerline.Options{ContextLength: 64, DisablePrefetch: !prefetch, SharedBudget: budget})
	if err != nil {
		return err
	}
	defer model.Close()
	session, err := model.NewSession(0)
	if err != nil {
		return err
	}
	defer session.Close()
	sampler, err := layerline.NewSampler(layerline.SamplerOptions{Temperature: 1, Seed: 7})
	if err != nil {
		return err
	}
	defer sampler.Close()
	prompt, err := model.Tokenize("sea", layerline.TokenizeBOS)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err = session.Generate(ctx, prompt, 4, sampler, func(layerline.Token, string) bool {
		cancel()
		return true
	})
	if err == nil {
		return fmt.Errorf("the generation was not cancelled")
	}
	copied, err := session.Copy(0)
	if err != nil {
		return err
	}
	defer copied.Close()
	if copied.Load(path) == nil {
		return fmt.Errorf("a model was loaded as a state")
	}
	said := []layerline.Message{{Role: "user", Content: "sea"}}
	if _, err := model.FormatChat(said, true); err == nil {
		return fmt.Errorf("a model without a template formatted a conversation")
	}
	if err := copied.Forward(context.Background(), prompt, layerline.LogitsNone, layerline.EmbeddingsAll); err != nil {
		return err
	}
	checkpoint, err := copied.Checkpoint()
	if err != nil {
		return err
	}
	defer checkpoint.Close()
	kept, err := copied.SaveState(nil)
	if err != nil {
		return err
	}
	if err := copied.LoadState(kept); err != nil {
		return err
	}
	if copied.Restore(checkpoint) == nil {
		return fmt.Errorf("a checkpoint from before a state was loaded was restored")
	}
	if prefetch {
		state := fmt.Sprintf("%s/layerline-cycles-%d", os.TempDir(), os.Getpid())
		defer os.Remove(state)
		if err := copied.Save(state); err != nil {
			return err
		}
		if err := copied.Load(state); err != nil {
			return err
		}
		if _, err := model.Prefetch(0, 1); err != nil {
			return err
		}
		if _, err := session.Submit(prompt, layerline.LogitsAll, layerline.EmbeddingsNone); err != nil {
			return err
		}
	}
	if _, err := layerline.Open("/no/such/model", layerline.Options{}); err == nil {
		return fmt.Errorf("what is not there was opened")
	}
	return nil
}

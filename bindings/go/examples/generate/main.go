// Generate continues a prompt, inside a memory budget, and says what that took.
//
//	generate [-budget 33%|200MiB] [-tokens 64] [-context 512] [-temperature 0.8] [-seed 1] MODEL PROMPT
//
// The text goes to stdout, everything else to stderr. Ctrl-C ends it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"layerline"
)

func main() {
	budget := flag.String("budget", "33%", "bytes, MiB, or a part of the file's size")
	tokens := flag.Int("tokens", 64, "tokens to generate")
	length := flag.Int("context", 512, "tokens there is room for")
	temperature := flag.Float64("temperature", 0, "0: the likeliest token, always")
	seed := flag.Uint64("seed", 0, "of the random choice")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: generate [flags] MODEL PROMPT")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	options := layerline.Options{ContextLength: *length}
	sampling := layerline.SamplerOptions{Temperature: float32(*temperature), Seed: *seed}
	switch err := run(ctx, flag.Arg(0), flag.Arg(1), *budget, *tokens, options, sampling); {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "\ninterrupted")
		os.Exit(130)
	case errors.Is(err, layerline.ErrMemoryBudget):
		fmt.Fprintf(os.Stderr, "%v; a smaller -context needs less\n", err)
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(
	ctx context.Context, path, prompt, budget string, most int, options layerline.Options,
	sampling layerline.SamplerOptions,
) error {
	plan, err := layerline.PlanMemory(path, options)
	if err != nil {
		return err
	}
	if options.MemoryBudget, err = bytes(budget, plan.FileBytes); err != nil {
		return err
	}
	model, err := layerline.Open(path, options)
	if err != nil {
		return err
	}
	defer model.Close()
	session, err := model.NewSession(0)
	if err != nil {
		return err
	}
	defer session.Close()
	sampler, err := layerline.NewSampler(sampling)
	if err != nil {
		return err
	}
	defer sampler.Close()

	tokens, err := model.Tokenize(prompt, layerline.TokenizeBOS)
	if err != nil {
		return err
	}
	fmt.Print(prompt)
	err = session.Generate(ctx, tokens, most, sampler, func(_ layerline.Token, piece string) bool {
		_, err := fmt.Print(piece)
		return err == nil
	})
	fmt.Println()
	if err != nil {
		return err
	}

	stats, err := model.Stats()
	if err != nil {
		return err
	}
	const mib = 1 << 20
	fmt.Fprintf(os.Stderr, "%d MiB of weights in a budget of %d MiB: at most %d MiB used\n",
		plan.WeightBytes/mib, stats.BudgetBytes/mib, stats.PeakBytes/mib)
	fmt.Fprintf(os.Stderr, "%d MiB read, %v stalled in %d passes\n", stats.ReadBytes/mib, stats.StallTime, stats.Passes)
	return nil
}

// bytes reads a budget; whole is what percentages are of.
func bytes(text string, whole uint64) (uint64, error) {
	number, unit, parts := text, uint64(1), uint64(1)
	switch {
	case strings.HasSuffix(text, "%"):
		number, unit, parts = strings.TrimSuffix(text, "%"), whole, 100
	case strings.HasSuffix(text, "MiB"):
		number, unit = strings.TrimSuffix(text, "MiB"), 1<<20
	}
	count, err := strconv.ParseUint(number, 10, 64)
	if err != nil || count > math.MaxUint64/unit {
		return 0, fmt.Errorf("-budget: cannot use %q", text)
	}
	return count * unit / parts, nil
}

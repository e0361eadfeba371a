package layerline_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"layerline"
)

// write is in the description of the package, too.
func write(ctx context.Context, path string) error {
	model, err := layerline.Open(path, layerline.Options{MemoryBudget: 64 << 20, ContextLength: 512})
	if err != nil {
		return err
	}
	defer model.Close()
	session, err := model.NewSession(0)
	if err != nil {
		return err
	}
	defer session.Close()
	prompt, err := model.Tokenize("The sea is", layerline.TokenizeBOS)
	if err != nil {
		return err
	}
	return session.Generate(ctx, prompt, 64, nil, func(_ layerline.Token, piece string) bool {
		fmt.Print(piece)
		return true
	})
}

func TestTheDescriptionsProgramRuns(t *testing.T) {
	// What is printed does not matter here; the tests of the documents look at it.
	printed := os.Stdout
	os.Stdout, _ = os.Open(os.DevNull)
	defer func() { os.Stdout = printed }()
	must(t, write(context.Background(), modelPath))

	whole := read(t, "example_test.go")
	body := whole[strings.Index(whole, "func write"):strings.Index(whole, "func Test")]
	var described []string
	for _, line := range regexp.MustCompile(`(?m)^//\t(.*)$`).FindAllStringSubmatch(read(t, "layerline.go"), -1) {
		described = append(described, line[1])
	}
	if len(described) < 10 || strings.Join(described, "\n") != strings.TrimSpace(body) {
		t.Errorf("the description has another program than this file:\n%s", strings.Join(described, "\n"))
	}
}

func ExampleSession_Generate() {
	model, err := layerline.Open(modelPath, layerline.Options{ContextLength: 64})
	if err != nil {
		panic(err)
	}
	defer model.Close()
	session, err := model.NewSession(0)
	if err != nil {
		panic(err)
	}
	defer session.Close()
	// Everything has a minute: reading, computing, and the consumer of the tokens.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	count := 0
	err = session.Generate(ctx, []layerline.Token{1, 40, 50}, 8, nil, func(token layerline.Token, piece string) bool {
		count++
		return count < 3
	})
	fmt.Println(count, err)
	// Output: 3 <nil>
}

func ExampleModel_Prefetch() {
	model, err := layerline.Open(modelPath, layerline.Options{ContextLength: 64})
	if err != nil {
		panic(err)
	}
	defer model.Close()
	ticket, err := model.Prefetch(0, 2)
	if err != nil {
		panic(err)
	}
	for {
		events, err := model.Wait(context.Background())
		if err != nil {
			panic(err)
		}
		for _, event := range events {
			if event.Ticket == ticket && event.Kind == layerline.EventDone {
				fmt.Println("there:", event.Err == nil)
				return
			}
		}
	}
	// Output: there: true
}

func ExampleError() {
	_, err := layerline.Open(modelPath, layerline.Options{MemoryBudget: 4096})
	fmt.Println(strings.Contains(err.Error(), "below the floor of"))
	// Output: true
}

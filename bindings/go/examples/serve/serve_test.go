package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"layerline"
)

const (
	small = "../../../../tests/data/golden/arch/llama.gguf"
	real  = "../../../../models/SmolLM2-135M-Instruct.Q4_1.gguf"
)

// serving is a server of a model, until the test ends.
func serving(t *testing.T, path string, options layerline.Options, sessions int) (*server, *httptest.Server) {
	t.Helper()
	s, err := newServer(path, options, sessions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	server := httptest.NewServer(s.handler())
	t.Cleanup(server.Close)
	return s, server
}

func smallOne(t *testing.T, sessions int) (*server, *httptest.Server) {
	t.Helper()
	return serving(t, small, layerline.Options{MemoryBudget: 64 << 20, ContextLength: 128}, sessions)
}

func post(t *testing.T, url string, body object) (int, []byte) {
	t.Helper()
	encoded, _ := json.Marshal(body)
	response, err := http.Post(url, "application/json", bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

type logprob struct {
	Token   string
	Logprob float64
}

type completion struct {
	ID, Object, Model string
	Choices           []struct {
		Text           string
		Message, Delta struct{ Role, Content string }
		FinishReason   *string `json:"finish_reason"`
		Logprobs       *struct {
			Content []struct {
				logprob
				TopLogprobs []logprob `json:"top_logprobs"`
			}
			Tokens        []string
			TokenLogprobs []float64 `json:"token_logprobs"`
		}
	}
	Usage struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
	}
	Error *struct{ Message, Type string }
}

func decoded(t *testing.T, status int, body []byte) (c completion) {
	t.Helper()
	if err := json.Unmarshal(body, &c); status != http.StatusOK || err != nil || c.Error != nil {
		t.Fatalf("%d %v %s", status, err, body)
	}
	return c
}

// events reads a stream to its end.
func events(t *testing.T, body []byte) (all []completion) {
	t.Helper()
	lines := bufio.NewScanner(bytes.NewReader(body))
	done := false
	for lines.Scan() {
		is := strings.HasPrefix(lines.Text(), "data: ")
		data := strings.TrimPrefix(lines.Text(), "data: ")
		if done = data == "[DONE]"; is && !done {
			all = append(all, decoded(t, http.StatusOK, []byte(data)))
		}
	}
	return all
}

func TestTextIsWholeOrStreamedAndASeedRepeatsIt(t *testing.T) {
	s, server := smallOne(t, 2)
	url := server.URL + "/v1/completions"
	ask := object{"model": s.name, "prompt": "abc", "max_tokens": 12, "seed": 5, "logprobs": 2}
	status, body := post(t, url, ask)
	whole := decoded(t, status, body)
	choice := whole.Choices[0]
	if whole.Object != "text_completion" || choice.Text == "" || choice.FinishReason == nil || whole.Usage.PromptTokens == 0 ||
		len(choice.Logprobs.TokenLogprobs) == 0 || choice.Logprobs.TokenLogprobs[0] > 0 {
		t.Fatalf("%s", body)
	}
	ask["stream"], ask["stream_options"] = true, object{"include_usage": true}
	status, body = post(t, url, ask)
	if status != http.StatusOK || !bytes.HasSuffix(body, []byte("data: [DONE]\n\n")) {
		t.Fatalf("%d %s", status, body)
	}
	text, parts := "", events(t, body)
	for _, part := range parts {
		for _, choice := range part.Choices {
			text += choice.Text
		}
	}
	last := parts[len(parts)-1]
	if text != choice.Text || last.Usage != whole.Usage || len(parts) < 4 {
		t.Fatalf("%q streamed, %q whole", text, choice.Text)
	}
	delete(ask, "stream")
	ask["stop"] = []string{choice.Text[len(choice.Text)/2:], "never"}
	_, body = post(t, url, ask)
	if cut := decoded(t, http.StatusOK, body).Choices[0]; cut.Text == choice.Text || *cut.FinishReason != "stop" {
		t.Fatalf("%s", body)
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	s, server := smallOne(t, 1)
	for _, ask := range []object{
		{}, {"prompt": nil}, {"prompt": []string{"a", "b"}}, {"prompt": []int{1 << 20}}, {"prompt": strings.Repeat("abc ", 400)},
		{"prompt": "a", "n": 2}, {"prompt": "a", "temperature": -1}, {"prompt": "a", "stop": 3}, {"prompt": "a", "stop": ""},
		{"prompt": "a", "logprobs": 1000}, {"prompt": "a", "response_format": object{"type": "json_object"}},
		{"prompt": "a", "max_tokens": -1}, {"prompt": "a", "logit_bias": object{"-4": 1}}, {"prompt": "a", "stream": "yes"},
	} {
		status, body := post(t, server.URL+"/v1/completions", ask)
		var c completion
		if err := json.Unmarshal(body, &c); status != http.StatusBadRequest || err != nil || c.Error == nil || c.Error.Message == "" {
			t.Errorf("%v: %d %s", ask, status, body)
		}
	}
	// The model has no template for conversations.
	if status, body := post(t, server.URL+"/v1/chat/completions", object{"messages": []object{}}); status == http.StatusOK {
		t.Errorf("%s", body)
	}
	for path, want := range map[string]int{"/v1/models": 200, "/v1/models/" + s.name: 200, "/v1/models/other": 404, "/": 404} {
		response, err := http.Get(server.URL + path)
		if err != nil || response.StatusCode != want {
			t.Errorf("%s: %v %v", path, response, err)
		}
		response.Body.Close()
	}
	if len(s.free) != 1 {
		t.Error("a session is lost")
	}
}

func TestEmbeddingsHaveLengthOneInBothEncodings(t *testing.T) {
	_, server := smallOne(t, 1)
	var answer struct {
		Data []struct{ Embedding json.RawMessage }
	}
	status, body := post(t, server.URL+"/v1/embeddings", object{"input": []string{"abc", "def"}})
	if err := json.Unmarshal(body, &answer); status != http.StatusOK || err != nil || len(answer.Data) != 2 {
		t.Fatalf("%d %s", status, body)
	}
	var row []float64
	if err := json.Unmarshal(answer.Data[1].Embedding, &row); err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, number := range row {
		sum += number * number
	}
	if math.Abs(sum-1) > 1e-4 {
		t.Fatal(sum)
	}
	_, body = post(t, server.URL+"/v1/embeddings", object{"input": "def", "encoding_format": "base64"})
	if err := json.Unmarshal(body, &answer); err != nil || answer.Data[0].Embedding[0] != '"' {
		t.Fatalf("%s", body)
	}
}

func TestTheNextTurnGoesOnInTheSessionThatHoldsTheLast(t *testing.T) {
	s, server := smallOne(t, 3)
	first := []int{1, 40, 50, 60, 70, 80, 90, 100}
	post(t, server.URL+"/v1/completions", object{"prompt": []int{1, 7, 8, 9}, "max_tokens": 2})
	post(t, server.URL+"/v1/completions", object{"prompt": first, "max_tokens": 2, "temperature": 0})
	turn := append(append([]int{}, first...), 33, 34)
	status, body := post(t, server.URL+"/v1/completions", object{"prompt": turn, "max_tokens": 4, "temperature": 0})
	got := decoded(t, status, body).Choices[0].Text
	// That one is put back last, and the others hold what they held.
	held := []layerline.Token{1, 40, 50, 60, 70, 80, 90, 100, 33, 34}
	if common, err := s.idle[2].CommonPrefix(held); err != nil || common != len(held) {
		t.Fatal(common, err)
	}
	if info, err := s.idle[0].Info(); err != nil || info.Position != 0 {
		t.Fatal(info, err)
	}
	_, alone := smallOne(t, 1)
	status, body = post(t, alone.URL+"/v1/completions", object{"prompt": turn, "max_tokens": 4, "temperature": 0})
	if want := decoded(t, status, body).Choices[0].Text; got != want {
		t.Fatalf("%q, in a new session %q", got, want)
	}
}

func TestAClientThatIsGoneFreesItsSession(t *testing.T) {
	s, server := smallOne(t, 1)
	for i := 0; i < 20; i++ {
		ctx, cancel := context.WithCancel(context.Background())
		body := `{"prompt": "abc", "stream": true, "logit_bias": {"2": -100}}`
		request, _ := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/completions", strings.NewReader(body))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Read(make([]byte, 64))
		cancel()
		response.Body.Close()
		select {
		case <-s.free:
			s.free <- struct{}{}
		case <-time.After(10 * time.Second):
			t.Fatal("the session is not free")
		}
	}
}

func descriptors() int {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(files)
}

func TestRandomClientsLeaveNothingBehind(t *testing.T) {
	s, server := smallOne(t, 3)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	run := func(seed int64, end time.Time) {
		random := rand.New(rand.NewSource(seed))
		for time.Now().Before(end) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.Intn(60))*time.Millisecond)
			path := []string{"completions", "completions", "embeddings", "chat/completions"}[random.Intn(4)]
			body := fmt.Sprintf(`{"prompt": %q, "input": "x", "stream": %t, "max_tokens": %d, "logprobs": %d, "stop": ["q"]}`,
				strings.Repeat("ab ", random.Intn(50)), random.Intn(2) == 0, random.Intn(80), random.Intn(3))
			request, _ := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/"+path, strings.NewReader(body))
			if response, err := client.Do(request); err == nil {
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			cancel()
		}
	}
	burst := func(length time.Duration) {
		var all sync.WaitGroup
		for i := 0; i < 8; i++ {
			all.Add(1)
			go func(seed int64) {
				defer all.Done()
				run(seed, time.Now().Add(length))
			}(int64(i))
		}
		all.Wait()
	}
	settled := func() (int, int) {
		for i := 0; i < 100 && len(s.free) < 3; i++ {
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		runtime.GC()
		return runtime.NumGoroutine(), descriptors()
	}
	burst(time.Second)
	goroutines, files := settled()
	before, err := s.model.Stats()
	if err != nil {
		t.Fatal(err)
	}
	burst(4 * time.Second)
	nowGoroutines, nowFiles := settled()
	after, err := s.model.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.free) != 3 || len(s.idle) != 3 {
		t.Errorf("%d sessions of 3 are free", len(s.free))
	}
	if nowGoroutines > goroutines+2 || nowFiles > files+2 {
		t.Errorf("%d goroutines and %d descriptors, before %d and %d", nowGoroutines, nowFiles, goroutines, files)
	}
	if after.UsedBytes > before.UsedBytes+1<<20 || after.PeakBytes > after.BudgetBytes {
		t.Errorf("%d bytes in use, before %d", after.UsedBytes, before.UsedBytes)
	}
}

// Eight conversations at once with a real model, in a third of its file.
func TestEightClientsAtOnceInAThirdOfTheFile(t *testing.T) {
	if _, err := os.Stat(real); err != nil {
		t.Skip("the model is not fetched")
	}
	options := layerline.Options{ContextLength: 96, KVType: layerline.KVQ80}
	s, server := serving(t, real, options, 8)
	t.Logf("%d sessions in a third of the file", len(s.idle))
	ask := func(stream bool) (int, []byte) {
		return post(t, server.URL+"/v1/chat/completions", object{
			"messages": []object{{"role": "user", "content": "What is the capital of France?"}}, "max_tokens": 12,
			"temperature": 0, "stream": stream, "logprobs": true, "top_logprobs": 2,
		})
	}
	status, body := ask(false)
	want := decoded(t, status, body).Choices[0]
	if want.Message.Content == "" || want.Message.Role != "assistant" || len(want.Logprobs.Content[0].TopLogprobs) != 2 {
		t.Fatalf("%s", body)
	}
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			text := ""
			status, body := ask(true)
			for _, part := range events(t, body) {
				text += part.Choices[0].Delta.Content
			}
			if status != http.StatusOK || text != want.Message.Content {
				t.Errorf("%d %q", status, text)
			}
		}()
	}
	all.Wait()
	if stats, err := s.model.Stats(); err != nil || stats.PeakBytes > stats.BudgetBytes {
		t.Errorf("%v %v", stats, err)
	}
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"sort"
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

type toolCall struct {
	Index    int
	ID, Type string
	Function struct{ Name, Arguments string }
}

type said struct {
	Role, Content string
	Reasoning     string     `json:"reasoning_content"`
	Calls         []toolCall `json:"tool_calls"`
}

type completion struct {
	ID, Object, Model string
	Choices           []struct {
		Text           string
		Message, Delta said
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
		{"prompt": "a", "logprobs": 1000}, {"prompt": "a", "response_format": object{"type": "xml"}},
		{"prompt": "a", "grammar": "root"}, {"prompt": "a", "xtc_probability": 2},
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

// chatting is a server of the small model with a template of the format hermes.
func chatting(t *testing.T) (*server, *httptest.Server) {
	t.Helper()
	const key = "tokenizer.chat_template"
	template := "{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}{{ tools | tojson if tools else '' }}" +
		"{# <tool_call></tool_call> #}"
	file, err := os.ReadFile(small)
	if err != nil {
		t.Fatal(err)
	}
	template += strings.Repeat(" ", 31-(len(key)+20+len(template)+31)%32) // tensors stay aligned
	u64 := func(value int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(value)) }
	made := append(append([]byte{}, file[:16]...), u64(int(binary.LittleEndian.Uint64(file[16:]))+1)...)
	made = append(append(append(made, u64(len(key))...), key...), 8, 0, 0, 0)
	made = append(append(append(made, u64(len(template))...), template...), file[24:]...)
	path := filepath.Join(t.TempDir(), "chat.gguf")
	if err := os.WriteFile(path, made, 0o600); err != nil {
		t.Fatal(err)
	}
	s, server := serving(t, path, layerline.Options{MemoryBudget: 64 << 20, ContextLength: 384}, 2)
	if _, err := s.model.NewConstraint(layerline.ConstraintRegex, "a"); errors.Is(err, layerline.ErrUnsupported) {
		t.Skip("built without constraints")
	}
	return s, server
}

func TestAnswersFollowASchema(t *testing.T) {
	s, server := chatting(t)
	form := func(schema string) object {
		return object{"type": "json_schema", "json_schema": object{"name": "x", "schema": json.RawMessage(schema)}}
	}
	ask := object{"messages": []object{{"role": "user", "content": "Hi"}}, "temperature": 0, "response_format": form(`{
		"type": "object", "properties": {"size": {"enum": ["small", "large"]}, "new": {"type": "boolean"}},
		"required": ["size", "new"], "additionalProperties": false}`)}
	status, body := post(t, server.URL+"/v1/chat/completions", ask)
	choice := decoded(t, status, body).Choices[0]
	var made struct {
		Size string
		New  *bool
	}
	err := json.Unmarshal([]byte(choice.Message.Content), &made)
	if err != nil || made.Size != "small" && made.Size != "large" || made.New == nil || *choice.FinishReason != "stop" {
		t.Errorf("%v %s", err, body)
	}
	ask["response_format"], ask["max_tokens"] = object{"type": "json_object"}, 20
	status, body = post(t, server.URL+"/v1/chat/completions", ask)
	if text := decoded(t, status, body).Choices[0].Message.Content; !strings.HasPrefix(text, "{") {
		t.Errorf("%s", body)
	}
	for _, wrong := range []string{`{"type": "nonsense"}`, `{"type": "string", "minLength": 3, "maxLength": 1}`, `3`} {
		_, want := s.model.NewConstraint(layerline.ConstraintJSONSchema, wrong)
		ask["response_format"] = form(wrong)
		status, body := post(t, server.URL+"/v1/chat/completions", ask)
		var c completion
		if json.Unmarshal(body, &c); status != http.StatusBadRequest || want == nil || c.Error.Message != want.Error() {
			t.Errorf("%v %d %s", want, status, body)
		}
	}
}

func TestToolCallsAndReasoningAreParsed(t *testing.T) {
	_, server := chatting(t)
	url := server.URL + "/v1/chat/completions"
	tool := object{"type": "function", "function": object{"name": "weather", "parameters": object{"type": "object"}}}
	ask := object{
		"messages": []object{{"role": "user", "content": "Hi"}}, "tools": []object{tool}, "temperature": 0, "logprobs": true,
		"grammar": `root ::= "<think>Hm.</think>So:" call{2}
			call ::= "\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>"`,
	}
	check := func(name string, got said, reason *string) {
		t.Helper()
		if got.Role != "assistant" || got.Content != "So:" || got.Reasoning != "Hm." || len(got.Calls) != 2 ||
			reason == nil || *reason != "tool_calls" {
			t.Fatalf("%s: %+v", name, got)
		}
		for i, call := range got.Calls {
			if call.Index != i || call.ID == "" || call.Type != "function" || call.Function.Name != "weather" ||
				call.Function.Arguments != `{"city": "Rome"}` {
				t.Errorf("%s: %+v", name, call)
			}
		}
	}
	status, body := post(t, url, ask)
	whole := decoded(t, status, body)
	choice := whole.Choices[0]
	check("whole", choice.Message, choice.FinishReason)
	ask["stream"] = true
	status, body = post(t, url, ask)
	var got said
	var reason *string
	logprobs, parts := 0, events(t, body)
	for _, part := range parts {
		choice := part.Choices[0]
		delta := choice.Delta
		got.Role, got.Content, got.Reasoning = got.Role+delta.Role, got.Content+delta.Content, got.Reasoning+delta.Reasoning
		for _, call := range delta.Calls {
			if call.ID != "" {
				got.Calls = append(got.Calls, call)
			} else {
				got.Calls[call.Index].Function.Arguments += call.Function.Arguments
			}
		}
		if reason = choice.FinishReason; choice.Logprobs != nil {
			logprobs += len(choice.Logprobs.Content)
		}
	}
	check("streamed", got, reason)
	if status != http.StatusOK || logprobs != whole.Usage.CompletionTokens || len(parts) < 20 {
		t.Errorf("%d parts, %d log-probabilities of %d tokens", len(parts), logprobs, whole.Usage.CompletionTokens)
	}
	// Without tools the prompt is shorter; a schema leaves all as it is written.
	delete(ask, "stream")
	ask["tool_choice"] = "none"
	status, body = post(t, url, ask)
	if without := decoded(t, status, body); without.Usage.PromptTokens >= whole.Usage.PromptTokens {
		t.Errorf("%d tokens without tools, %d with", without.Usage.PromptTokens, whole.Usage.PromptTokens)
	}
	ask["tool_choice"] = "required"
	if status, body = post(t, url, ask); status != http.StatusBadRequest {
		t.Errorf("%d %s", status, body)
	}
	ask["tool_choice"], ask["response_format"] = "auto", object{"type": "json_schema", "json_schema": object{
		"schema": object{"const": "<tool_call>"}}}
	status, body = post(t, url, ask)
	if text := decoded(t, status, body).Choices[0].Message.Content; text != `"<tool_call>"` {
		t.Errorf("%s", body)
	}
}

// leave begins a request, goes away after a while, and gives the time until the session is back.
func leave(t *testing.T, s *server, url string, ask io.Reader, begun time.Duration) time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, http.MethodPost, url, ask)
	done := make(chan bool)
	go func() {
		defer close(done)
		if response, err := http.DefaultClient.Do(request); err == nil {
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	}()
	for i := 0; len(s.free) > 0; i++ {
		if i == 1000 {
			t.Fatal("the request does not begin")
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(begun)
	if len(s.free) > 0 {
		t.Fatal("the request has ended by itself")
	}
	left := time.Now()
	cancel()
	select {
	case <-s.free:
		s.free <- struct{}{}
	case <-time.After(10 * time.Second):
		t.Fatal("the session is not free")
	}
	took := time.Since(left)
	<-done
	return took
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

// Of a real model, streamed from its file: while a prompt is read, while text comes, and with nothing sent until the end.
func TestASessionIsFreeSoonAfterItsClientIsGone(t *testing.T) {
	if _, err := os.Stat(real); err != nil {
		t.Skip("the model is not fetched")
	}
	s, server := serving(t, real, layerline.Options{ContextLength: 1024, KVType: layerline.KVQ80}, 1)
	for _, stream := range []bool{true, false} {
		for name, prompt := range map[string]string{
			"text is made": "The sea is", "a prompt is read": strings.Repeat("The sea is blue. ", 180),
		} {
			var times []time.Duration
			for i := 0; i < 9; i++ {
				// Another prompt each time: nothing of it is held.
				ask := fmt.Sprintf(`{"prompt": "%d %s", "stream": %t, "logit_bias": {"2": -100, "0": -100}}`, i, prompt, stream)
				// In chunks, which the server has to read to their end.
				body := io.MultiReader(strings.NewReader(ask))
				times = append(times, leave(t, s, server.URL+"/v1/completions", body, 150*time.Millisecond))
			}
			sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
			t.Logf("gone while %s, streamed %t: free after %v in the middle, %v at most",
				name, stream, times[4], times[8])
			if times[8] > 5*time.Second {
				t.Error(times)
			}
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

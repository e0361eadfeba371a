package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"layerline"
)

type object = map[string]any

// texts is a text or a list of texts.
type texts []string

func (t *texts) UnmarshalJSON(raw []byte) error {
	if raw[0] != '"' {
		return json.Unmarshal(raw, (*[]string)(t))
	}
	*t = make(texts, 1)
	return json.Unmarshal(raw, &(*t)[0])
}

// request asks for a text after a conversation, the Messages, or after a Prompt; or for the embeddings of an Input. The
// settings of samplers have the names of the binding.
type request struct {
	layerline.SamplerOptions
	Messages, Tools, ToolChoice, Prompt json.RawMessage
	Logprobs                            json.RawMessage // of conversations a truth value, else a number
	Input, Stop                         texts
	TopLogprobs, MaxTokens, N           int
	EncodingFormat, Grammar             string // a grammar in GBNF, as llama.cpp's server takes it
	Stream                              bool
	StreamOptions                       map[string]bool
	ResponseFormat                      struct {
		Type       string
		JSONSchema struct{ Schema json.RawMessage } `json:"json_schema"`
	}
}

// failure is an error that ends a request: it is thrown by need, and caught by handler alone.
type failure struct{ error }

func need(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func got[T any](made T, err error) T {
	need(err)
	return made
}

func refuse(wrong bool, format string, values ...any) {
	if wrong {
		need(&layerline.Error{Status: layerline.ErrInvalidArgument, Message: fmt.Sprintf(format, values...)})
	}
}

// handler has every path; what a host wants around it, such as keys and limits, can be put around it.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	post := func(path string, call func(*answer)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			id, now := fmt.Sprintf("cmpl-%x", time.Now().UnixNano()), time.Now().Unix()
			a := &answer{server: s, w: w, r: r, base: object{"id": id, "created": now, "model": s.name}}
			a.chat, a.reason, a.said.Role = path == "/v1/chat/completions", "stop", "assistant"
			defer func() { a.fail(recover()) }()
			a.read()
			call(a)
		})
	}
	post("/v1/chat/completions", (*answer).complete)
	post("/v1/completions", (*answer).complete)
	post("/v1/embeddings", (*answer).embed)
	self := object{"id": s.name, "object": "model", "created": time.Now().Unix(), "owned_by": "layerline"}
	all := object{"object": "list", "data": []object{self}}
	mux.HandleFunc("/v1/models", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, all) })
	mux.HandleFunc("/v1/models/"+s.name, func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, self) })
	return mux
}

func reply(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value) // a client that is gone gets nothing
}

// answer is a request and what goes to the client: part by part, or at its end.
type answer struct {
	*server
	request
	w      http.ResponseWriter
	r      *http.Request
	chat   bool
	parser *layerline.MessageParser // nil: all is content
	base   object                   // of everything that is sent
	begun  bool                     // something has been sent
	reason string                   // of the end
	said   message                  // not sent yet
	made   []layerline.Generated    // not sent yet
}

// message is the assistant's, or what is new of it.
type message struct {
	Role      string `json:"role,omitempty"`
	Content   any    `json:"content"` // null beside calls
	text      string
	Reasoning string   `json:"reasoning_content,omitempty"`
	Calls     []object `json:"tool_calls,omitempty"`
}

// fail tells the client what ended the request.
func (a *answer) fail(thrown any) {
	failed, is := thrown.(failure)
	if thrown != nil && !is {
		panic(thrown)
	}
	status, kind := http.StatusInternalServerError, "server_error"
	if errors.Is(failed.error, layerline.ErrInvalidArgument) {
		status, kind = http.StatusBadRequest, "invalid_request_error"
	}
	if is && a.begun {
		a.event(object{"error": object{"message": failed.Error(), "type": kind}})
	} else if is {
		reply(a.w, status, object{"error": object{"message": failed.Error(), "type": kind, "param": nil, "code": nil}})
	}
}

// read reads the request, to its end: else nobody is told that the client goes away.
func (a *answer) read() {
	a.Temperature, a.RepeatLastN, a.MaxTokens, a.Seed = 1, 1024, math.MaxInt, uint64(time.Now().UnixNano())
	body, err := io.ReadAll(http.MaxBytesReader(a.w, a.r.Body, 16<<20))
	refuse(err != nil, "%v", err)
	members, plain, names := map[string]json.RawMessage{}, object{}, strings.NewReplacer("max_completion", "max", "_", "")
	err = json.Unmarshal(body, &members)
	for name, value := range members {
		plain[names.Replace(name)] = value
	}
	if body, _ = json.Marshal(plain); err == nil {
		err = json.Unmarshal(body, &a.request)
	}
	refuse(err != nil, "a request is a JSON object: %v", err)
}

// prompt is what the text follows.
func (a *answer) prompt() (tokens []layerline.Token) {
	var prompts texts
	choice := string(a.ToolChoice)
	if choice == `"none"` {
		a.Tools, choice = nil, ""
	}
	refuse(choice != "" && choice != "null" && choice != `"auto"`, "tool_choice %s: none and auto are known", choice)
	if a.chat {
		conversation, _ := json.Marshal(object{"messages": a.Messages, "tools": a.Tools}) // as they came
		tokens = got(a.model.TokenizeChatJSON(conversation, true))
	} else if json.Unmarshal(a.Prompt, &prompts) == nil && len(prompts) == 1 {
		tokens = got(a.model.Tokenize(prompts[0], layerline.TokenizeBOS))
	} else {
		refuse(json.Unmarshal(a.Prompt, &tokens) != nil, "a prompt is a text or a list of tokens")
	}
	refuse(len(tokens) == 0 || len(tokens) >= a.context, "%d tokens; there is room for 1 to %d", len(tokens), a.context-1)
	return tokens
}

// limit sets the length, the ends and the form of the text.
func (a *answer) limit(generation *layerline.Generation) {
	top := -1
	if json.Unmarshal(a.Logprobs, &top); string(a.Logprobs) == "true" {
		top = a.TopLogprobs
	}
	need(generation.SetLogprobs(top))
	need(generation.SetMaxTokens(a.MaxTokens))
	for _, stop := range a.Stop {
		need(generation.AddStop(stop))
	}
	refuse(a.N > 1, "n is %d: this server answers with one text", a.N)
	kind, text := layerline.ConstraintGBNF, a.Grammar
	switch form := a.ResponseFormat; form.Type {
	case "json_object":
		kind, text = layerline.ConstraintJSONSchema, `{"type": "object"}`
	case "json_schema":
		kind, text = layerline.ConstraintJSONSchema, string(form.JSONSchema.Schema)
	default:
		refuse(form.Type != "" && form.Type != "text", "response_format %q is not known", form.Type)
	}
	if kind != layerline.ConstraintGBNF || text != "" {
		constraint := got(a.model.NewConstraint(kind, text))
		defer constraint.Close()
		need(generation.SetConstraint(constraint))
	}
}

// complete answers a request for text.
func (a *answer) complete() {
	tokens := a.prompt()
	generation := got(layerline.NewGeneration())
	defer generation.Close()
	a.limit(generation)
	if a.chat && !strings.HasPrefix(a.ResponseFormat.Type, "json") {
		parser := got(a.model.NewMessageParser(a.Tools))
		defer parser.Close()
		// The prompt may begin the reasoning. Llama 3 has no mark for calls: without tools, JSON is content.
		need(parser.Begin(got(a.model.DetokenizeWith(tokens, layerline.DetokenizeControl))))
		if parser.Format() != "llama3" || len(a.Tools) > 0 {
			a.parser, a.ShowControl = parser, parser.Format() != "plain" // marks may be control tokens
		}
	}
	sampler := got(layerline.NewSampler(a.SamplerOptions))
	defer sampler.Close()
	a.within(a.r.Context(), tokens, func(session *layerline.Session) {
		kept := got(session.ReusePrefix(tokens))
		need(sampler.Accept(tokens[:kept]))
		err := session.GenerateDetailed(a.r.Context(), tokens[kept:], generation, sampler, a.add)
		if !errors.Is(err, layerline.ErrContextFull) { // that comes after as many tokens as fitted
			need(err)
		}
	})
	a.end(len(tokens), got(generation.Stats()))
}

// embed answers a request for embeddings, which have length 1.
func (a *answer) embed() {
	data, count := []object{}, 0
	for i, input := range a.Input {
		tokens := got(a.model.Tokenize(input, layerline.TokenizeBOS|layerline.TokenizeEOS))
		refuse(len(tokens) == 0 || len(tokens) > a.context, "%d tokens; there is room for 1 to %d", len(tokens), a.context)
		a.within(a.r.Context(), nil, func(session *layerline.Session) {
			need(session.Truncate(0))
			need(session.Forward(a.r.Context(), tokens, layerline.LogitsNone, a.pooling))
			row, sum, bytes := got(session.Embeddings(0, nil)), 1e-24, []byte{} // which JSON has in base64
			for _, number := range row {
				sum += float64(number) * float64(number)
			}
			for i := range row {
				row[i] /= float32(math.Sqrt(sum))
				bytes = binary.LittleEndian.AppendUint32(bytes, math.Float32bits(row[i]))
			}
			embedding := map[bool]any{false: row, true: bytes}[a.EncodingFormat == "base64"]
			data = append(data, object{"object": "embedding", "index": i, "embedding": embedding})
		})
		count += len(tokens)
	}
	usage := object{"prompt_tokens": count, "total_tokens": count}
	reply(a.w, http.StatusOK, object{"object": "list", "model": a.name, "data": data, "usage": usage})
}

// add takes a token; false: the client is gone.
func (a *answer) add(made layerline.Generated) bool {
	a.made = append(a.made, made)
	parts := []layerline.MessagePart{{Kind: layerline.PartContent, Text: made.Piece}}
	if a.parser != nil {
		parts = got(a.parser.Feed(made.Piece))
	}
	return a.take(parts)
}

// take takes parts of the message, and sends them where it is streamed.
func (a *answer) take(parts []layerline.MessagePart) bool {
	for _, part := range parts {
		switch part.Kind {
		case layerline.PartContent:
			a.said.text += part.Text
		case layerline.PartReasoning:
			a.said.Reasoning += part.Text
		case layerline.PartCall:
			function := map[string]string{"name": part.Text, "arguments": ""}
			call := object{"index": part.Call, "id": part.ID, "type": "function", "function": function}
			a.reason, a.said.Calls = "tool_calls", append(a.said.Calls, call)
		case layerline.PartArguments:
			if len(a.said.Calls) == 0 { // its name has been sent
				a.said.Calls = []object{{"index": part.Call, "function": map[string]string{}}}
			}
			a.said.Calls[len(a.said.Calls)-1]["function"].(map[string]string)["arguments"] += part.Text
		}
	}
	return !a.Stream || len(parts) == 0 || a.send(nil)
}

// end sends the rest.
func (a *answer) end(prompt int, stats layerline.GenerationStats) {
	if a.parser != nil {
		a.take(got(a.parser.Finish()))
	}
	if stats.End == layerline.EndLength || stats.End == layerline.EndContext {
		a.reason = "length"
	}
	usage := object{"prompt_tokens": prompt, "completion_tokens": stats.Tokens, "total_tokens": prompt + int(stats.Tokens)}
	if !a.Stream {
		a.base["usage"] = usage
	}
	if a.send(a.reason); !a.Stream {
		return
	}
	if a.StreamOptions["include_usage"] {
		a.base["usage"], a.base["choices"] = usage, []object{}
		a.event(a.base)
	}
	fmt.Fprint(a.w, "data: [DONE]\n\n")
}

// send sends what has not been sent; false: the client is gone.
func (a *answer) send(reason any) bool {
	choice := object{"index": 0, "finish_reason": reason, "logprobs": nil}
	if a.said.text != "" || len(a.said.Calls) == 0 {
		a.said.Content = a.said.text
	}
	switch {
	case !a.chat:
		a.base["object"], choice["text"] = "text_completion", a.said.text
	case a.Stream:
		a.base["object"], choice["delta"] = "chat.completion.chunk", a.said
	default:
		a.base["object"], choice["message"] = "chat.completion", a.said
	}
	if len(a.made) > 0 && a.made[0].Logprob <= 0 { // not NaN: it was asked for
		choice["logprobs"] = a.logprobs()
	}
	a.base["choices"], a.said, a.made = []object{choice}, message{}, nil
	if a.Stream {
		return a.event(a.base)
	}
	reply(a.w, http.StatusOK, a.base)
	return true
}

// event is one of the stream.
func (a *answer) event(value object) bool {
	a.begun = true
	a.w.Header().Set("Content-Type", "text/event-stream")
	encoded, _ := json.Marshal(value)
	_, err := fmt.Fprintf(a.w, "data: %s\n\n", encoded)
	a.w.(http.Flusher).Flush()
	return err == nil
}

func (a *answer) logprobs() object {
	content, names, numbers, tops := []object{}, []any{}, []any{}, []object{}
	for _, made := range a.made {
		one, likely, top := a.token(made.Token, made.Logprob), []object{}, object{}
		for _, other := range made.Top {
			each := a.token(other.Token, other.Logprob)
			likely, top[each["token"].(string)] = append(likely, each), each["logprob"]
		}
		one["top_logprobs"], tops = likely, append(tops, top)
		content, names, numbers = append(content, one), append(names, one["token"]), append(numbers, one["logprob"])
	}
	if a.chat {
		return object{"content": content}
	}
	return object{"tokens": names, "token_logprobs": numbers, "top_logprobs": tops}
}

// token is a token's text and log-probability; JSON has no infinity.
func (a *answer) token(token layerline.Token, logprob float32) object {
	text, _, _ := a.model.TokenText(token)
	bytes := []int{}
	for _, b := range []byte(text) {
		bytes = append(bytes, int(b))
	}
	return object{"token": text, "logprob": math.Max(float64(logprob), -9999), "bytes": bytes}
}

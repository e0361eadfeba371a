package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"layerline"
)

type object = map[string]any

// request asks for a text after a conversation, the Messages, or after a Prompt; or for the embeddings of an Input.
type request struct {
	Messages, Tools, Prompt, Input json.RawMessage
	Stop, Logprobs                 json.RawMessage       // log-probabilities of conversations by a truth value, else a number
	TopLogprobs                    int                   `json:"top_logprobs"`
	EncodingFormat                 string                `json:"encoding_format"`
	ResponseFormat                 struct{ Type string } `json:"response_format"`
	MaxTokens                      *int                  `json:"max_tokens"`
	MaxCompletionTokens            *int                  `json:"max_completion_tokens"`
	Temperature                    *float32
	TopP                           float32                     `json:"top_p"`
	TopK                           int                         `json:"top_k"`
	MinP                           float32                     `json:"min_p"`
	PresencePenalty                float32                     `json:"presence_penalty"`
	FrequencyPenalty               float32                     `json:"frequency_penalty"`
	LogitBias                      map[layerline.Token]float32 `json:"logit_bias"`
	Seed                           *uint64
	N                              int
	Stream                         bool
	StreamOptions                  map[string]bool `json:"stream_options"`
	chat                           bool
}

func refuse(format string, values ...any) error {
	return &layerline.Error{Status: layerline.ErrInvalidArgument, Message: fmt.Sprintf(format, values...)}
}

// handler has every path; what a host wants around it, such as keys and limits, can be put around it.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	post := func(path string, answer func(http.ResponseWriter, *http.Request, *request) error) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			q := &request{chat: path == "/v1/chat/completions"}
			err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<20)).Decode(q)
			if err == nil {
				err = answer(w, r, q)
			} else {
				err = refuse("%s takes a JSON object: %v", path, err)
			}
			if errors.Is(err, layerline.ErrInvalidArgument) {
				reply(w, http.StatusBadRequest, failure(err, "invalid_request_error"))
			} else if err != nil {
				reply(w, http.StatusInternalServerError, failure(err, "server_error"))
			}
		})
	}
	post("/v1/chat/completions", s.complete)
	post("/v1/completions", s.complete)
	post("/v1/embeddings", s.embed)
	self := object{"id": s.name, "object": "model", "created": time.Now().Unix(), "owned_by": "layerline"}
	mux.HandleFunc("/v1/models", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, object{"object": "list", "data": []object{self}})
	})
	mux.HandleFunc("/v1/models/"+s.name, func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, self) })
	return mux
}

func failure(err error, kind string) object {
	return object{"error": object{"message": err.Error(), "type": kind, "param": nil, "code": nil}}
}

func reply(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value) // a client that is gone gets nothing
}

// texts is a text or a list of texts.
func texts(raw json.RawMessage, name string) (all []string, err error) {
	one := ""
	if json.Unmarshal(raw, &one) == nil && string(raw) != "null" {
		all = []string{one}
	} else if len(raw) > 0 && json.Unmarshal(raw, &all) != nil {
		err = refuse("%s is a text or a list of texts", name)
	}
	return all, err
}

// tokens is the prompt.
func (s *server) tokens(q *request) (tokens []layerline.Token, err error) {
	var prompts []string
	if q.chat {
		conversation, _ := json.Marshal(object{"messages": q.Messages, "tools": q.Tools}) // as they came
		tokens, err = s.model.TokenizeChatJSON(conversation, true)
	} else if json.Unmarshal(q.Prompt, &tokens) != nil {
		tokens = nil
		if prompts, err = texts(q.Prompt, "prompt"); err == nil && len(prompts) == 1 {
			tokens, err = s.model.Tokenize(prompts[0], layerline.TokenizeBOS)
		}
	}
	if err == nil && (len(tokens) == 0 || len(tokens) >= s.context) {
		err = refuse("a prompt of %d tokens; there is room for one to %d", len(tokens), s.context-1)
	}
	return tokens, err
}

func (q *request) sampler() (*layerline.Sampler, error) {
	options := layerline.SamplerOptions{
		Temperature: 1, TopP: q.TopP, TopK: q.TopK, MinP: q.MinP, Seed: uint64(time.Now().UnixNano()), RepeatLastN: 1024,
		PresencePenalty: q.PresencePenalty, FrequencyPenalty: q.FrequencyPenalty, LogitBias: q.LogitBias,
	}
	if q.Temperature != nil {
		options.Temperature = *q.Temperature
	}
	if q.Seed != nil {
		options.Seed = *q.Seed
	}
	return layerline.NewSampler(options)
}

// generation is the length, the ends and the form of the text.
func (q *request) generation() (*layerline.Generation, error) {
	if format := q.ResponseFormat.Type; format != "" && format != "text" || q.N > 1 {
		return nil, refuse("response_format %q, or n: this server answers with one text of any form", format)
	}
	top, number := -1, (*int)(nil)
	if q.chat && string(q.Logprobs) == "true" {
		top = q.TopLogprobs
	} else if !q.chat && json.Unmarshal(q.Logprobs, &number) == nil && number != nil {
		top = *number
	}
	g, err := layerline.NewGeneration()
	if err != nil {
		return nil, err
	}
	err = g.SetLogprobs(top)
	for _, most := range []*int{q.MaxTokens, q.MaxCompletionTokens} {
		if most != nil && err == nil {
			err = g.SetMaxTokens(*most)
		}
	}
	stops, wrong := texts(q.Stop, "stop")
	for _, stop := range stops {
		if err == nil {
			err = g.AddStop(stop)
		}
	}
	if err == nil {
		err = wrong
	}
	return g, err // closed by the caller
}

// complete answers a request for text.
func (s *server) complete(w http.ResponseWriter, r *http.Request, q *request) error {
	tokens, err := s.tokens(q)
	if err != nil {
		return err
	}
	generation, err := q.generation()
	if generation != nil {
		defer generation.Close()
	}
	if err != nil {
		return err
	}
	sampler, err := q.sampler()
	if err != nil {
		return err
	}
	defer sampler.Close()
	a := newAnswer(s, w, q)
	err = s.within(r, tokens, func(session *layerline.Session) error {
		kept, err := session.ReusePrefix(tokens)
		if err == nil {
			err = sampler.Accept(tokens[:kept])
		}
		if err == nil {
			err = session.GenerateDetailed(r.Context(), tokens[kept:], generation, sampler, a.add)
		}
		return err
	})
	stats, _ := generation.Stats()
	full := errors.Is(err, layerline.ErrContextFull) // after as many tokens as fitted
	if err != nil && !full && a.begun {
		a.event(failure(err, "server_error"))
		return nil
	} else if err != nil && !full {
		return err
	}
	reason := "stop"
	if full || stats.End == layerline.EndLength {
		reason = "length"
	}
	all := len(tokens) + int(stats.Tokens)
	a.end(reason, object{"prompt_tokens": len(tokens), "completion_tokens": stats.Tokens, "total_tokens": all})
	return nil
}

// embed answers a request for embeddings.
func (s *server) embed(w http.ResponseWriter, r *http.Request, q *request) error {
	inputs, err := texts(q.Input, "input")
	if err != nil {
		return err
	}
	data, count := []object{}, 0
	for i, input := range inputs {
		row := []float32{}
		tokens, err := s.model.Tokenize(input, layerline.TokenizeBOS|layerline.TokenizeEOS)
		if err == nil && (len(tokens) == 0 || len(tokens) > s.context) {
			err = refuse("input %d has %d tokens; there is room for one to %d", i, len(tokens), s.context)
		}
		if err == nil {
			err = s.within(r, nil, func(session *layerline.Session) error {
				err := session.Truncate(0)
				if err == nil {
					err = session.Forward(r.Context(), tokens, layerline.LogitsNone, s.pooling)
				}
				if err == nil {
					row, err = session.Embeddings(0, nil)
				}
				return err
			})
		}
		if err != nil {
			return err
		}
		data = append(data, object{"object": "embedding", "index": i, "embedding": encoded(row, q.EncodingFormat)})
		count += len(tokens)
	}
	usage := object{"prompt_tokens": count, "total_tokens": count}
	reply(w, http.StatusOK, object{"object": "list", "model": s.name, "data": data, "usage": usage})
	return nil
}

// encoded is an embedding of length 1, in numbers or in the bytes of floats.
func encoded(row []float32, format string) any {
	sum, bytes := 1e-24, make([]byte, 4*len(row))
	for _, number := range row {
		sum += float64(number) * float64(number)
	}
	for i := range row {
		row[i] /= float32(math.Sqrt(sum))
		binary.LittleEndian.PutUint32(bytes[4*i:], math.Float32bits(row[i]))
	}
	if format == "base64" {
		return base64.StdEncoding.EncodeToString(bytes)
	}
	return row
}

// answer is a text on its way to the client: token by token, or at its end.
type answer struct {
	*request
	s     *server
	w     http.ResponseWriter
	base  object
	field string // of a choice that has the text
	begun bool   // something has been sent
	text  string
	all   []layerline.Generated
}

func newAnswer(s *server, w http.ResponseWriter, q *request) *answer {
	now, kind, field := time.Now(), "text_completion", "text"
	if q.chat && q.Stream {
		kind, field = "chat.completion.chunk", "delta"
	} else if q.chat {
		kind, field = "chat.completion", "message"
	}
	id := "cmpl-" + strconv.FormatInt(now.UnixNano(), 36)
	base := object{"id": id, "object": kind, "created": now.Unix(), "model": s.name}
	return &answer{request: q, s: s, w: w, base: base, field: field}
}

// add takes a token; false: the client is gone.
func (a *answer) add(made layerline.Generated) bool {
	if a.Stream {
		return a.send(made.Piece, []layerline.Generated{made}, nil)
	}
	a.text += made.Piece
	a.all = append(a.all, made)
	return true
}

// end sends the rest.
func (a *answer) end(reason string, usage object) {
	if !a.Stream {
		a.base["usage"] = usage
		a.send(a.text, a.all, reason)
		return
	}
	a.send("", nil, reason)
	if a.StreamOptions["include_usage"] {
		a.base["usage"], a.base["choices"] = usage, []object{}
		a.event(a.base)
	}
	fmt.Fprint(a.w, "data: [DONE]\n\n")
}

// send sends the text, or a part of it; false: the client is gone.
func (a *answer) send(text string, tokens []layerline.Generated, reason any) bool {
	content := any(text)
	if a.chat {
		content = object{"role": "assistant", "content": text}
	}
	choice := object{"index": 0, "finish_reason": reason, "logprobs": nil, a.field: content}
	if len(tokens) > 0 && tokens[0].Logprob <= 0 { // not NaN: it was asked for
		choice["logprobs"] = a.logprobs(tokens)
	}
	a.base["choices"] = []object{choice}
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
	encoded, err := json.Marshal(value)
	if err == nil {
		_, err = fmt.Fprintf(a.w, "data: %s\n\n", encoded)
	}
	if flusher, ok := a.w.(http.Flusher); ok {
		flusher.Flush()
	}
	return err == nil
}

func (a *answer) logprobs(tokens []layerline.Generated) object {
	content, names, numbers, tops := []object{}, []any{}, []any{}, []object{}
	for _, made := range tokens {
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
	text, _, _ := a.s.model.TokenText(token)
	bytes := []int{}
	for _, b := range []byte(text) {
		bytes = append(bytes, int(b))
	}
	return object{"token": text, "logprob": math.Max(float64(logprob), -9999), "bytes": bytes}
}

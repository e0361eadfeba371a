package layerline

// #include "layerline.h"
import "C"

import (
	"context"
	"errors"
	"sync"
	"unsafe"
)

// LogitRows is which tokens of a pass get logits.
type LogitRows int32

const (
	// LogitsLast: the last token.
	LogitsLast LogitRows = C.LAYERLINE_LOGITS_LAST
	// LogitsAll: every token.
	LogitsAll LogitRows = C.LAYERLINE_LOGITS_ALL
	// LogitsNone: no token. The output head is not read then.
	LogitsNone LogitRows = C.LAYERLINE_LOGITS_NONE
)

// EmbeddingRows is which embeddings a pass leaves: hidden states after the final norm, not normalised.
type EmbeddingRows int32

const (
	// EmbeddingsNone: none.
	EmbeddingsNone EmbeddingRows = C.LAYERLINE_EMBEDDINGS_NONE
	// EmbeddingsAll: an embedding of every token, its hidden state after the final norm.
	EmbeddingsAll EmbeddingRows = C.LAYERLINE_EMBEDDINGS_ALL
	// EmbeddingsLast: that of the last token.
	EmbeddingsLast EmbeddingRows = C.LAYERLINE_EMBEDDINGS_LAST
	// EmbeddingsMean: the mean of those of all tokens of the pass.
	EmbeddingsMean EmbeddingRows = C.LAYERLINE_EMBEDDINGS_MEAN
	// EmbeddingsFirst: that of the first token.
	EmbeddingsFirst EmbeddingRows = C.LAYERLINE_EMBEDDINGS_FIRST
	// EmbeddingsScore: in place of an embedding the outputs of the model's classifier, one, the score, of a reranker.
	EmbeddingsScore EmbeddingRows = C.LAYERLINE_EMBEDDINGS_SCORE
)

// Session is one sequence of tokens on a model: its KV cache and its passes. Several sessions of one model may run at
// once.
type Session struct {
	h handle[*C.layerline_session]
	// Held for writing by the one call that changes the session, for reading by those that look at it.
	calls sync.RWMutex
}

// NewSession begins a sequence with room for so many tokens; 0: what the model's options say. Its KV cache is taken
// from the model's budget, and given back when it is closed. ErrMemoryBudget when the budget has no room for it.
func (m *Model) NewSession(contextLength int) (*Session, error) {
	length, err := u32(contextLength, "contextLength")
	if err != nil {
		return nil, err
	}
	model, err := m.h.use()
	if err != nil {
		return nil, err
	}
	defer m.h.done()
	var made *C.layerline_session
	var told *C.layerline_error
	if err := check(C.layerline_session_new(model, length, &made, &told), told); err != nil {
		return nil, err
	}
	return newSession(made), nil
}

func newSession(made *C.layerline_session) *Session {
	s := &Session{}
	s.h.own(made, func(p *C.layerline_session) { C.layerline_session_free(p) })
	closeForgotten(s)
	return s
}

// Close gives the session back, and its memory to the model's budget. A pass or generation that runs, or was submitted,
// is ended, but not waited for. It returns nil.
func (s *Session) Close() error {
	s.h.close()
	return nil
}

// Forward runs tokens, at least one, through the model, after those the session holds already. Layers that are not in
// memory are waited for. When ctx is done, the pass ends within the time of one page.
//
// After an error the session is as it was before the pass: ErrInvalidArgument, also for a token the model does not
// have; ErrContextFull; ErrMemoryBudget when the budget has no room for the logits of all tokens; ErrCancelled; ErrIO;
// ErrBusy; ErrOutOfMemory.
func (s *Session) Forward(ctx context.Context, tokens []Token, logits LogitRows, embeddings EmbeddingRows) error {
	return s.run(ctx, nil, func(session *C.layerline_session, _ *pass) error {
		var told *C.layerline_error
		first, count := array(tokens)
		return check(C.layerline_session_forward(session, first, count, C.int32_t(logits), C.int32_t(embeddings), &told), told)
	})
}

// Submit begins the same pass on a thread of the library, and returns at once. How it ended is the Err of an
// EventDone of the model: take it by Poll or Wait. Until then the session is the pass's: calls on it return ErrBusy,
// but for Interrupt and Close. Submitted passes of one model take turns in their order, or share sweeps. Model.Cancel
// gives one up.
func (s *Session) Submit(tokens []Token, logits LogitRows, embeddings EmbeddingRows) (Ticket, error) {
	session, end, err := s.begin()
	if err != nil {
		return 0, err
	}
	defer end()
	var ticket C.uint64_t
	var told *C.layerline_error
	first, count := array(tokens)
	err = check(C.layerline_session_submit(session, first, count, C.int32_t(logits), C.int32_t(embeddings), &ticket, &told), told)
	return Ticket(ticket), err
}

// Generate runs a prompt and generates up to maxTokens tokens, each given to onToken and fed back. It ends with nil
// after a token that ends the text, after maxTokens, or when onToken returns false.
//
// The prompt may be empty: then it goes on from the logits of the session's last pass. With maxTokens 0 the prompt
// alone is run. A nil sampler chooses the likeliest token.
//
// onToken gets the token and the text that became whole with it, whole UTF-8 characters; "" where the token ends inside
// one. It runs on the caller's goroutine, and may panic or call runtime.Goexit: the generation then ends first. A token
// that ends the text is not passed on. Of this session and sampler it may call Interrupt and Close alone; all else
// returns ErrBusy. To have tokens on a channel, send them from it: where the receiver may be gone, in a select with
// ctx.Done().
//
// The last token sampled is not fed to the session, all before it are: to go on later, begin the next prompt with it.
// Where a token ended the text, it is that one, so all that onToken got have been fed; Position tells which of both.
//
// Errors are those of Forward and Sampler.Sample; ErrContextFull comes after as many tokens as fitted. Tokens passed on
// before an error stay in the session, but for the last. When ctx is done, it ends within the time of one page.
func (s *Session) Generate(
	ctx context.Context, prompt []Token, maxTokens int, sampler *Sampler, onToken func(token Token, piece string) bool,
) error {
	most, err := size(maxTokens, "maxTokens")
	if err != nil {
		return err
	}
	return s.choose(ctx, sampler, plain(onToken), func(session *C.layerline_session, chooser *C.layerline_sampler, p *pass) error {
		return p.generate(session, chooser, prompt, most)
	})
}

// GenerateWith is Generate with the settings of a Generation: its length, stop strings, drafts. With stop strings a piece
// may hold text of earlier tokens too, which was kept back.
//
// Errors are those of Generate, and of a model that drafts. Where the model has recurrent layers, an error may leave the
// session without the last tokens that were passed on: Position tells.
func (s *Session) GenerateWith(
	ctx context.Context, prompt []Token, generation *Generation, sampler *Sampler, onToken func(token Token, piece string) bool,
) error {
	how, end, err := generation.begin()
	if err != nil {
		return err
	}
	defer end()
	return s.choose(ctx, sampler, plain(onToken), func(session *C.layerline_session, chooser *C.layerline_sampler, p *pass) error {
		return p.generateWith(session, how, chooser, prompt)
	})
}

// GenerateDetailed is GenerateWith with all that is known of each token: log-probabilities, where SetLogprobs of the
// generation asks for them.
func (s *Session) GenerateDetailed(
	ctx context.Context, prompt []Token, generation *Generation, sampler *Sampler, onToken func(Generated) bool,
) error {
	how, end, err := generation.begin()
	if err != nil {
		return err
	}
	defer end()
	return s.choose(ctx, sampler, onToken, func(session *C.layerline_session, chooser *C.layerline_sampler, p *pass) error {
		return p.generateDetailed(session, how, chooser, prompt)
	})
}

// plain is what gets a token and its text alone.
func plain(onToken func(Token, string) bool) func(Generated) bool {
	if onToken == nil {
		return nil
	}
	return func(made Generated) bool { return onToken(made.Token, made.Piece) }
}

// choose runs a call that needs a sampler, the likeliest token's where there is none.
func (s *Session) choose(
	ctx context.Context, sampler *Sampler, onToken func(Generated) bool,
	call func(*C.layerline_session, *C.layerline_sampler, *pass) error,
) error {
	if onToken == nil {
		onToken = func(Generated) bool { return true }
	}
	if sampler == nil {
		own, err := NewSampler(SamplerOptions{})
		if err != nil {
			return err
		}
		defer own.Close()
		sampler = own
	}
	chooser, end, err := sampler.begin()
	if err != nil {
		return err
	}
	defer end()
	return s.run(ctx, onToken, func(session *C.layerline_session, p *pass) error {
		return call(session, chooser, p)
	})
}

// Interrupt ends the pass or generation of the session, also one that was submitted, with ErrCancelled within the time
// of one page. Where there is none, it ends the next one. It does nothing when the session is closed.
func (s *Session) Interrupt() {
	session, err := s.h.use()
	if err != nil {
		return
	}
	defer s.h.done()
	C.layerline_session_interrupt(session)
}

// ClearInterrupt takes back an interrupt that no pass has seen.
func (s *Session) ClearInterrupt() {
	session, err := s.h.use()
	if err != nil {
		return
	}
	defer s.h.done()
	C.layerline_session_clear_interrupt(session)
}

// Logits is one row of the last pass, before any softmax: row 0 after LogitsLast, the token's index in the pass after
// LogitsAll. It is a copy, in the memory of into where that has room; nil makes a new slice. ErrInvalidArgument when
// the last pass has no such row.
func (s *Session) Logits(row int, into []float32) ([]float32, error) {
	return s.row(row, into, func(
		session *C.layerline_session, row C.size_t, values **C.float, count *C.size_t, told **C.layerline_error,
	) C.layerline_status {
		return C.layerline_session_logits(session, row, values, count, told)
	})
}

// Embeddings is one embedding that the last pass left, not normalised: the token's index in the pass after
// EmbeddingsAll, else row 0. As long as Info.EmbeddingLength; a copy, as that of Logits. Which pooling a model asks for
// is its metadata "{architecture}.pooling_type". ErrInvalidArgument when the last pass has no such row.
func (s *Session) Embeddings(row int, into []float32) ([]float32, error) {
	return s.row(row, into, func(
		session *C.layerline_session, row C.size_t, values **C.float, count *C.size_t, told **C.layerline_error,
	) C.layerline_status {
		return C.layerline_session_embeddings(session, row, values, count, told)
	})
}

// row copies a row of what the last pass left.
func (s *Session) row(
	row int, into []float32,
	call func(*C.layerline_session, C.size_t, **C.float, *C.size_t, **C.layerline_error) C.layerline_status,
) ([]float32, error) {
	number, err := size(row, "row")
	if err != nil {
		return nil, err
	}
	var copied []float32
	err = s.look(func(session *C.layerline_session) error {
		var values *C.float
		var count C.size_t
		var told *C.layerline_error
		if err := check(call(session, number, &values, &count, &told), told); err != nil {
			return err
		}
		copied = append(into[:0], unsafe.Slice((*float32)(unsafe.Pointer(values)), int(count))...)
		return nil
	})
	return copied, err
}

// Progress is how far a pass has come.
type Progress struct {
	// BytesDone is the bytes of weights that the pass has gone past, from memory or from storage; Bytes is all of them.
	BytesDone, Bytes uint64
	// TokensDone is the tokens whose chunk is done; Tokens is all of them.
	TokensDone, Tokens uint64
}

// Progress is how far the running pass of the session has come, or the last one where none runs. It never waits and may
// be called from any goroutine.
func (s *Session) Progress() (Progress, error) {
	session, err := s.h.use()
	if err != nil {
		return Progress{}, err
	}
	defer s.h.done()
	filled := C.layerline_progress{struct_size: C.sizeof_layerline_progress}
	var told *C.layerline_error
	err = check(C.layerline_session_get_progress(session, &filled, &told), told)
	return Progress{
		BytesDone:  uint64(filled.bytes_done),
		Bytes:      uint64(filled.bytes),
		TokensDone: uint64(filled.tokens_done),
		Tokens:     uint64(filled.tokens),
	}, err
}

// SessionInfo is facts of a session.
type SessionInfo struct {
	// ContextLength is the tokens it can hold.
	ContextLength int
	// Position is the tokens it holds.
	Position int
	// MemoryBytes is what it takes from the model's budget, without its checkpoints.
	MemoryBytes uint64
	// CacheBytes is the part of MemoryBytes that keys and values take.
	CacheBytes uint64
	// KVType is how keys and values are kept.
	KVType KVType
	// FewestTokens is the fewest tokens, beside 0, to which Truncate can go back now.
	FewestTokens int
}

// Info is facts of the session. ErrBusy while a pass runs or is submitted.
func (s *Session) Info() (SessionInfo, error) {
	filled := C.layerline_session_info{struct_size: C.sizeof_layerline_session_info}
	err := s.look(func(session *C.layerline_session) error {
		var told *C.layerline_error
		return check(C.layerline_session_get_info(session, &filled, &told), told)
	})
	return SessionInfo{
		ContextLength: int(filled.context_length),
		Position:      int(filled.position),
		MemoryBytes:   uint64(filled.memory_bytes),
		CacheBytes:    uint64(filled.cache_bytes),
		KVType:        KVType(filled.kv_type),
		FewestTokens:  int(filled.fewest_tokens),
	}, err
}

// Position is how many tokens the session holds.
func (s *Session) Position() (int, error) {
	info, err := s.Info()
	return info.Position, err
}

// ReusePrefix keeps what the session has in common with the beginning of tokens, forgets the rest, and says how many stay:
// the next prompt is what follows them. That is less than all, unless the session holds just these tokens and the logits of
// the last. Where the session cannot go back to as many (see Truncate), none stay: a model with recurrent layers keeps all it
// holds or nothing.
func (s *Session) ReusePrefix(tokens []Token) (int, error) {
	session, end, err := s.begin()
	if err != nil {
		return 0, err
	}
	defer end()
	first, count := array(tokens)
	var kept C.size_t
	var told *C.layerline_error
	err = check(C.layerline_session_reuse_prefix(session, first, count, &kept, &told), told)
	return int(kept), err
}

// CommonPrefix is how many of the first of tokens the session holds, whether or not it could go back to them.
func (s *Session) CommonPrefix(tokens []Token) (int, error) {
	var common C.size_t
	err := s.look(func(session *C.layerline_session) error {
		first, count := array(tokens)
		var told *C.layerline_error
		return check(C.layerline_session_common_prefix(session, first, count, &common, &told), told)
	})
	return int(common), err
}

// Truncate forgets all tokens after the first so many, so that the sequence can go on differently from there.
// ErrInvalidArgument when the session holds fewer, or when a layer with a sliding window has dropped what the next token
// would see: SessionInfo.FewestTokens says how far back it goes, and Checkpoint keeps a point that is farther back.
func (s *Session) Truncate(tokens int) error {
	count, err := size(tokens, "tokens")
	if err != nil {
		return err
	}
	session, end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	var told *C.layerline_error
	return check(C.layerline_session_truncate(session, count, &told), told)
}

// look makes a call that changes nothing. What the library shows it stays as it is: no pass can begin meanwhile.
func (s *Session) look(call func(*C.layerline_session) error) error {
	session, err := s.h.use()
	if err != nil {
		return err
	}
	defer s.h.done()
	if !s.calls.TryRLock() {
		return busy("session")
	}
	defer s.calls.RUnlock()
	return call(session)
}

// begin is the beginning of a call that has the session for itself, until end is called.
func (s *Session) begin() (session *C.layerline_session, end func(), err error) {
	if session, err = s.h.use(); err != nil {
		return nil, nil, err
	}
	if !s.calls.TryLock() {
		s.h.done()
		return nil, nil, busy("session")
	}
	return session, func() {
		s.calls.Unlock()
		s.h.done()
	}, nil
}

// run makes a call that may take long, and ends it when ctx is done or the session closed.
//
// The call is made on a goroutine of its own, so that this one can watch, and can run onToken: whatever that does never
// unwinds through frames of C.
func (s *Session) run(
	ctx context.Context, onToken func(Generated) bool, call func(*C.layerline_session, *pass) error,
) error {
	if err := ctx.Err(); err != nil {
		return cancelled(err)
	}
	session, end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	// A submitted pass has the session too, and must not be ended by the context of a call that will be refused.
	held := C.layerline_session_info{struct_size: C.sizeof_layerline_session_info}
	var told *C.layerline_error
	if err := check(C.layerline_session_get_info(session, &held, &told), told); err != nil {
		return err
	}

	p := &pass{tokens: make(chan Generated), goOn: make(chan bool), ended: make(chan error, 1)}
	running := true
	go func() { p.ended <- call(session, p) }()
	defer func() {
		if running { // onToken does not return
			p.goOn <- false
			<-p.ended
		}
	}()

	var why error
	done, closing := ctx.Done(), (<-chan struct{})(s.h.closing)
	interrupt := func() {
		if why == nil {
			if why = ctx.Err(); why == nil && s.h.closed() {
				why = ErrClosed
			}
		}
		if why != nil {
			C.layerline_session_interrupt(session)
			// It is not lost where the call has not begun yet.
			done, closing = nil, nil
		}
	}
	for {
		select {
		case t := <-p.tokens:
			goOn := onToken(t)
			interrupt()
			p.goOn <- goOn
		case err := <-p.ended:
			running = false
			if why != nil {
				// One that came too late for this call must not end the next one.
				C.layerline_session_clear_interrupt(session)
			}
			var failed *Error
			if errors.As(err, &failed) && failed.Status == ErrCancelled {
				failed.Cause = why
			}
			return err
		case <-done:
			interrupt()
		case <-closing:
			interrupt()
		}
	}
}

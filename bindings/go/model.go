package layerline

// #include "layerline.h"
import "C"

import (
	"fmt"
	"os"
	"time"
	"unsafe"
)

// Model is an open model. It is shared by any number of sessions and goroutines.
type Model struct {
	h handle[*C.layerline_model]
}

// Open opens the model at path; of a model in several files, the first. It returns as soon as the file's directory is
// read and checked; weights arrive in the background.
func Open(path string, options Options) (*Model, error) {
	var model *Model
	err := withPath(path, func(path *C.char) error {
		return options.with(func(options *C.layerline_options) (err error) {
			var opened *C.layerline_model
			var told *C.layerline_error
			model, err = newModel(C.layerline_model_open(path, options, &opened, &told), &opened, &told)
			return err
		})
	})
	return model, err
}

// OpenFile opens a model from a file that is open for reading, or from a part of it, such as an archive: length bytes
// from offset; length 0: to the end. The file's descriptor is duplicated: the caller may close its own at once. Its
// position is neither used nor moved.
func OpenFile(file *os.File, offset, length uint64, options Options) (*Model, error) {
	connection, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var model *Model
	controlled := connection.Control(func(fd uintptr) {
		err = options.with(func(options *C.layerline_options) (err error) {
			var opened *C.layerline_model
			var told *C.layerline_error
			status := C.layerline_model_open_fd(C.int(fd), C.uint64_t(offset), C.uint64_t(length), options, &opened, &told)
			model, err = newModel(status, &opened, &told)
			return err
		})
	})
	if controlled != nil {
		// It has no other reason to fail, and a name of its own for this one.
		return nil, fmt.Errorf("layerline: %s: %w", file.Name(), os.ErrClosed)
	}
	return model, err
}

func newModel(status C.layerline_status, opened **C.layerline_model, told **C.layerline_error) (*Model, error) {
	if err := check(status, *told); err != nil {
		return nil, err
	}
	m := &Model{}
	m.h.own(*opened, func(p *C.layerline_model) { C.layerline_model_free(p) })
	closeForgotten(m)
	return m, nil
}

// Close gives the model back; its sessions go on until they are closed themselves. Loads in flight are abandoned. It
// returns nil.
func (m *Model) Close() error {
	m.h.close()
	return nil
}

// Info is facts of a model.
type Info struct {
	// LayerCount is the layers, counted from 0 wherever one is named.
	LayerCount int
	// EmbeddingLength is the numbers in the hidden state of a token.
	EmbeddingLength int
	// HeadCount is the attention heads of a layer.
	HeadCount int
	// HeadCountKV is the heads of keys and values, which attention heads share.
	HeadCountKV int
	// VocabSize is the tokens of the vocabulary, which are numbered from 0.
	VocabSize int
	// ContextLength is the tokens of context the model was trained for.
	ContextLength int
	// ExpertCount is 0 where the model has no experts.
	ExpertCount int
	// ExpertUsedCount is the experts that a token is routed to.
	ExpertUsedCount int
	// BOSToken begins a text; -1: none.
	BOSToken Token
	// EOSToken ends a text; -1: none.
	EOSToken Token
	// HasHead: passes can leave logits.
	HasHead bool
	// Causal: a token sees only those before it. False in encoders.
	Causal bool
	// HasChatTemplate: FormatChat and the like have a template.
	HasChatTemplate bool
	// HasRecurrentMemory: a session cannot be truncated to every length.
	HasRecurrentMemory bool
	// ParameterCount is the weights, each counted as one whatever its format.
	ParameterCount uint64
}

// Info is facts of the model.
func (m *Model) Info() (Info, error) {
	model, err := m.h.use()
	if err != nil {
		return Info{}, err
	}
	defer m.h.done()
	filled := C.layerline_model_info{struct_size: C.sizeof_layerline_model_info}
	var told *C.layerline_error
	if err := check(C.layerline_model_get_info(model, &filled, &told), told); err != nil {
		return Info{}, err
	}
	return Info{
		LayerCount:         int(filled.layer_count),
		EmbeddingLength:    int(filled.embedding_length),
		HeadCount:          int(filled.head_count),
		HeadCountKV:        int(filled.head_count_kv),
		VocabSize:          int(filled.vocab_size),
		ContextLength:      int(filled.context_length),
		ExpertCount:        int(filled.expert_count),
		ExpertUsedCount:    int(filled.expert_used_count),
		BOSToken:           Token(filled.bos_token),
		EOSToken:           Token(filled.eos_token),
		HasHead:            bool(filled.has_head),
		Causal:             bool(filled.causal),
		HasChatTemplate:    bool(filled.has_chat_template),
		HasRecurrentMemory: bool(filled.has_recurrent_memory),
		ParameterCount:     uint64(filled.parameter_count),
	}, nil
}

// Stats is counters since the model was opened.
type Stats struct {
	// IO is the mode in use.
	IO IOMode
	// BudgetBytes is the budget now: the model's own, or its share.
	BudgetBytes uint64
	// UsedBytes is what is allocated of it now.
	UsedBytes uint64
	// PeakBytes is the most that was ever allocated.
	PeakBytes uint64
	// PinnedBytes is weights that stay, as planned now.
	PinnedBytes uint64
	// Passes that ended well.
	Passes uint64
	// Tokens of those passes.
	Tokens uint64
	// LayersResident counts accesses of a layer that found every page pinned and there.
	LayersResident uint64
	// LayersPrefetched counts accesses of a layer with streamed pages, all there in time.
	LayersPrefetched uint64
	// LayersStalled counts accesses of a layer that had to wait.
	LayersStalled uint64
	// StallTime is how long passes waited for pages.
	StallTime time.Duration
	// ComputeTime is how long passes computed.
	ComputeTime time.Duration
	// ReadTime is summed over all reads; reads overlap.
	ReadTime time.Duration
	// ReadBytes were read from storage, for passes and prefetches.
	ReadBytes uint64
	// PrefetchRequests is calls of Prefetch that returned a ticket.
	PrefetchRequests uint64
	// PrefetchFailures is layers of them that failed.
	PrefetchFailures uint64
	// Evictions counts pages evicted to make room for others.
	Evictions uint64
	// ExpertHits counts experts that passes were routed to and found in memory; one that several tokens of a chunk use
	// counts once.
	ExpertHits uint64
	// ExpertMisses counts experts that passes were routed to and had to read.
	ExpertMisses uint64
	// ExpertMissedBytes had to be read of those.
	ExpertMissedBytes uint64
	// ExpertEvictions counts experts evicted to make room for others, or because the budget fell.
	ExpertEvictions uint64
	// ExpertWorkingSetBytes is what the experts that one token uses take.
	ExpertWorkingSetBytes uint64
}

// Stats is the model's counters so far, also while passes run.
func (m *Model) Stats() (Stats, error) {
	model, err := m.h.use()
	if err != nil {
		return Stats{}, err
	}
	defer m.h.done()
	filled := C.layerline_stats{struct_size: C.sizeof_layerline_stats}
	var told *C.layerline_error
	if err := check(C.layerline_model_get_stats(model, &filled, &told), told); err != nil {
		return Stats{}, err
	}
	return Stats{
		IO:                    IOMode(filled.io),
		BudgetBytes:           uint64(filled.budget_bytes),
		UsedBytes:             uint64(filled.used_bytes),
		PeakBytes:             uint64(filled.peak_bytes),
		PinnedBytes:           uint64(filled.pinned_bytes),
		Passes:                uint64(filled.passes),
		Tokens:                uint64(filled.tokens),
		LayersResident:        uint64(filled.layers_resident),
		LayersPrefetched:      uint64(filled.layers_prefetched),
		LayersStalled:         uint64(filled.layers_stalled),
		StallTime:             time.Duration(filled.stall_ns),
		ComputeTime:           time.Duration(filled.compute_ns),
		ReadTime:              time.Duration(filled.read_ns),
		ReadBytes:             uint64(filled.read_bytes),
		PrefetchRequests:      uint64(filled.prefetch_requests),
		PrefetchFailures:      uint64(filled.prefetch_failures),
		Evictions:             uint64(filled.evictions),
		ExpertHits:            uint64(filled.expert_hits),
		ExpertMisses:          uint64(filled.expert_misses),
		ExpertMissedBytes:     uint64(filled.expert_missed_bytes),
		ExpertEvictions:       uint64(filled.expert_evictions),
		ExpertWorkingSetBytes: uint64(filled.expert_working_set_bytes),
	}, nil
}

// Metadata is one value of the file's metadata as text, any scalar or string: "general.name", say. ErrNotFound when
// the file has no such key, ErrUnsupported when it has an array there.
func (m *Model) Metadata(key string) (string, error) {
	model, err := m.h.use()
	if err != nil {
		return "", err
	}
	defer m.h.done()
	var value string
	err = withPath(key, func(copied *C.char) (err error) {
		value, err = text(func(buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error) C.layerline_status {
			return C.layerline_model_metadata(model, copied, buf, cap, needed, told)
		})
		return err
	})
	return value, err
}

// MetadataKeys is the keys of the file's metadata, but for the vocabulary's arrays.
func (m *Model) MetadataKeys() ([]string, error) {
	model, err := m.h.use()
	if err != nil {
		return nil, err
	}
	defer m.h.done()
	var count C.size_t
	var told *C.layerline_error
	if err := check(C.layerline_model_metadata_count(model, &count, &told), told); err != nil {
		return nil, err
	}
	keys := make([]string, count)
	for i := range keys {
		keys[i], err = text(func(buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error) C.layerline_status {
			return C.layerline_model_metadata_key_at(model, C.size_t(i), buf, cap, needed, told)
		})
		if err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// SetMemoryBudget changes the budget while passes run, and returns at once; 0: from the cgroup's limit and the free
// memory. Of a smaller one, memory goes back to the system now, but for what a running pass or a read under way uses,
// which follows within one page's time. ErrMemoryBudget when it is below what the open sessions need; then nothing
// changes.
func (m *Model) SetMemoryBudget(bytes uint64) error {
	model, err := m.h.use()
	if err != nil {
		return err
	}
	defer m.h.done()
	var told *C.layerline_error
	return check(C.layerline_model_set_memory_budget(model, C.uint64_t(bytes), &told), told)
}

// SaveProfile writes how likely each expert is to be used, by all passes so far and by the profile that the model was
// opened with, to a file for Options.Profile. The file gets its name when it is complete and on storage. ErrUnsupported
// when the model has no experts; ErrIO.
func (m *Model) SaveProfile(path string) error {
	return withPath(path, func(path *C.char) error {
		model, err := m.h.use()
		if err != nil {
			return err
		}
		defer m.h.done()
		var told *C.layerline_error
		return check(C.layerline_model_profile_save(model, path, &told), told)
	})
}

// TokenizeFlags is how text is read; values may be or-ed together.
type TokenizeFlags uint32

const (
	// TokenizeSpecial recognises control tokens in the text: for templates, never for users' text.
	TokenizeSpecial TokenizeFlags = C.LAYERLINE_TOKENIZE_SPECIAL
	// TokenizeBOS adds the beginning token where the model wants one.
	TokenizeBOS TokenizeFlags = C.LAYERLINE_TOKENIZE_BOS
	// TokenizeEOS adds the ending token where the model wants one.
	TokenizeEOS TokenizeFlags = C.LAYERLINE_TOKENIZE_EOS
	// TokenizeContinue is for text that goes on another: no space is put before it.
	TokenizeContinue TokenizeFlags = C.LAYERLINE_TOKENIZE_CONTINUE
)

// Tokenize turns text into tokens: UTF-8, or any bytes where the vocabulary has tokens for them. ErrUnsupported when the
// model has no tokeniser that is built in.
func (m *Model) Tokenize(text string, flags TokenizeFlags) ([]Token, error) {
	model, err := m.h.use()
	if err != nil {
		return nil, err
	}
	defer m.h.done()
	of := chars(text)
	tokens := make([]Token, len(text)/3+8)
	for {
		first, cap := array(tokens)
		var needed C.size_t
		var told *C.layerline_error
		status := C.layerline_model_tokenize(model, of, C.size_t(len(text)),
			C.uint32_t(flags), first, cap, &needed, &told)
		err := check(status, told)
		if status != C.LAYERLINE_ERROR_BUFFER_TOO_SMALL {
			return tokens[:needed], err
		}
		tokens = make([]Token, needed)
	}
}

// DetokenizeFlags is how tokens are turned into text; values may be or-ed together.
type DetokenizeFlags uint32

const (
	// DetokenizeControl gives control tokens the text of their names.
	DetokenizeControl DetokenizeFlags = C.LAYERLINE_DETOKENIZE_CONTROL
	// DetokenizeContinue is for tokens that go on a text: its first space stays.
	DetokenizeContinue DetokenizeFlags = C.LAYERLINE_DETOKENIZE_CONTINUE
)

// Detokenize turns a sequence of tokens into its text; control tokens have none. A sequence may end inside a character:
// then so does the text. A space that the tokeniser puts before every text is left out: that is right for a whole
// sequence, not for parts of one to be joined.
func (m *Model) Detokenize(tokens []Token) (string, error) {
	model, err := m.h.use()
	if err != nil {
		return "", err
	}
	defer m.h.done()
	return text(func(buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error) C.layerline_status {
		first, count := array(tokens)
		return C.layerline_model_detokenize(model, first, count, buf, cap, needed, told)
	})
}

// DetokenizeWith is Detokenize with flags.
func (m *Model) DetokenizeWith(tokens []Token, flags DetokenizeFlags) (string, error) {
	model, err := m.h.use()
	if err != nil {
		return "", err
	}
	defer m.h.done()
	return text(func(buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error) C.layerline_status {
		first, count := array(tokens)
		return C.layerline_model_detokenize_with(model, first, count, C.uint32_t(flags), buf, cap, needed, told)
	})
}

// TokenAttributes is what a token is; values are or-ed together.
type TokenAttributes uint32

const (
	// TokenControl steers the model, and has no text in an answer.
	TokenControl TokenAttributes = C.LAYERLINE_TOKEN_CONTROL
	// TokenEnd ends a text or a turn.
	TokenEnd TokenAttributes = C.LAYERLINE_TOKEN_END
	// TokenByte stands for one byte, which may be part of a character.
	TokenByte TokenAttributes = C.LAYERLINE_TOKEN_BYTE
	// TokenUserDefined is recognised in any text as it is written.
	TokenUserDefined TokenAttributes = C.LAYERLINE_TOKEN_USER_DEFINED
	// TokenUnknown stands for text that the vocabulary does not have.
	TokenUnknown TokenAttributes = C.LAYERLINE_TOKEN_UNKNOWN
	// TokenUnused is marked as unused by the vocabulary.
	TokenUnused TokenAttributes = C.LAYERLINE_TOKEN_UNUSED
)

// TokenText is the bytes that a token adds to a text that goes on, which may be part of a character, and what it is. A
// control token has the bytes of its name.
func (m *Model) TokenText(token Token) (string, TokenAttributes, error) {
	model, err := m.h.use()
	if err != nil {
		return "", 0, err
	}
	defer m.h.done()
	var attributes C.uint32_t
	bytes, err := text(func(buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error) C.layerline_status {
		return C.layerline_model_token_text(model, C.int32_t(token), buf, cap, needed, &attributes, told)
	})
	return bytes, TokenAttributes(attributes), err
}

// IsEnd tells whether a token ends a text or a turn.
func (m *Model) IsEnd(token Token) (bool, error) {
	model, err := m.h.use()
	if err != nil {
		return false, err
	}
	defer m.h.done()
	var end C.bool
	var told *C.layerline_error
	err = check(C.layerline_model_token_is_end(model, C.int32_t(token), &end, &told), told)
	return bool(end), err
}

// array is tokens as C takes them.
func array(tokens []Token) (*C.int32_t, C.size_t) {
	if len(tokens) == 0 {
		return nil, 0
	}
	return (*C.int32_t)(unsafe.Pointer(&tokens[0])), C.size_t(len(tokens))
}

// chars is a text as C takes it: never NULL, of bytes that C only reads.
func chars(text string) *C.char {
	return (*C.char)(unsafe.Pointer(&append([]byte(text), 0)[0]))
}

// text is what a function writes into a buffer, of any length.
func text(
	call func(buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error) C.layerline_status,
) (string, error) {
	buf := make([]byte, 256)
	for {
		var needed C.size_t
		var told *C.layerline_error
		status := call((*C.char)(unsafe.Pointer(&buf[0])), C.size_t(len(buf)), &needed, &told)
		err := check(status, told)
		if status != C.LAYERLINE_ERROR_BUFFER_TOO_SMALL {
			return string(buf[:needed]), err
		}
		buf = make([]byte, needed+1)
	}
}

package layerline

// #include <stdlib.h>
// #include "layerline.h"
import "C"

import (
	"context"
	"unsafe"
)

// BatchInput is what a session takes in within ForwardBatch.
type BatchInput struct {
	// Session is one of the model, in no other input.
	Session *Session
	// Tokens are at least one.
	Tokens     []Token
	Logits     LogitRows
	Embeddings EmbeddingRows
}

// ForwardBatch runs a pass of several sessions, with the weights read once for all of them. Each session has the results
// that Forward would give it. For each input it returns nil, or the error of Forward: its session is then as it was before.
// When ctx is done, all of them end within the time of one page.
func (m *Model) ForwardBatch(ctx context.Context, inputs []BatchInput) []error {
	failed := make([]error, len(inputs))
	all := func(err error) []error {
		for i := range failed {
			failed[i] = err
		}
		return failed
	}
	if err := ctx.Err(); err != nil {
		return all(cancelled(err))
	}
	model, err := m.h.use()
	if err != nil {
		return all(err)
	}
	defer m.h.done()

	var sessions []*C.layerline_session
	var numbers []int
	count := 0
	for i, input := range inputs {
		session, end, err := input.Session.begin()
		if err != nil {
			failed[i] = err
			continue
		}
		defer end()
		// A submitted pass has the session too, and must not be ended by the context of this call.
		held := C.layerline_session_info{struct_size: C.sizeof_layerline_session_info}
		var told *C.layerline_error
		if failed[i] = check(C.layerline_session_get_info(session, &held, &told), told); failed[i] != nil {
			continue
		}
		sessions, numbers = append(sessions, session), append(numbers, i)
		count += len(input.Tokens)
	}
	if len(sessions) == 0 {
		return failed
	}

	// What C is given must not hold pointers of Go.
	table := len(sessions) * C.sizeof_layerline_batch_input
	memory := C.malloc(C.size_t(table + count*C.sizeof_int32_t))
	if memory == nil {
		return all(refused(C.LAYERLINE_ERROR_OUT_OF_MEMORY, "a batch of %d", len(inputs)))
	}
	defer C.free(memory)
	batch := unsafe.Slice((*C.layerline_batch_input)(memory), len(sessions))
	rest := unsafe.Slice((*Token)(unsafe.Add(memory, table)), count)
	for i := range batch {
		input := &inputs[numbers[i]]
		own := rest[:copy(rest, input.Tokens)]
		rest = rest[len(own):]
		first, n := array(own)
		batch[i] = C.layerline_batch_input{
			struct_size: C.sizeof_layerline_batch_input,
			logits:      C.int32_t(input.Logits),
			embeddings:  C.int32_t(input.Embeddings),
			session:     sessions[i],
			tokens:      first,
			count:       n,
		}
	}
	ended := make(chan struct{})
	go func() {
		C.layerline_model_forward_batch(model, &batch[0], C.size_t(len(batch)), nil)
		close(ended)
	}()
	var why error
	select {
	case <-ended:
	case <-ctx.Done():
		why = ctx.Err()
		for _, session := range sessions {
			C.layerline_session_interrupt(session)
		}
		<-ended
		// One that came too late for this call must not end the next one.
		for _, session := range sessions {
			C.layerline_session_clear_interrupt(session)
		}
	}
	for i := range batch {
		err := check(batch[i].status, batch[i].error)
		if told, is := err.(*Error); is && told.Status == ErrCancelled {
			told.Cause = why
		}
		failed[numbers[i]] = err
	}
	return failed
}

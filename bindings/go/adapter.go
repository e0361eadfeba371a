package layerline

// #include <stdlib.h>
// #include "layerline.h"
import "C"

import (
	"fmt"
	"unsafe"
)

// Adapter is a low-rank adapter (LoRA) of a model, in memory. It keeps the model alive. Sessions that have it keep what they
// need of it: it may be closed before them.
type Adapter struct {
	h handle[*C.layerline_adapter]
}

// ScaledAdapter is an adapter with its scale: 1 is what it was trained for, 0 leaves it out.
type ScaledAdapter struct {
	Adapter *Adapter
	Scale   float32
}

// OpenAdapter reads an adapter of the model from a GGUF file, as llama.cpp's convert_lora_to_gguf.py makes it. Its memory is
// taken from the model's budget: ErrMemoryBudget when it does not fit. Other errors name the tensor that is not the model's
// or that adapters cannot change here, such as experts.
func (m *Model) OpenAdapter(path string) (*Adapter, error) {
	model, err := m.h.use()
	if err != nil {
		return nil, err
	}
	defer m.h.done()
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var made *C.layerline_adapter
	var told *C.layerline_error
	if err := check(C.layerline_adapter_open(model, name, &made, &told), told); err != nil {
		return nil, err
	}
	a := &Adapter{}
	a.h.own(made, func(p *C.layerline_adapter) { C.layerline_adapter_free(p) })
	closeForgotten(a)
	return a, nil
}

// MemoryBytes is what the adapter takes from the model's budget; 0 after Close.
func (a *Adapter) MemoryBytes() uint64 {
	own, err := a.h.use()
	if err != nil {
		return 0
	}
	defer a.h.done()
	return uint64(C.layerline_adapter_memory_bytes(own))
}

// Close gives the adapter back; sessions that have it go on with it. It returns nil.
func (a *Adapter) Close() error {
	a.h.close()
	return nil
}

// SetAdapters sets the adapters of the session, in place of those that it has; none: the model alone. What the session holds
// stays as it was computed. A copy has the same adapters, a state has none.
func (s *Session) SetAdapters(adapters ...ScaledAdapter) error {
	session, end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	// One more than there are, so that there is a first.
	pointers := make([]*C.layerline_adapter, len(adapters)+1)
	scales := make([]C.float, len(adapters)+1)
	for i, adapter := range adapters {
		if adapter.Adapter == nil {
			return fmt.Errorf("adapter %d is nil: %w", i, ErrInvalidArgument)
		}
		own, err := adapter.Adapter.h.use()
		if err != nil {
			return err
		}
		defer adapter.Adapter.h.done()
		pointers[i], scales[i] = own, C.float(adapter.Scale)
	}
	var told *C.layerline_error
	count := C.size_t(len(adapters))
	return check(C.layerline_session_set_adapters(session, &pointers[0], &scales[0], count, &told), told)
}

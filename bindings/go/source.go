package layerline

// #include <stdint.h>
// #include "layerline.h"
//
// extern int64_t layerlineGoRead(uint64_t offset, void *buf, size_t length, uintptr_t source);
// extern void layerlineGoRelease(uintptr_t source);
//
// static int64_t read_source(uint64_t offset, void *buf, size_t length, void *source)
// {
//     return layerlineGoRead(offset, buf, length, (uintptr_t)source);
// }
//
// static void release_source(void *source)
// {
//     layerlineGoRelease((uintptr_t)source);
// }
//
// static layerline_status new_source(uint64_t size, uintptr_t user_data, layerline_source **source, layerline_error **err)
// {
//     return layerline_source_new(size, read_source, release_source, (void *)user_data, source, err);
// }
import "C"

import (
	"io"
	"runtime/cgo"
)

// Source is storage of the program's own that models and adapters are read from in place of a file: an archive, memory, a
// network. What is opened from it keeps what it needs of it, so that it may be closed at once, and it may serve several.
type Source struct {
	h handle[*C.layerline_source]
}

// NewSource makes a source of the first size bytes of reader, which is called from several goroutines at once, as
// io.ReaderAt allows, until everything that was opened from it is closed. A read that fails is tried a second time; then
// it ends its pass with ErrIO, and later ones may go well. One that blocks holds up what waits for its bytes: a context
// that is done ends a pass that waits, and closing the last of a model leaves the read behind after 2 seconds.
//
// The reader must not use models that it serves, nor their sessions. name is what messages call it; sources of a model in
// several files have the names of the files, such as "model-00001-of-00003.gguf".
func NewSource(reader io.ReaderAt, size int64, name string) (*Source, error) {
	if reader == nil {
		return nil, invalid("the reader is nil")
	}
	if size < 0 {
		return nil, invalid("the size is %d", size)
	}
	kept := cgo.NewHandle(reader)
	var made *C.layerline_source
	var told *C.layerline_error
	if err := check(C.new_source(C.uint64_t(size), C.uintptr_t(kept), &made, &told), told); err != nil {
		kept.Delete()
		return nil, err
	}
	s := &Source{}
	s.h.own(made, func(p *C.layerline_source) { C.layerline_source_free(p) })
	closeForgotten(s)
	err := withPath(name, func(name *C.char) error {
		return check(C.layerline_source_set_name(made, name, &told), told)
	})
	if err != nil {
		s.h.close()
		return nil, err
	}
	return s, nil
}

// SetConcurrent says whether the reader may be called from several goroutines at once, by what is opened from now on; true
// where it is not called.
func (s *Source) SetConcurrent(enabled bool) error {
	own, err := s.h.use()
	if err != nil {
		return err
	}
	defer s.h.done()
	var told *C.layerline_error
	return check(C.layerline_source_set_concurrent(own, C.bool(enabled), &told), told)
}

// AddFile adds a further file of a model in several to the source of its first one, in any order. Opening finds it by its
// name. The further source may be closed afterwards.
func (s *Source) AddFile(further *Source) error {
	own, err := s.h.use()
	if err != nil {
		return err
	}
	defer s.h.done()
	other, err := further.h.use()
	if err != nil {
		return err
	}
	defer further.h.done()
	var told *C.layerline_error
	return check(C.layerline_source_add_file(own, other, &told), told)
}

// Close gives the source back; what was opened from it goes on. It returns nil.
func (s *Source) Close() error {
	s.h.close()
	return nil
}

// OpenSource opens a model out of a source. Options.IO must be IOAuto or IOBuffered.
func OpenSource(source *Source, options Options) (*Model, error) {
	own, err := source.h.use()
	if err != nil {
		return nil, err
	}
	defer source.h.done()
	var model *Model
	err = options.with(func(options *C.layerline_options) (err error) {
		var opened *C.layerline_model
		var told *C.layerline_error
		model, err = newModel(C.layerline_model_open_source(own, options, &opened, &told), &opened, &told)
		return err
	})
	return model, err
}

// PlanSource says what the model in a source would need, as PlanMemory does of a file.
func PlanSource(source *Source, options Options) (Plan, error) {
	var plan Plan
	own, err := source.h.use()
	if err != nil {
		return plan, err
	}
	defer source.h.done()
	err = options.with(func(options *C.layerline_options) error {
		filled := C.layerline_plan{struct_size: C.sizeof_layerline_plan}
		var told *C.layerline_error
		err := check(C.layerline_options_plan_source(options, own, &filled, &told), told)
		plan = newPlan(&filled)
		return err
	})
	return plan, err
}

// OpenAdapterSource reads an adapter of the model out of a source, as OpenAdapter does from a file.
func (m *Model) OpenAdapterSource(source *Source) (*Adapter, error) {
	model, err := m.h.use()
	if err != nil {
		return nil, err
	}
	defer m.h.done()
	own, err := source.h.use()
	if err != nil {
		return nil, err
	}
	defer source.h.done()
	var made *C.layerline_adapter
	var told *C.layerline_error
	if err := check(C.layerline_adapter_open_source(model, own, &made, &told), told); err != nil {
		return nil, err
	}
	a := &Adapter{}
	a.h.own(made, func(p *C.layerline_adapter) { C.layerline_adapter_free(p) })
	closeForgotten(a)
	return a, nil
}

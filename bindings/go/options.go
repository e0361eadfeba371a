package layerline

// #include <stdlib.h>
// #include "layerline.h"
import "C"

import (
	"strconv"
	"strings"
	"unsafe"
)

// IOMode is how weights are read from storage.
type IOMode int32

const (
	// IOAuto: direct reads where the file system takes them, else buffered ones; Stats.IO says which.
	IOAuto IOMode = C.LAYERLINE_IO_AUTO
	// IODirect: past the page cache.
	IODirect IOMode = C.LAYERLINE_IO_DIRECT
	// IOBuffered: through the page cache.
	IOBuffered IOMode = C.LAYERLINE_IO_BUFFERED
	// IOMmap: a mapping of the file. A file that is truncated while it is mapped can kill the process.
	IOMmap IOMode = C.LAYERLINE_IO_MMAP
	// IOSource: by a Source, which Stats.IO then says. It cannot be chosen.
	IOSource IOMode = C.LAYERLINE_IO_SOURCE
)

// KVType is how sessions keep keys and values.
type KVType int32

const (
	// KVF16: half floats.
	KVF16 KVType = C.LAYERLINE_KV_F16
	// KVQ80: signed bytes with a scale for every 32 of them, which takes 17/32 of the memory and changes results a
	// little.
	KVQ80 KVType = C.LAYERLINE_KV_Q8_0
)

// String is the type's name: "f16" or "q8_0".
func (k KVType) String() string { return name(int(k), "f16", "q8_0") }

// String is the mode's name: "auto", "direct", "buffered" or "mmap".
func (m IOMode) String() string { return name(int(m), "auto", "direct", "buffered", "mmap") }

// name is the name of a number, or the number where a newer library has more of them.
func name(number int, names ...string) string {
	if number >= 0 && number < len(names) {
		return names[number]
	}
	return strconv.Itoa(number)
}

// Options are settings for opening a model; zero means the default.
type Options struct {
	// MemoryBudget is how many bytes the library may allocate for the model and all its sessions: weights, KV caches,
	// scratch, vocabulary, metadata. 0: from the cgroup's limit and the free memory. One that is too small is refused
	// with ErrMemoryBudget when the model is opened; PlanMemory says beforehand what is needed.
	MemoryBudget uint64
	// ContextLength is how many tokens a new session can hold where NewSession is not told otherwise. Its KV cache
	// grows with them. 0: 4096, or what the model was trained for, the lesser.
	ContextLength int
	// ChunkLength is how many tokens of a prompt share one sweep over the weights: more make a long prompt faster and
	// scratch memory larger. 0: 256.
	ChunkLength int
	// Threads that compute. 0: the CPUs this process may use. Results do not depend on it, and GOMAXPROCS has nothing
	// to do with it.
	Threads int
	// DisablePrefetch has every weight loaded on demand, with the same results, in place of a background loader.
	DisablePrefetch bool
	// PrefetchDistance is how many layers the loader reads ahead of the pass. 0: as far as the budget allows.
	PrefetchDistance int
	// CacheLayers is how many layers are held in memory at most, be the budget ever so large. 0: by budget alone.
	CacheLayers int
	// IO is how weights are read.
	IO IOMode
	// KVType is how sessions keep keys and values. ErrUnsupported for KVQ80 where the model's heads are not a multiple
	// of 32 wide.
	KVType KVType
	// Profile is a file that Model.SaveProfile wrote: where not all experts of the model fit, the likeliest ones are read
	// before passes use them. Opening fails where it cannot be used: ErrIO, ErrFormat when it is not a profile or damaged,
	// ErrUnsupported when another version wrote it, ErrInvalidArgument when it is of another model. Empty: none.
	Profile string
	// SharedBudget is a budget that several models live on, in place of a MemoryBudget of their own.
	SharedBudget *Budget
	// DisableSharedSweeps has each pass read the weights for itself, with the same results. Otherwise passes of several
	// sessions that wait share a sweep over the weights.
	DisableSharedSweeps bool
	// Predictor opens the layer of the file that predicts further tokens in place of the model: it drafts for the model, see
	// Generation.DraftWith. ErrUnsupported where the file has none.
	Predictor bool
}

// with calls f with options as C has them.
func (o Options) with(f func(*C.layerline_options) error) error {
	options := C.layerline_options_new()
	if options == nil {
		return refused(C.LAYERLINE_ERROR_OUT_OF_MEMORY, "options")
	}
	defer C.layerline_options_free(options)
	for _, count := range []struct {
		name  string
		value int
		set   func(C.uint32_t) C.layerline_status
	}{
		{"ContextLength", o.ContextLength, func(n C.uint32_t) C.layerline_status {
			return C.layerline_options_set_context_length(options, n)
		}},
		{"ChunkLength", o.ChunkLength, func(n C.uint32_t) C.layerline_status {
			return C.layerline_options_set_chunk_length(options, n)
		}},
		{"Threads", o.Threads, func(n C.uint32_t) C.layerline_status {
			return C.layerline_options_set_threads(options, n)
		}},
		{"PrefetchDistance", o.PrefetchDistance, func(n C.uint32_t) C.layerline_status {
			return C.layerline_options_set_prefetch_distance(options, n)
		}},
		{"CacheLayers", o.CacheLayers, func(n C.uint32_t) C.layerline_status {
			return C.layerline_options_set_cache_layers(options, n)
		}},
	} {
		n, err := u32(count.value, count.name)
		if err != nil {
			return err
		}
		if err := refused(count.set(n), "%s is %d", count.name, count.value); err != nil {
			return err
		}
	}
	if err := refused(C.layerline_options_set_io(options, C.int32_t(o.IO)), "IO is %v", o.IO); err != nil {
		return err
	}
	if err := refused(C.layerline_options_set_kv_type(options, C.int32_t(o.KVType)), "KVType is %v", o.KVType); err != nil {
		return err
	}
	status := C.layerline_options_set_memory_budget(options, C.uint64_t(o.MemoryBudget))
	if err := refused(status, "MemoryBudget is %d", o.MemoryBudget); err != nil {
		return err
	}
	status = C.layerline_options_set_prefetch(options, C.bool(!o.DisablePrefetch))
	if err := refused(status, "DisablePrefetch is %v", o.DisablePrefetch); err != nil {
		return err
	}
	status = C.layerline_options_set_share_sweeps(options, C.bool(!o.DisableSharedSweeps))
	if err := refused(status, "DisableSharedSweeps is %v", o.DisableSharedSweeps); err != nil {
		return err
	}
	status = C.layerline_options_set_predictor(options, C.bool(o.Predictor))
	if err := refused(status, "Predictor is %v", o.Predictor); err != nil {
		return err
	}
	if o.Profile != "" {
		err := withPath(o.Profile, func(path *C.char) error {
			return refused(C.layerline_options_set_profile(options, path), "Profile is %q", o.Profile)
		})
		if err != nil {
			return err
		}
	}
	if o.SharedBudget != nil {
		budget, err := o.SharedBudget.h.use()
		if err != nil {
			return err
		}
		defer o.SharedBudget.h.done()
		if err := refused(C.layerline_options_set_shared_budget(options, budget), "SharedBudget"); err != nil {
			return err
		}
	}
	return f(options)
}

// Budget is a memory budget that several models share: give it to their Options. Each gets what it cannot do without,
// and the rest is divided in proportion to what each would need to stream nothing. Shares follow as models and sessions
// come and go; the sum of what the models use never exceeds the total. Models keep it alive.
type Budget struct {
	h handle[*C.layerline_budget]
}

// NewBudget makes a budget of so many bytes to be shared.
func NewBudget(bytes uint64) (*Budget, error) {
	made := C.layerline_budget_new(C.uint64_t(bytes))
	if made == nil {
		return nil, refused(C.LAYERLINE_ERROR_OUT_OF_MEMORY, "a budget")
	}
	b := &Budget{}
	b.h.own(made, func(p *C.layerline_budget) { C.layerline_budget_free(p) })
	closeForgotten(b)
	return b, nil
}

// SetBytes changes the total, while passes run. When it returns, the models use no more than that; this may take one
// page's time of their running passes. ErrMemoryBudget when the open models need more; then nothing has changed.
func (b *Budget) SetBytes(bytes uint64) error {
	budget, err := b.h.use()
	if err != nil {
		return err
	}
	defer b.h.done()
	var told *C.layerline_error
	return check(C.layerline_budget_set_bytes(budget, C.uint64_t(bytes), &told), told)
}

// Close gives the handle back; models opened with the budget go on sharing it. It returns nil.
func (b *Budget) Close() error {
	b.h.close()
	return nil
}

// Plan is what a model needs at given options, in bytes but for LayerCount.
type Plan struct {
	// LayerCount is the layers of the model.
	LayerCount int
	// FileBytes is the file, or all files of a model in several.
	FileBytes uint64
	// WeightBytes is all weights, as they are in the file.
	WeightBytes uint64
	// FloorBytes is the least budget that works.
	FloorBytes uint64
	// FullBytes is the budget at which nothing is streamed.
	FullBytes uint64
	// KVBytes, part of both, is what one session takes: its KV cache, and room for the results of a pass.
	KVBytes uint64
	// ScratchBytes, part of both, is the activations of a running pass, and the stacks of threads.
	ScratchBytes uint64
	// TablesBytes, part of both, is vocabulary, metadata, and small tensors that always stay.
	TablesBytes uint64
	// PinnedBytes is the memory of weights that stay, at these options.
	PinnedBytes uint64
	// StreamedBytes is what each forward pass reads from storage, at these options.
	StreamedBytes uint64
	// UnreadTensors is how many tensors of the file are never read: those of parts that a pass over text does not run.
	UnreadTensors uint64
	// UnreadBytes is what they take in the file.
	UnreadBytes uint64
	// ExpertWorkingSetBytes is weights of the experts that one token uses.
	ExpertWorkingSetBytes uint64
}

// PlanMemory says what the model at path would need at these options. It reads the directory of the file, no weights; a
// budget below the floor is not an error here.
func PlanMemory(path string, options Options) (Plan, error) {
	var plan Plan
	err := withPath(path, func(path *C.char) error {
		return options.with(func(options *C.layerline_options) error {
			filled := C.layerline_plan{struct_size: C.sizeof_layerline_plan}
			var told *C.layerline_error
			if err := check(C.layerline_options_plan(options, path, &filled, &told), told); err != nil {
				return err
			}
			plan = newPlan(&filled)
			return nil
		})
	})
	return plan, err
}

// newPlan is a plan as C has filled it.
func newPlan(filled *C.layerline_plan) Plan {
	return Plan{
		LayerCount:            int(filled.layer_count),
		FileBytes:             uint64(filled.file_bytes),
		WeightBytes:           uint64(filled.weight_bytes),
		FloorBytes:            uint64(filled.floor_bytes),
		FullBytes:             uint64(filled.full_bytes),
		KVBytes:               uint64(filled.kv_bytes),
		ScratchBytes:          uint64(filled.scratch_bytes),
		TablesBytes:           uint64(filled.tables_bytes),
		PinnedBytes:           uint64(filled.pinned_bytes),
		StreamedBytes:         uint64(filled.streamed_bytes),
		UnreadTensors:         uint64(filled.unread_tensors),
		UnreadBytes:           uint64(filled.unread_bytes),
		ExpertWorkingSetBytes: uint64(filled.expert_working_set_bytes),
	}
}

// withPath calls f with a path, or a metadata key, as C takes it.
func withPath(path string, f func(*C.char) error) error {
	if at := strings.IndexByte(path, 0); at >= 0 {
		return invalid("%q has a NUL at %d", path, at)
	}
	copied := C.CString(path)
	defer C.free(unsafe.Pointer(copied))
	return f(copied)
}

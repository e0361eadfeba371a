package layerline

// #include "layerline.h"
import "C"

import (
	"context"
	"time"
)

// EventKind is what an event tells.
type EventKind uint32

const (
	// EventLayer: one layer of a prefetch is ready, or failed.
	EventLayer EventKind = C.LAYERLINE_EVENT_LAYER
	// EventDone: a ticket is finished: all its layers, or its forward pass.
	EventDone EventKind = C.LAYERLINE_EVENT_DONE
)

// String is the kind's name: "layer" or "done".
func (k EventKind) String() string { return name(int(k), "0", "layer", "done") }

// LayerState is where a layer is.
type LayerState int32

const (
	// LayerAbsent: not in memory.
	LayerAbsent LayerState = C.LAYERLINE_LAYER_ABSENT
	// LayerLoading: reads of it are queued or in flight.
	LayerLoading LayerState = C.LAYERLINE_LAYER_LOADING
	// LayerReady: all of it is in memory.
	LayerReady LayerState = C.LAYERLINE_LAYER_READY
	// LayerPinned: ready, and stays.
	LayerPinned LayerState = C.LAYERLINE_LAYER_PINNED
)

// String is the state's name: "absent", "loading", "ready" or "pinned".
func (s LayerState) String() string { return name(int(s), "absent", "loading", "ready", "pinned") }

// Event is a completion. Each is given out once, to whichever goroutine polls or waits first.
type Event struct {
	// Ticket is what the request returned.
	Ticket Ticket
	// Kind tells a layer from a whole request.
	Kind EventKind
	// Err is nil, or the Status of why it failed.
	Err error
	// Layer is which one, of an EventLayer.
	Layer int
	// Bytes were read from storage for it; for a pass: while it ran, which includes what was read ahead for the next
	// one.
	Bytes uint64
	// Elapsed is the time since the request.
	Elapsed time.Duration
}

// Prefetch asks for layers to be loaded ahead of their use, and returns at once. Each layer gives an EventLayer when it
// is there, then the ticket an EventDone. What was loaded is kept until a pass has used it or the ticket is cancelled,
// as far as memory allows. A failed prefetch is an event, and no pass fails because of it. ErrInvalidArgument when the
// model has no such layers, ErrBusy when too many events wait to be taken.
func (m *Model) Prefetch(firstLayer, count int) (Ticket, error) {
	first, err := u32(firstLayer, "firstLayer")
	if err != nil {
		return 0, err
	}
	layers, err := u32(count, "count")
	if err != nil {
		return 0, err
	}
	model, err := m.h.use()
	if err != nil {
		return 0, err
	}
	defer m.h.done()
	var ticket C.uint64_t
	var told *C.layerline_error
	err = check(C.layerline_model_prefetch(model, first, layers, &ticket, &told), told)
	return Ticket(ticket), err
}

// Cancel ends a prefetch or a submitted pass: its EventDone comes with ErrCancelled. A pass that runs ends within
// the time of one page. A ticket that is finished already is not an error.
func (m *Model) Cancel(ticket Ticket) error {
	model, err := m.h.use()
	if err != nil {
		return err
	}
	defer m.h.done()
	var told *C.layerline_error
	return check(C.layerline_model_cancel(model, C.uint64_t(ticket), &told), told)
}

// TicketError is the error of a background request that failed, with its message; nil where it has succeeded or is under
// way. ErrNotFound when there never was such a ticket, or it is too old to tell.
func (m *Model) TicketError(ticket Ticket) error {
	model, err := m.h.use()
	if err != nil {
		return err
	}
	defer m.h.done()
	var told *C.layerline_error
	return check(C.layerline_model_ticket_error(model, C.uint64_t(ticket), &told), told)
}

// Poll takes events that are waiting, up to 64 of them, oldest first, without waiting for more; perhaps none.
func (m *Model) Poll() ([]Event, error) {
	return m.events(func(model *C.layerline_model, room []C.layerline_event, count *C.size_t, told **C.layerline_error) C.layerline_status {
		return C.layerline_model_poll(model, &room[0], C.size_t(len(room)), count, told)
	})
}

// turn is how long Wait stays inside C, where it sees neither its context nor Close.
const turn = 20 * time.Millisecond

// Wait is as Poll, but waits for the first event until ctx is done or the model closed. It notices these within some 20
// ms, and then takes no events. Programs that wait in an event loop of their own use EventHandle.
func (m *Model) Wait(ctx context.Context) ([]Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, cancelled(err)
		}
		events, err := m.events(func(model *C.layerline_model, room []C.layerline_event, count *C.size_t, told **C.layerline_error) C.layerline_status {
			return C.layerline_model_wait(model, C.int32_t(turn.Milliseconds()), &room[0], C.size_t(len(room)), count, told)
		})
		if len(events) > 0 || err != nil {
			return events, err
		}
	}
}

func (m *Model) events(
	take func(*C.layerline_model, []C.layerline_event, *C.size_t, **C.layerline_error) C.layerline_status,
) ([]Event, error) {
	model, err := m.h.use()
	if err != nil {
		return nil, err
	}
	defer m.h.done()
	room := make([]C.layerline_event, 64)
	var count C.size_t
	var told *C.layerline_error
	if err := check(take(model, room, &count, &told), told); err != nil {
		return nil, err
	}
	var events []Event
	for _, taken := range room[:count] {
		event := Event{
			Ticket:  Ticket(taken.ticket),
			Kind:    EventKind(taken.kind),
			Layer:   int(taken.layer),
			Bytes:   uint64(taken.bytes),
			Elapsed: time.Duration(taken.elapsed_ns),
		}
		if taken.status != C.LAYERLINE_OK {
			event.Err = Status(taken.status)
		}
		events = append(events, event)
	}
	return events, nil
}

// EventHandle is for event loops: a file descriptor that is readable while events wait, or on Windows the HANDLE of an event
// that is signalled meanwhile. It is the model's: do not read, write, reset or close it, and do not close the model while
// something watches it. ErrUnsupported where the system has none.
func (m *Model) EventHandle() (int, error) {
	model, err := m.h.use()
	if err != nil {
		return -1, err
	}
	defer m.h.done()
	fd := C.layerline_model_event_handle(model)
	if fd < 0 {
		return -1, refused(C.LAYERLINE_ERROR_UNSUPPORTED, "a descriptor for events")
	}
	return int(fd), nil
}

// LayerState is where a layer is. ErrInvalidArgument when the model has no such layer.
func (m *Model) LayerState(layer int) (LayerState, error) {
	number, err := u32(layer, "layer")
	if err != nil {
		return 0, err
	}
	model, err := m.h.use()
	if err != nil {
		return 0, err
	}
	defer m.h.done()
	var state C.int32_t
	var told *C.layerline_error
	err = check(C.layerline_model_layer_state(model, number, &state, &told), told)
	return LayerState(state), err
}

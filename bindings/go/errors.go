package layerline

// #include "layerline.h"
import "C"

import (
	"errors"
	"fmt"
	"math"
)

// Status is why a call failed. It is an error itself: compare with errors.Is. A newer library may return numbers that
// have no name here.
type Status int32

// The statuses of the library.
const (
	// ErrInvalidArgument: an argument is out of range, or not UTF-8.
	ErrInvalidArgument Status = C.LAYERLINE_ERROR_INVALID_ARGUMENT
	// ErrIO: missing file, short read, device error.
	ErrIO Status = C.LAYERLINE_ERROR_IO
	// ErrFormat: the file is not GGUF, truncated, contradictory or out of range.
	ErrFormat Status = C.LAYERLINE_ERROR_FORMAT
	// ErrUnsupported: a valid file that needs what is not built in; the message names it.
	ErrUnsupported Status = C.LAYERLINE_ERROR_UNSUPPORTED
	// ErrMemoryBudget: the memory budget is below the floor; the message gives both figures.
	ErrMemoryBudget Status = C.LAYERLINE_ERROR_MEMORY_BUDGET
	// ErrOutOfMemory: the system gave no memory.
	ErrOutOfMemory Status = C.LAYERLINE_ERROR_OUT_OF_MEMORY
	// ErrCancelled: the call was interrupted, by a context or otherwise, or its ticket cancelled.
	ErrCancelled Status = C.LAYERLINE_ERROR_CANCELLED
	// ErrContextFull: the tokens do not fit into the session's context.
	ErrContextFull Status = C.LAYERLINE_ERROR_CONTEXT_FULL
	// ErrBufferTooSmall: does not occur here, where buffers are made as long as they must be.
	ErrBufferTooSmall Status = C.LAYERLINE_ERROR_BUFFER_TOO_SMALL
	// ErrBusy: another call is using the handle, which this call needs for itself; or too many events wait to be taken.
	ErrBusy Status = C.LAYERLINE_ERROR_BUSY
	// ErrNotFound: what was named does not exist: a metadata key, a ticket, a chat template.
	ErrNotFound Status = C.LAYERLINE_ERROR_NOT_FOUND
	// ErrInternal: a fault inside the library. The handles of that call can only be closed; all others are unharmed.
	ErrInternal Status = C.LAYERLINE_ERROR_INTERNAL
)

// ErrClosed: the handle was closed, or was never opened.
var ErrClosed = errors.New("layerline: the handle is closed")

// Error is a short description in English.
func (s Status) Error() string { return "layerline: " + s.text() }

func (s Status) text() string { return C.GoString(C.layerline_status_string(C.layerline_status(s))) }

// Error is what the library refused or could not do.
type Error struct {
	// Status is the kind of failure; errors.Is finds it.
	Status Status
	// Message names the file, the tensor, the figures concerned.
	Message string
	// Cause is why a call was cancelled: the context's error, or ErrClosed. Otherwise nil.
	Cause error
}

// Error is the message, and the cause where there is one.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("layerline: %s: %v", e.Message, e.Cause)
	}
	return "layerline: " + e.Message
}

// Is tells errors.Is whether target is the Status of this error.
func (e *Error) Is(target error) bool { return target == e.Status }

// Unwrap is the Cause.
func (e *Error) Unwrap() error { return e.Cause }

// check makes an error of what a call of the C interface returned, and frees what it told.
func check(status C.layerline_status, told *C.layerline_error) error {
	if status == C.LAYERLINE_OK {
		return nil
	}
	failed := &Error{Status: Status(status), Message: Status(status).text()}
	if told != nil {
		failed.Message = C.GoString(C.layerline_error_message(told))
		C.layerline_error_free(told)
	}
	return failed
}

func invalid(format string, values ...any) error {
	return &Error{Status: ErrInvalidArgument, Message: fmt.Sprintf(format, values...)}
}

// refused is check for a function that tells a status alone: what it was asked for goes into the message.
func refused(status C.layerline_status, format string, values ...any) error {
	if status == C.LAYERLINE_OK {
		return nil
	}
	text := Status(status).text()
	return &Error{Status: Status(status), Message: fmt.Sprintf(format, values...) + ": " + text}
}

// cancelled is the error of a call that was not begun, or ended, for a reason of the host's.
func cancelled(cause error) error {
	return &Error{Status: ErrCancelled, Message: ErrCancelled.text(), Cause: cause}
}

func busy(handle string) error {
	return &Error{Status: ErrBusy, Message: "another call on this " + handle + " is running"}
}

// u32 is a count as C takes it.
func u32(value int, name string) (C.uint32_t, error) {
	if value < 0 || uint64(value) > math.MaxUint32 {
		return 0, invalid("%s is %d: it must be from 0 to %d", name, value, uint32(math.MaxUint32))
	}
	return C.uint32_t(value), nil
}

// size is a count as C takes it.
func size(value int, name string) (C.size_t, error) {
	if value < 0 {
		return 0, invalid("%s is %d: it must not be negative", name, value)
	}
	return C.size_t(value), nil
}

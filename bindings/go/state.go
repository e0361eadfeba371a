package layerline

// #include "layerline.h"
import "C"

import "unsafe"

// Copy begins a second sequence with the tokens of this one and its last logits, as row 0, so that a prompt is run once
// and continued in many ways. The two have nothing in common from then on. contextLength is the tokens the copy can
// hold; 0: as many as this one.
//
// Its KV cache is taken from the model's budget: ErrMemoryBudget when there is no room; ErrContextFull when this session
// holds more tokens than the copy could; ErrUnsupported for an encoder, which remembers nothing; ErrBusy during a pass.
func (s *Session) Copy(contextLength int) (*Session, error) {
	length, err := u32(contextLength, "contextLength")
	if err != nil {
		return nil, err
	}
	var made *C.layerline_session
	err = s.look(func(session *C.layerline_session) error {
		var told *C.layerline_error
		return check(C.layerline_session_copy(session, length, &made, &told), told)
	})
	if err != nil {
		return nil, err
	}
	return newSession(made), nil
}

// Save writes what the session holds to a file: keys and values of its tokens, and the logits of the last one where the
// last pass left some. Load goes on from there with the same bits, in another process too. The tokens themselves
// are in it.
//
// The file gets its name when it is complete and on storage: what had the name before is replaced whole, or stays. Only
// its owner can read it. ErrIO, also where the name belongs to something else than a regular file; ErrUnsupported for
// an encoder, which remembers nothing; ErrBusy during a pass.
func (s *Session) Save(path string) error {
	return withPath(path, func(path *C.char) error {
		return s.look(func(session *C.layerline_session) error {
			var told *C.layerline_error
			return check(C.layerline_session_save(session, path, &told), told)
		})
	})
}

// Load replaces what the session holds by what Save wrote in a session of the same model. Their context lengths may
// differ.
//
// After an error the session is as it was before: ErrIO; ErrFormat when it is not a state, cut short or damaged;
// ErrUnsupported when a newer library wrote it, and for an encoder; ErrInvalidArgument when it is of another model or
// KVType; ErrContextFull when it holds more tokens than the session can; ErrMemoryBudget when the budget has no room for
// a copy of what the session holds; ErrBusy. Checkpoints of what the session held are lost.
func (s *Session) Load(path string) error {
	return withPath(path, func(path *C.char) error {
		session, end, err := s.begin()
		if err != nil {
			return err
		}
		defer end()
		var told *C.layerline_error
		return check(C.layerline_session_load(session, path, &told), told)
	})
}

// SaveState returns the bytes that Save would write to a file. They are written to the memory of into where that has
// room; nil makes a new slice.
func (s *Session) SaveState(into []byte) ([]byte, error) {
	into = into[:cap(into)]
	err := s.look(func(session *C.layerline_session) error {
		for {
			var needed C.size_t
			var told *C.layerline_error
			status := C.layerline_session_save_buffer(session, bytesOf(into), C.size_t(len(into)), &needed, &told)
			err := check(status, told)
			if status != C.LAYERLINE_ERROR_BUFFER_TOO_SMALL {
				into = into[:int(needed)]
				return err
			}
			into = make([]byte, int(needed))
		}
	})
	if err != nil {
		return nil, err
	}
	return into, nil
}

// LoadState replaces what the session holds by what SaveState gave, or Save wrote, in a session of the same model. After
// an error, which is one of Load's, the session is as it was before.
func (s *Session) LoadState(state []byte) error {
	session, end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	var told *C.layerline_error
	return check(C.layerline_session_load_buffer(session, bytesOf(state), C.size_t(len(state)), &told), told)
}

func bytesOf(bytes []byte) *C.uint8_t {
	if len(bytes) == 0 {
		return nil
	}
	return (*C.uint8_t)(unsafe.Pointer(&bytes[0]))
}

// Checkpoint is a point of a session that Session.Restore can go back to where Session.Truncate cannot. It keeps the
// model alive, not the session.
type Checkpoint struct {
	h handle[*C.layerline_checkpoint]
}

// Checkpoint keeps the point where the session is now. Its memory is taken from the model's budget until it is closed:
// ErrMemoryBudget when there is no room; ErrUnsupported for an encoder, which remembers nothing; ErrBusy during a pass.
func (s *Session) Checkpoint() (*Checkpoint, error) {
	session, end, err := s.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	var made *C.layerline_checkpoint
	var told *C.layerline_error
	if err := check(C.layerline_session_checkpoint(session, &made, &told), told); err != nil {
		return nil, err
	}
	c := &Checkpoint{}
	c.h.own(made, func(p *C.layerline_checkpoint) { C.layerline_checkpoint_free(p) })
	closeForgotten(c)
	return c, nil
}

// Restore goes back to a checkpoint of this session, as often as wanted. ErrInvalidArgument when it is of another
// session, or when this one has gone back to fewer tokens or was loaded since; nothing changes then.
func (s *Session) Restore(checkpoint *Checkpoint) error {
	session, end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	point, err := checkpoint.h.use()
	if err != nil {
		return err
	}
	defer checkpoint.h.done()
	var told *C.layerline_error
	return check(C.layerline_session_restore(session, point, &told), told)
}

// Position is how many tokens the session held; 0 when the checkpoint is closed.
func (c *Checkpoint) Position() int {
	point, err := c.h.use()
	if err != nil {
		return 0
	}
	defer c.h.done()
	return int(C.layerline_checkpoint_position(point))
}

// MemoryBytes is what the checkpoint takes from the model's budget; 0 when it is closed.
func (c *Checkpoint) MemoryBytes() uint64 {
	point, err := c.h.use()
	if err != nil {
		return 0
	}
	defer c.h.done()
	return uint64(C.layerline_checkpoint_memory_bytes(point))
}

// Close gives the checkpoint's memory back to the model's budget. It returns nil.
func (c *Checkpoint) Close() error {
	c.h.close()
	return nil
}

package layerline

// #include "layerline.h"
import "C"

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
// last pass left some. Load goes on from there with the same bits, in another process too. The tokens themselves are
// not in it.
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
// After an error the session is as it was before: ErrIO; ErrFormat when it is no such file, cut short or damaged;
// ErrUnsupported when a newer library wrote it, and for an encoder; ErrInvalidArgument when it is of another model;
// ErrContextFull when it holds more tokens than the session can; ErrBusy. Only when the file changes while it is read,
// which is ErrIO, the session is left without tokens.
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

package layerline

// #include "layerline.h"
import "C"

// Detokenizer turns tokens into text as they come, for programs with a loop of their own: what it hands out is whole
// characters. One goroutine at a time; it keeps the model alive.
type Detokenizer struct {
	h handle[*C.layerline_detokenizer]
}

// NewDetokenizer makes a detokeniser for the tokens of the model. For what a model adds to a prompt, DetokenizeContinue.
func (m *Model) NewDetokenizer(flags DetokenizeFlags) (*Detokenizer, error) {
	model, err := m.h.use()
	if err != nil {
		return nil, err
	}
	defer m.h.done()
	var made *C.layerline_detokenizer
	var told *C.layerline_error
	if err := check(C.layerline_detokenizer_new(model, C.uint32_t(flags), &made, &told), told); err != nil {
		return nil, err
	}
	d := &Detokenizer{}
	d.h.own(made, func(p *C.layerline_detokenizer) { C.layerline_detokenizer_free(p) })
	closeForgotten(d)
	return d, nil
}

// Push takes tokens and gives the text that became whole with them. A token that the model does not have is
// ErrInvalidArgument, and none is taken.
func (d *Detokenizer) Push(tokens ...Token) (string, error) {
	own, err := d.h.use()
	if err != nil {
		return "", err
	}
	defer d.h.done()
	return text(func(buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error) C.layerline_status {
		first, count := array(tokens)
		return C.layerline_detokenizer_push(own, first, count, buf, cap, needed, told)
	})
}

// Finish ends the text: it gives U+FFFD where it ends inside a character. The next token begins another text.
func (d *Detokenizer) Finish() (string, error) {
	own, err := d.h.use()
	if err != nil {
		return "", err
	}
	defer d.h.done()
	return text(func(buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error) C.layerline_status {
		return C.layerline_detokenizer_finish(own, buf, cap, needed, told)
	})
}

// Close gives the detokeniser back. It returns nil.
func (d *Detokenizer) Close() error {
	d.h.close()
	return nil
}

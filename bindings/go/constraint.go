package layerline

// #include "layerline.h"
import "C"

import (
	"sync"
	"unsafe"
)

// Constraint is what a text must be like, and how far it is: for a Generation, and for programs that sample themselves. It
// is about the tokens of one model, which it keeps alive.
type Constraint struct {
	h     handle[*C.layerline_constraint]
	calls sync.Mutex // held by the one call that runs
}

// ConstraintKind says how a constraint is written.
type ConstraintKind int32

const (
	ConstraintJSONSchema ConstraintKind = C.LAYERLINE_CONSTRAINT_JSON_SCHEMA // JSON that a schema describes
	ConstraintGBNF       ConstraintKind = C.LAYERLINE_CONSTRAINT_GBNF        // a grammar in llama.cpp's GBNF, from its rule root
	ConstraintLark       ConstraintKind = C.LAYERLINE_CONSTRAINT_LARK        // a grammar in llguidance's Lark, from its rule start
	ConstraintRegex      ConstraintKind = C.LAYERLINE_CONSTRAINT_REGEX       // a regular expression, which the whole text matches
)

// ConstraintState says how far the text is.
type ConstraintState int32

const (
	ConstraintOpen     ConstraintState = C.LAYERLINE_CONSTRAINT_OPEN     // it goes on
	ConstraintMayEnd   ConstraintState = C.LAYERLINE_CONSTRAINT_MAY_END  // it may end here, or go on
	ConstraintComplete ConstraintState = C.LAYERLINE_CONSTRAINT_COMPLETE // nothing can follow
)

// NewConstraint makes a constraint at the beginning of a text. ErrInvalidArgument says what is wrong with the schema,
// grammar or expression.
func (m *Model) NewConstraint(kind ConstraintKind, text string) (*Constraint, error) {
	model, err := m.h.use()
	if err != nil {
		return nil, err
	}
	defer m.h.done()
	// Not empty, as C takes no NULL here; and of bytes that C only reads.
	bytes := append([]byte(text), 0)
	var made *C.layerline_constraint
	var told *C.layerline_error
	first := (*C.char)(unsafe.Pointer(&bytes[0]))
	status := C.layerline_constraint_new(model, C.int32_t(kind), first, C.size_t(len(text)), &made, &told)
	if err := check(status, told); err != nil {
		return nil, err
	}
	return ownConstraint(made), nil
}

func ownConstraint(made *C.layerline_constraint) *Constraint {
	c := &Constraint{}
	c.h.own(made, func(p *C.layerline_constraint) { C.layerline_constraint_free(p) })
	closeForgotten(c)
	return c
}

// Close gives the constraint back. Generations that were given it have copies. It returns nil.
func (c *Constraint) Close() error {
	c.h.close()
	return nil
}

// Copy makes a constraint that is as far as this one. The two have nothing in common.
func (c *Constraint) Copy() (copied *Constraint, err error) {
	err = c.call(func(own *C.layerline_constraint) error {
		var made *C.layerline_constraint
		var told *C.layerline_error
		if err := check(C.layerline_constraint_copy(own, &made, &told), told); err != nil {
			return err
		}
		copied = ownConstraint(made)
		return nil
	})
	return copied, err
}

// Mask tells which tokens may come next: bit i%32 of word i/32 is that of token i.
func (c *Constraint) Mask() (words []uint32, err error) {
	err = c.call(func(own *C.layerline_constraint) error {
		var needed C.size_t
		var told *C.layerline_error
		status := C.layerline_constraint_mask(own, nil, 0, &needed, &told)
		if status != C.LAYERLINE_ERROR_BUFFER_TOO_SMALL {
			return check(status, told)
		}
		C.layerline_error_free(told)
		told, words = nil, make([]uint32, int(needed))
		first := (*C.uint32_t)(unsafe.Pointer(&words[0]))
		return check(C.layerline_constraint_mask(own, first, needed, &needed, &told), told)
	})
	return words, err
}

// Accept tells the constraint how its text goes on. ErrInvalidArgument: one of the tokens may not come there, and none is
// taken.
func (c *Constraint) Accept(tokens ...Token) error {
	return c.call(func(own *C.layerline_constraint) error {
		var told *C.layerline_error
		first, count := array(tokens)
		return check(C.layerline_constraint_accept(own, first, count, &told), told)
	})
}

// Forced gives the tokens that the text goes on with in any case. They are not accepted.
func (c *Constraint) Forced() (tokens []Token, err error) {
	err = c.call(func(own *C.layerline_constraint) error {
		room := make([]Token, 64)
		for {
			var needed C.size_t
			var told *C.layerline_error
			first, count := array(room)
			status := C.layerline_constraint_forced(own, first, count, &needed, &told)
			if status == C.LAYERLINE_ERROR_BUFFER_TOO_SMALL {
				C.layerline_error_free(told)
				room = make([]Token, int(needed))
				continue
			}
			if err := check(status, told); err != nil {
				return err
			}
			tokens = room[:int(needed)]
			return nil
		}
	})
	return tokens, err
}

// State tells how far the text is.
func (c *Constraint) State() (state ConstraintState, err error) {
	err = c.call(func(own *C.layerline_constraint) error {
		var told *C.layerline_error
		var number C.int32_t
		err := check(C.layerline_constraint_get_state(own, &number, &told), told)
		state = ConstraintState(number)
		return err
	})
	return state, err
}

// call runs a call that has the constraint for itself.
func (c *Constraint) call(body func(*C.layerline_constraint) error) error {
	own, err := c.h.use()
	if err != nil {
		return err
	}
	defer c.h.done()
	if !c.calls.TryLock() {
		return busy("constraint")
	}
	defer c.calls.Unlock()
	return body(own)
}

// SetConstraint lets texts follow a copy of a constraint, from where it is now. nil: they are free.
func (g *Generation) SetConstraint(constraint *Constraint) error {
	return g.set(func(own *C.layerline_generation) error {
		var told *C.layerline_error
		if constraint == nil {
			return check(C.layerline_generation_set_constraint(own, nil, &told), told)
		}
		return constraint.call(func(what *C.layerline_constraint) error {
			return check(C.layerline_generation_set_constraint(own, what, &told), told)
		})
	})
}

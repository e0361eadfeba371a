package layerline_test

import (
	"context"
	"errors"
	"math/bits"
	"regexp"
	"testing"

	"layerline"
)

func TestConstraintsAreFollowed(t *testing.T) {
	model := open(t, small)
	constraint, err := model.NewConstraint(layerline.ConstraintRegex, "ab[0-9]{2,3}c")
	if errors.Is(err, layerline.ErrUnsupported) {
		t.Skip("built without constraints")
	}
	must(t, err)
	closing(t, constraint)
	generation, err := layerline.NewGeneration()
	must(t, err)
	closing(t, generation)
	must(t, generation.SetConstraint(constraint))
	text, session := "", begin(t, model)
	must(t, session.GenerateWith(context.Background(), prompt, generation, nil, func(_ layerline.Token, piece string) bool {
		text += piece
		return true
	}))
	stats, err := generation.Stats()
	must(t, err)
	if !regexp.MustCompile("^ab[0-9]{2,3}c$").MatchString(text) || stats.End != layerline.EndConstraint {
		t.Fatalf("%q, %v", text, stats)
	}
	must(t, generation.SetConstraint(nil))

	copied, err := constraint.Copy()
	must(t, err)
	closing(t, copied)
	forced, err := copied.Forced()
	must(t, err)
	mask, err := copied.Mask()
	must(t, err)
	allowed := 0
	for _, word := range mask {
		allowed += bits.OnesCount32(word)
	}
	if len(forced) == 0 || allowed != 1 || mask[forced[0]/32]>>(forced[0]%32)&1 != 1 {
		t.Fatalf("%v forced, %d allowed", forced, allowed)
	}
	must(t, copied.Accept(forced...))
	refused(t, copied.Accept(forced...), layerline.ErrInvalidArgument)
	if state, err := copied.State(); err != nil || state != layerline.ConstraintOpen {
		t.Fatalf("%v, %v", state, err)
	}
	_, err = model.NewConstraint(layerline.ConstraintJSONSchema, "{")
	refused(t, err, layerline.ErrInvalidArgument)
	_, err = model.NewConstraint(9, "a")
	refused(t, err, layerline.ErrInvalidArgument)
}

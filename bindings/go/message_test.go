package layerline_test

import (
	"errors"
	"strings"
	"testing"

	"layerline"
)

func TestMessagesAreParsed(t *testing.T) {
	parser, err := layerline.NewMessageParser("qwen3-coder", []byte(
		`[{"function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}]`))
	must(t, err)
	closing(t, parser)
	must(t, parser.Begin("<|im_start|>assistant\n<think>\n"))
	const said = "Hé.\n</think>\n\nSo:\n<tool_call>\n<function=f>\n<parameter=a>\n12\n</parameter>\n</function>\n</tool_call>"
	seen := map[layerline.PartKind]string{}
	take := func(parts []layerline.MessagePart, err error) {
		must(t, err)
		for _, part := range parts {
			seen[part.Kind] += part.Text
			if (part.ID != "") != (part.Kind >= layerline.PartCall) || part.Call != 0 {
				t.Errorf("%+v", part)
			}
		}
	}
	for i := 0; i < len(said); i++ {
		take(parser.Feed(said[i : i+1]))
	}
	take(parser.Finish())
	if seen[layerline.PartReasoning] != "Hé." || seen[layerline.PartContent] != "So:" ||
		seen[layerline.PartCall] != "f" || seen[layerline.PartArguments] != `{"a":"12"}` {
		t.Errorf("%v", seen)
	}
	message, err := parser.Message()
	must(t, err)
	if !strings.Contains(string(message), `"reasoning_content":"Hé."`) {
		t.Errorf("%s", message)
	}
	if _, err := parser.Feed("x"); !errors.Is(err, layerline.ErrInvalidArgument) {
		t.Error(err)
	}
	if _, err := layerline.NewMessageParser("none such", nil); !errors.Is(err, layerline.ErrNotFound) {
		t.Error(err)
	}
	of, err := openChat(t, "<tool_call></tool_call>").NewMessageParser(nil)
	must(t, err)
	closing(t, of)
	if of.Format() != "hermes" || parser.Format() != "qwen3-coder" {
		t.Error(of.Format(), parser.Format())
	}
}

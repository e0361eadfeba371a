package layerline_test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"layerline"
)

const chatTemplate = "{{ bos_token }}{% for m in messages %}" +
	"{% if m.role == 'odd' %}{{ raise_exception('no ' + m.role) }}{% endif %}" +
	"{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}" +
	"{% if add_generation_prompt %}assistant:{% endif %}"

// openChat opens the small model with a chat template; a comment of Jinja's keeps its tensors aligned.
func openChat(t testing.TB, template string) *layerline.Model {
	t.Helper()
	const key = "tokenizer.chat_template"
	model, err := os.ReadFile(modelPath)
	must(t, err)
	u64 := func(value int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(value)) }
	gap := 31 - (len(key)+20+len(template)+len("{##")+1+31)%32
	template += "{##" + strings.Repeat("#", gap) + "}"
	made := append([]byte(nil), model[:16]...)
	made = append(made, u64(int(binary.LittleEndian.Uint64(model[16:]))+1)...)
	made = append(append(made, u64(len(key))...), key...)
	made = append(binary.LittleEndian.AppendUint32(made, 8), u64(len(template))...)
	made = append(append(made, template...), model[24:]...)
	path := filepath.Join(t.TempDir(), "chat.gguf")
	must(t, os.WriteFile(path, made, 0o600))
	opened, err := layerline.Open(path, small)
	must(t, err)
	closing(t, opened)
	return opened
}

func count(tokens []layerline.Token, wanted layerline.Token) (found int) {
	for _, token := range tokens {
		if token == wanted {
			found++
		}
	}
	return found
}

func TestConversationsBecomeTextAndTokens(t *testing.T) {
	model := openChat(t, chatTemplate)
	said := []layerline.Message{{Role: "system", Content: "short"}, {Role: "user", Content: "hé</s>"}}
	const text = "<s>system:short</s>user:hé</s></s>"
	for _, end := range []struct {
		assistant bool
		wanted    string
	}{{false, text}, {true, text + "assistant:"}} {
		got, err := model.FormatChat(said, end.assistant)
		must(t, err)
		if got != end.wanted {
			t.Errorf("%q, not %q", got, end.wanted)
		}
	}
	empty, err := model.FormatChat(nil, true)
	must(t, err)
	long, err := model.FormatChat([]layerline.Message{{Role: "user", Content: strings.Repeat("a", 5000)}}, false)
	must(t, err)
	if empty != "<s>assistant:" || len(long) != 5012 {
		t.Errorf("%q, and %d bytes", empty, len(long))
	}

	conversation, err := json.Marshal(map[string]any{
		"messages": []map[string]string{{"role": "system", "content": "short"}, {"role": "user", "content": "hé</s>"}},
		"tools":    []map[string]string{{"name": "f"}},
	})
	must(t, err)
	withTools, err := model.FormatChatJSON(conversation, false)
	must(t, err)
	if withTools != text+`[{"name": "f"}]` {
		t.Errorf("%q", withTools)
	}

	// Control tokens that a message spells stay text.
	tokens, err := model.TokenizeChat(said, true)
	must(t, err)
	info, err := model.Info()
	must(t, err)
	if tokens[0] != info.BOSToken || count(tokens, info.EOSToken) != len(said) {
		t.Errorf("%v", tokens)
	}
	whole, err := model.Tokenize(text, layerline.TokenizeSpecial)
	must(t, err)
	if count(whole, info.EOSToken) != len(said)+1 {
		t.Errorf("%v", whole)
	}
	conversation, err = json.Marshal(map[string]any{
		"messages": []map[string]string{{"role": "system", "content": "short"}, {"role": "user", "content": "hé</s>"}},
	})
	must(t, err)
	same, err := model.TokenizeChatJSON(conversation, true)
	must(t, err)
	if !reflect.DeepEqual(same, tokens) {
		t.Errorf("%v, not %v", same, tokens)
	}
	many, err := model.TokenizeChat([]layerline.Message{{Role: "user", Content: strings.Repeat("</s>", 3000)}}, false)
	must(t, err)
	if len(many) < 3000 || count(many, info.EOSToken) != 1 {
		t.Errorf("%d tokens", len(many))
	}
}

func TestWhatTemplatesRefuseIsSaid(t *testing.T) {
	said := []layerline.Message{{Role: "user", Content: "hi"}}
	none := open(t, small)
	_, err := none.FormatChat(said, true)
	refused(t, err, layerline.ErrNotFound)
	_, err = none.TokenizeChatJSON([]byte(`{"messages": []}`), true)
	refused(t, err, layerline.ErrNotFound)

	model := openChat(t, chatTemplate)
	_, err = model.FormatChat([]layerline.Message{{Role: "odd"}}, true)
	refused(t, err, layerline.ErrInvalidArgument)
	if !strings.Contains(err.Error(), "no odd") {
		t.Errorf("%v are not the template's words", err)
	}
	for _, message := range []layerline.Message{{Role: "a\x00b"}, {Role: "user", Content: "a\x00b"}, {Role: "user", Content: "\xff"}} {
		_, err = model.FormatChat([]layerline.Message{message}, true)
		refused(t, err, layerline.ErrInvalidArgument)
		_, err = model.TokenizeChat([]layerline.Message{message}, true)
		refused(t, err, layerline.ErrInvalidArgument)
	}
	for _, wrong := range []string{"", "{", "[]", "{}"} {
		_, err = model.FormatChatJSON([]byte(wrong), true)
		refused(t, err, layerline.ErrInvalidArgument)
		_, err = model.TokenizeChatJSON([]byte(wrong), true)
		refused(t, err, layerline.ErrInvalidArgument)
	}
	_, err = openChat(t, "{% if %}").FormatChat(said, true)
	refused(t, err, layerline.ErrFormat)
	must(t, model.Close())
	_, err = model.FormatChat(said, true)
	refused(t, err, layerline.ErrClosed)
}

package layerline

// #include <stdlib.h>
// #include "layerline.h"
import "C"

import (
	"strings"
	"unsafe"
)

// Message is one of a conversation.
type Message struct {
	// Role is who speaks, as the model's template calls it: "system", "user", "assistant", "tool".
	Role string
	// Content is what is said.
	Content string
}

// FormatChat is the text of a conversation, by the template that comes with the model. With addAssistant it ends where
// the assistant's answer begins, which is then to be generated.
//
// It is to be tokenised with TokenizeSpecial and without TokenizeBOS. Control tokens that a message spells are then
// recognised like the template's own: for text from outside use TokenizeChat, where what messages say stays text.
//
// ErrUnsupported when the model has no template, or one that uses a function that is not built in; ErrInvalidArgument,
// also for messages that the template refuses, in its words, and for those that hold a NUL; ErrFormat for a template
// that cannot be parsed or goes beyond its bounds of time and memory.
func (m *Model) FormatChat(messages []Message, addAssistant bool) (string, error) {
	return withMessages(messages, func(first *C.layerline_message, count C.size_t) (string, error) {
		return m.chatText(func(
			model *C.layerline_model, buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error,
		) C.layerline_status {
			return C.layerline_model_format_chat(model, first, count, C.bool(addAssistant), buf, cap, needed, told)
		})
	})
}

// FormatChatJSON is FormatChat for conversations with tools, tool calls, documents, names: an object in JSON, as
// json.Marshal writes it, whose members become the template's variables. "messages" is required; "tools", "documents"
// and what else the template asks for, such as "enable_thinking", may be there.
func (m *Model) FormatChatJSON(conversation []byte, addAssistant bool) (string, error) {
	first, count := ended(conversation)
	return m.chatText(func(
		model *C.layerline_model, buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error,
	) C.layerline_status {
		return C.layerline_model_format_chat_json(model, first, count, C.bool(addAssistant), buf, cap, needed, told)
	})
}

// TokenizeChat is the tokens of the text of FormatChat, but that control tokens are recognised only where the template
// spells them: in what messages say they stay text, so that nobody but the template speaks for another. Errors are those
// of FormatChat and of Tokenize.
func (m *Model) TokenizeChat(messages []Message, addAssistant bool) ([]Token, error) {
	return withMessages(messages, func(first *C.layerline_message, count C.size_t) ([]Token, error) {
		return m.chatTokens(func(
			model *C.layerline_model, buf *C.int32_t, cap C.size_t, needed *C.size_t, told **C.layerline_error,
		) C.layerline_status {
			return C.layerline_model_tokenize_chat(model, first, count, C.bool(addAssistant), buf, cap, needed, told)
		})
	})
}

// TokenizeChatJSON is TokenizeChat for a conversation as FormatChatJSON takes it.
func (m *Model) TokenizeChatJSON(conversation []byte, addAssistant bool) ([]Token, error) {
	first, count := ended(conversation)
	return m.chatTokens(func(
		model *C.layerline_model, buf *C.int32_t, cap C.size_t, needed *C.size_t, told **C.layerline_error,
	) C.layerline_status {
		return C.layerline_model_tokenize_chat_json(model, first, count, C.bool(addAssistant), buf, cap, needed, told)
	})
}

// chatText is what a function of a conversation writes into a buffer, of any length.
func (m *Model) chatText(
	call func(*C.layerline_model, *C.char, C.size_t, *C.size_t, **C.layerline_error) C.layerline_status,
) (string, error) {
	buf := make([]byte, 1024)
	needed, err := m.chat(func(model *C.layerline_model, needed *C.size_t, told **C.layerline_error) C.layerline_status {
		if *needed >= C.size_t(len(buf)) {
			buf = make([]byte, *needed+1)
		}
		return call(model, (*C.char)(unsafe.Pointer(&buf[0])), C.size_t(len(buf)), needed, told)
	})
	if err != nil {
		return "", err
	}
	return string(buf[:needed]), nil
}

// chatTokens is the same for tokens.
func (m *Model) chatTokens(
	call func(*C.layerline_model, *C.int32_t, C.size_t, *C.size_t, **C.layerline_error) C.layerline_status,
) ([]Token, error) {
	tokens := make([]Token, 256)
	needed, err := m.chat(func(model *C.layerline_model, needed *C.size_t, told **C.layerline_error) C.layerline_status {
		if *needed > C.size_t(len(tokens)) {
			tokens = make([]Token, *needed)
		}
		first, count := array(tokens)
		return call(model, first, count, needed, told)
	})
	if err != nil {
		return nil, err
	}
	return tokens[:needed], nil
}

// chat calls again while the buffer is too small; needed says by then how long the result is.
func (m *Model) chat(
	call func(model *C.layerline_model, needed *C.size_t, told **C.layerline_error) C.layerline_status,
) (int, error) {
	model, err := m.h.use()
	if err != nil {
		return 0, err
	}
	defer m.h.done()
	var needed C.size_t
	for {
		var told *C.layerline_error
		status := call(model, &needed, &told)
		err := check(status, told)
		if status != C.LAYERLINE_ERROR_BUFFER_TOO_SMALL {
			return int(needed), err
		}
	}
}

// withMessages calls f with messages as C takes them.
func withMessages[R any](messages []Message, f func(*C.layerline_message, C.size_t) (R, error)) (result R, err error) {
	if len(messages) == 0 {
		return f(nil, 0)
	}
	// In C's memory, as they hold pointers. Roles and contents lie end to end behind them, each with its NUL.
	table, length := len(messages)*C.sizeof_layerline_message, 0
	for i, message := range messages {
		for _, said := range []string{message.Role, message.Content} {
			if at := strings.IndexByte(said, 0); at >= 0 {
				return result, invalid("message %d has a NUL at %d of %.40q", i, at, said)
			}
			length += len(said) + 1
		}
	}
	memory := C.malloc(C.size_t(table + length))
	defer C.free(memory)
	first := (*C.layerline_message)(memory)
	text, at := unsafe.Slice((*byte)(unsafe.Add(memory, table)), length), 0
	put := func(said string) *C.char {
		begin := at
		at += copy(text[at:], said)
		text[at] = 0
		at++
		return (*C.char)(unsafe.Pointer(&text[begin]))
	}
	for i, message := range messages {
		unsafe.Slice(first, len(messages))[i] = C.layerline_message{role: put(message.Role), content: put(message.Content)}
	}
	return f(first, C.size_t(len(messages)))
}

// ended is bytes as C takes them, which is no NULL for none.
func ended(bytes []byte) (*C.char, C.size_t) {
	copied := append(append(make([]byte, 0, len(bytes)+1), bytes...), 0)
	return (*C.char)(unsafe.Pointer(&copied[0])), C.size_t(len(bytes))
}

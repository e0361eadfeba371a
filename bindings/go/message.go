package layerline

// #include "layerline.h"
import "C"

import "unsafe"

// PartKind says what a part of a message is.
type PartKind uint32

// The parts of a message.
const (
	// PartContent is more of the answer.
	PartContent PartKind = C.LAYERLINE_PART_CONTENT
	// PartReasoning is more of what the model thinks before it answers.
	PartReasoning PartKind = C.LAYERLINE_PART_REASONING
	// PartCall begins a tool call: Text is its name.
	PartCall PartKind = C.LAYERLINE_PART_CALL
	// PartArguments is more of the arguments of a call: JSON, where the model makes no mistake.
	PartArguments PartKind = C.LAYERLINE_PART_ARGUMENTS
	// PartCallEnd ends a tool call.
	PartCallEnd PartKind = C.LAYERLINE_PART_CALL_END
)

// MessagePart is a part of a message.
type MessagePart struct {
	Kind PartKind
	// Call is which call of the message, from 0; 0 for other parts.
	Call int
	Text string
	// ID is what the result of a call names it by; "" for what is no call.
	ID string
}

// MessageParser turns what a model writes into messages: what it says, what it thinks, and the tools it calls. The text may
// be cut anywhere, and nothing of it is refused. One goroutine at a time.
//
// The formats deepseek, harmony, kimi and mistral, and llama3 in part, mark calls by control tokens: the text must have
// them, by SamplerOptions.ShowControl or DetokenizeControl.
type MessageParser struct {
	h handle[*C.layerline_message_parser]
}

// NewMessageParser makes a parser for what the model writes, as its chat template tells. tools is the JSON array "tools" of
// the conversation, or nil: qwen3-coder, glm and minimax write strings without quotes, and the schemas say which are some.
func (m *Model) NewMessageParser(tools []byte) (*MessageParser, error) {
	model, err := m.h.use()
	if err != nil {
		return nil, err
	}
	defer m.h.done()
	return newMessageParser(model, nil, tools)
}

// NewMessageParser makes a parser for a format: "hermes" (also Qwen 2.5 and 3), "qwen3-coder" (also Qwen 3.5), "llama3",
// "mistral", "deepseek", "harmony" (gpt-oss), "glm", "kimi", "minimax", or "plain", which has reasoning alone. Another name
// is ErrNotFound.
func NewMessageParser(format string, tools []byte) (*MessageParser, error) {
	name, _ := ended([]byte(format))
	return newMessageParser(nil, name, tools)
}

func newMessageParser(model *C.layerline_model, format *C.char, tools []byte) (*MessageParser, error) {
	first, count := ended(tools)
	var made *C.layerline_message_parser
	var told *C.layerline_error
	if err := check(C.layerline_message_parser_new(model, format, first, count, &made, &told), told); err != nil {
		return nil, err
	}
	p := &MessageParser{}
	p.h.own(made, func(p *C.layerline_message_parser) { C.layerline_message_parser_free(p) })
	closeForgotten(p)
	return p, nil
}

// Format is the name of the format; "" after Close.
func (p *MessageParser) Format() string {
	own, err := p.h.use()
	if err != nil {
		return ""
	}
	defer p.h.done()
	return C.GoString(C.layerline_message_parser_format(own))
}

// Begin begins another message, and forgets the last. prompt is the text that it answers, as FormatChat gives it, or its
// last bytes, or "": some templates end it inside the reasoning.
func (p *MessageParser) Begin(prompt string) error {
	own, err := p.h.use()
	if err != nil {
		return err
	}
	defer p.h.done()
	first, count := ended([]byte(prompt))
	var told *C.layerline_error
	return check(C.layerline_message_parser_begin(own, first, count, &told), told)
}

// Feed takes more of the text and gives the parts that it makes. After Finish it is ErrInvalidArgument.
func (p *MessageParser) Feed(text string) ([]MessagePart, error) {
	own, err := p.h.use()
	if err != nil {
		return nil, err
	}
	defer p.h.done()
	first, count := ended([]byte(text))
	var told *C.layerline_error
	if err := check(C.layerline_message_parser_feed(own, first, count, &told), told); err != nil {
		return nil, err
	}
	return parts(own), nil
}

// Finish ends the message and gives the parts of what was kept back.
func (p *MessageParser) Finish() ([]MessagePart, error) {
	own, err := p.h.use()
	if err != nil {
		return nil, err
	}
	defer p.h.done()
	var told *C.layerline_error
	if err := check(C.layerline_message_parser_finish(own, &told), told); err != nil {
		return nil, err
	}
	return parts(own), nil
}

// Message is the message so far as JSON, to go on the "messages" of FormatChatJSON: "role", "content", and where there are
// any "reasoning_content" and "tool_calls", whose arguments are an object, or text where they are not one.
func (p *MessageParser) Message() ([]byte, error) {
	own, err := p.h.use()
	if err != nil {
		return nil, err
	}
	defer p.h.done()
	message, err := text(func(buf *C.char, cap C.size_t, needed *C.size_t, told **C.layerline_error) C.layerline_status {
		return C.layerline_message_parser_message(own, buf, cap, needed, told)
	})
	return []byte(message), err
}

// Close gives the parser back. It returns nil.
func (p *MessageParser) Close() error {
	p.h.close()
	return nil
}

func parts(own *C.layerline_message_parser) (all []MessagePart) {
	part := C.layerline_message_part{struct_size: C.sizeof_layerline_message_part}
	for bool(C.layerline_message_parser_next(own, &part)) {
		all = append(all, MessagePart{
			Kind: PartKind(part.kind),
			Call: int(part.call),
			Text: string(unsafe.Slice((*byte)(unsafe.Pointer(part.text)), int(part.length))),
			ID:   string(unsafe.Slice((*byte)(unsafe.Pointer(part.id)), int(part.id_length))),
		})
	}
	return all
}

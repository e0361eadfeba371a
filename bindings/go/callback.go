package layerline

// #include <stdbool.h>
// #include <stdint.h>
// #include "layerline.h"
//
// extern bool layerlineGoToken(int32_t token, char *piece, size_t length, uintptr_t pass);
//
// static bool on_token(int32_t token, const char *piece, size_t length, void *pass)
// {
//     return layerlineGoToken(token, (char *)piece, length, (uintptr_t)pass);
// }
//
// extern bool layerlineGoGenerated(layerline_generated *generated, uintptr_t pass);
//
// static bool on_generated(const layerline_generated *generated, void *pass)
// {
//     return layerlineGoGenerated((layerline_generated *)generated, (uintptr_t)pass);
// }
//
// static layerline_status generate(layerline_session *session, layerline_sampler *sampler, const int32_t *prompt,
//                                  size_t count, size_t max_tokens, uintptr_t pass, layerline_error **err)
// {
//     return layerline_session_generate(session, sampler, prompt, count, max_tokens, on_token, (void *)pass, err);
// }
//
// static layerline_status generate_with(layerline_session *session, layerline_generation *generation,
//                                       layerline_sampler *sampler, const int32_t *prompt, size_t count, uintptr_t pass,
//                                       layerline_error **err)
// {
//     return layerline_session_generate_with(session, generation, sampler, prompt, count, on_token, (void *)pass, err);
// }
//
// static layerline_status generate_detailed(layerline_session *session, layerline_generation *generation,
//                                           layerline_sampler *sampler, const int32_t *prompt, size_t count,
//                                           uintptr_t pass, layerline_error **err)
// {
//     return layerline_session_generate_detailed(session, generation, sampler, prompt, count, on_generated,
//                                                (void *)pass, err);
// }
import "C"

import "runtime/cgo"

// pass is a call under way, between the goroutine that is inside C and the one that made it.
type pass struct {
	tokens chan Generated // what was generated; each is answered by
	goOn   chan bool
	ended  chan error
}

func (p *pass) generate(
	session *C.layerline_session, sampler *C.layerline_sampler, prompt []Token, maxTokens C.size_t,
) error {
	handle := cgo.NewHandle(p)
	defer handle.Delete()
	var told *C.layerline_error
	first, count := array(prompt)
	return check(C.generate(session, sampler, first, count, maxTokens, C.uintptr_t(handle), &told), told)
}

func (p *pass) generateWith(
	session *C.layerline_session, generation *C.layerline_generation, sampler *C.layerline_sampler, prompt []Token,
) error {
	handle := cgo.NewHandle(p)
	defer handle.Delete()
	var told *C.layerline_error
	first, count := array(prompt)
	return check(C.generate_with(session, generation, sampler, first, count, C.uintptr_t(handle), &told), told)
}

func (p *pass) generateDetailed(
	session *C.layerline_session, generation *C.layerline_generation, sampler *C.layerline_sampler, prompt []Token,
) error {
	handle := cgo.NewHandle(p)
	defer handle.Delete()
	var told *C.layerline_error
	first, count := array(prompt)
	return check(C.generate_detailed(session, generation, sampler, first, count, C.uintptr_t(handle), &told), told)
}
